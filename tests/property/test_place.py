"""What holds for every plan, checked against an own, naive reading of the rules rather than the scheduler's code."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.constraints import Constraint, Operator
from manifests.quantities import parse_bytes, parse_cpu
from manifests.reasons import Code, Rejection
from manifests.taints import Taint
from scheduler.model import (
    AUTO_PORTS,
    NOTHING,
    Ask,
    Eligibility,
    Neighbour,
    NodeView,
    PlacedAllocation,
    Plan,
    Snapshot,
    Spread,
    Vector,
)
from scheduler.place import place, with_plan
from tests.strategies import ATTRIBUTES, WORKLOADS, ZONES, ask_lists, asks, nodes, snapshots, vectors

seeds = st.integers(0, 5)


# --- the naive reading -------------------------------------------------------------------------------------------


def free_on(node: NodeView, snapshot: Snapshot) -> Vector:
    held = [a.reserved for a in snapshot.allocations if a.node == node.name]
    return node.allocatable - sum(held, NOTHING)


def running_on(node: NodeView, ask: Ask, snapshot: Snapshot) -> int:
    return sum(a.node == node.name and a.is_wanted and a.workload == ask.workload for a in snapshot.allocations)


def value_of(node: NodeView, attribute: str) -> str | None:
    if attribute == "node.name":
        return node.name
    _, kind, key = attribute.split(".")
    return (node.labels if kind == "labels" else node.attributes).get(key)


def meets(node: NodeView, ask: Ask) -> bool:
    return all(holds(c, value_of(node, c.attribute)) for c in ask.constraints)


def holds(constraint: Constraint, found: str | None) -> bool:
    match constraint.operator:
        case Operator.EXISTS:
            return found is not None
        case Operator.NOT_EXISTS:
            return found is None
        case Operator.EQUAL | Operator.IN:
            return found in constraint.values
        case Operator.NOT_EQUAL | Operator.NOT_IN:
            return found not in constraint.values
        case Operator.INCLUDES:
            return set(constraint.values) <= set((found or "").split(","))
    order = ("5.4.0-26-amd64", "5.10", "6")  # as kernels are
    there, wanted = order.index(found or ""), order.index(constraint.values[0])
    return {">": there > wanted, ">=": there >= wanted, "<": there < wanted, "<=": there <= wanted}[constraint.operator]


def is_beside(node: NodeView, neighbour: Neighbour, snapshot: Snapshot) -> bool:
    """Say whether the other workload is in the same place as the node."""
    own = value_of(node, neighbour.over)
    there = {value_of(n, neighbour.over) for n in snapshot.nodes for a in on(n, snapshot) if is_of(a, neighbour)}
    return own in there


def on(node: NodeView, snapshot: Snapshot) -> list[PlacedAllocation]:
    return [a for a in snapshot.allocations if a.node == node.name]


def is_of(allocation: PlacedAllocation, neighbour: Neighbour) -> bool:
    return allocation.is_wanted and allocation.workload == neighbour.workload


def tolerates(ask: Ask, taint: Taint) -> bool:
    return any(t.key == taint.key and t.value in (None, taint.value) for t in ask.tolerations)


def holders(node: NodeView, snapshot: Snapshot) -> dict[tuple[int, str], str]:
    return {(p.host, p.protocol): a.id for a in snapshot.allocations if a.node == node.name for p in a.ports}


def is_too_uneven(node: NodeView, ask: Ask, snapshot: Snapshot) -> bool:
    """Say whether one more there would leave a value with more than maxSkew above the emptiest that is allowed."""
    for spread in ask.spread:
        if spread.max_skew is not None:
            allowed = {value_of(n, spread.over) for n in snapshot.nodes if is_open(n, ask)}
            counts = {v: crowd(v, spread.over, ask, snapshot) for v in allowed | {value_of(node, spread.over)}}
            if counts[value_of(node, spread.over)] + 1 - min(counts[v] for v in allowed) > spread.max_skew:
                return True
    return False


def crowd(value: str | None, over: str, ask: Ask, snapshot: Snapshot) -> int:
    return sum(running_on(n, ask, snapshot) for n in snapshot.nodes if value_of(n, over) == value)


def is_open(node: NodeView, ask: Ask) -> bool:
    """Say whether it could be there if nothing else were."""
    return (
        node.eligibility is Eligibility.READY
        and ask.only_node in (None, node.name)
        and all(tolerates(ask, taint) for taint in node.taints)
        and meets(node, ask)
    )


def can_take(node: NodeView, ask: Ask, snapshot: Snapshot) -> bool:
    """Say whether one more allocation fits, in a cluster that never runs out of auto ports."""
    held = holders(node, snapshot)
    return (
        is_open(node, ask)
        and (ask.max_per_node is None or running_on(node, ask, snapshot) < ask.max_per_node)
        and ask.reserved.fits(free_on(node, snapshot))
        and not any((p.host, p.protocol) in held for p in ask.ports)
        and all(n.weight is not None or is_beside(node, n, snapshot) is n.is_wanted for n in ask.neighbours)
        and not is_too_uneven(node, ask, snapshot)
    )


def is_true(rejection: Rejection, ask: Ask, snapshot: Snapshot) -> bool:
    """Say whether what the rejection claims, amounts included, is so."""
    node = next(n for n in snapshot.nodes if n.name == rejection.node)
    free, needed, found = free_on(node, snapshot), rejection.needed, rejection.found
    match rejection.code:
        case Code.CORDONED | Code.DRAINING | Code.TROUBLED | Code.SUSPECT | Code.LOST:
            return node.eligibility.value == rejection.code.value
        case Code.TAINT:
            first = next(t for t in node.taints if not tolerates(ask, t))
            return found == str(first) and needed == str(first).partition(":")[0]
        case Code.CPU:
            claimed = 0 if found == "0" else parse_cpu(found)
            return parse_cpu(needed) == ask.reserved.cpu_m > free.cpu_m and claimed == max(free.cpu_m, 0)
        case Code.MEMORY:
            claimed = 0 if found == "0" else parse_bytes(found)
            return parse_bytes(needed) == ask.reserved.memory_bytes > free.memory_bytes and claimed == max(
                free.memory_bytes, 0
            )
        case Code.PIDS:
            return int(needed) == ask.reserved.pids > free.pids and int(found) == max(free.pids, 0)
        case Code.CONSTRAINT:
            failed = [c for c in ask.constraints if str(c) == needed]
            return not meets(node, ask) and found == (value_of(node, failed[0].attribute) or "not set")
        case Code.MAX_PER_NODE:
            return int(needed) == ask.max_per_node and int(found) == running_on(node, ask, snapshot)
        case Code.HOST_PORT:
            port, _, protocol = needed.partition("/")
            return holders(node, snapshot)[int(port), protocol] == found
        case Code.DISK:
            claimed = 0 if found == "0" else parse_bytes(found)
            lacks = parse_bytes(needed) == ask.reserved.disk_bytes > free.disk_bytes
            return lacks and claimed == max(free.disk_bytes, 0)
        case Code.DEVICES:
            left = max(dict(free.devices).get("gpu", 0), 0)
            return needed == f"{ask.reserved.devices[0][1]} gpu" and int(found) == left < ask.reserved.devices[0][1]
        case Code.APART | Code.TOGETHER:
            rules = [n for n in ask.neighbours if n.weight is None and n.is_wanted is (rejection.code is Code.TOGETHER)]
            return any(is_beside(node, n, snapshot) is not n.is_wanted for n in rules)
        case Code.SKEW:
            return is_too_uneven(node, ask, snapshot)
    return False


def before_each(asks: Sequence[Ask], plan: Plan, snapshot: Snapshot) -> list[tuple[Ask, int, Snapshot]]:
    """Return for each placement its ask, its number in the plan, and the cluster just before it."""
    by_index = {index: ask for ask in asks for index in ask.indexes}
    made = plan.placements
    return [(by_index[p.index], i, with_plan(snapshot, Plan(made[:i], ()))) for i, p in enumerate(made)]


# --- safety ------------------------------------------------------------------------------------------------------


@given(ask_lists(), snapshots(), seeds)
def test_every_index_is_placed_or_blocked_and_never_both(asks: tuple[Ask, ...], snapshot: Snapshot, seed: int) -> None:
    plan = place(asks, snapshot, seed=seed)
    answered = Counter([p.index for p in plan.placements] + [i for b in plan.blocked for i in b.indexes])
    assert answered == Counter(index for ask in asks for index in ask.indexes)
    assert all(b.blocked.count == len(b.indexes) > 0 for b in plan.blocked)


@given(ask_lists(), snapshots(), seeds)
def test_a_plan_never_reserves_more_than_a_node_has(asks: tuple[Ask, ...], snapshot: Snapshot, seed: int) -> None:
    plan = place(asks, snapshot, seed=seed)
    after = with_plan(snapshot, plan)
    used = {p.node for p in plan.placements}
    assert all(NOTHING.fits(free_on(n, after)) for n in snapshot.nodes if n.name in used)


@given(ask_lists(), snapshots(), seeds)
def test_no_host_port_is_given_twice(asks: tuple[Ask, ...], snapshot: Snapshot, seed: int) -> None:
    after = with_plan(snapshot, place(asks, snapshot, seed=seed))
    names = {n.name for n in snapshot.nodes}
    held = Counter((a.node, p.host, p.protocol) for a in after.allocations if a.node in names for p in a.ports)
    assert all(count == 1 for count in held.values())


@given(ask_lists(), snapshots(), seeds)
def test_no_device_is_given_twice_and_each_gets_as_many_as_it_asked_for(
    asks: tuple[Ask, ...], snapshot: Snapshot, seed: int
) -> None:
    plan = place(asks, snapshot, seed=seed)
    views = {n.name: n for n in snapshot.nodes}
    held = Counter((p.node, kind, i) for p in plan.placements for kind, instances in p.devices for i in instances)
    assert all(count == 1 for count in held.values())
    for p in plan.placements:
        assert {kind: len(instances) for kind, instances in p.devices} == dict(p.reserved.devices)
        assert all(set(instances) <= set(views[p.node].devices[kind]) for kind, instances in p.devices)


@given(ask_lists(), snapshots(), seeds)
def test_each_placement_gets_just_the_ports_it_asked_for(asks: tuple[Ask, ...], snapshot: Snapshot, seed: int) -> None:
    by_index = {index: ask for ask in asks for index in ask.indexes}
    for p in place(asks, snapshot, seed=seed).placements:
        wanted = by_index[p.index].ports
        assert [(w.name, w.container, w.protocol) for w in wanted] == [
            (g.name, g.container, g.protocol) for g in p.ports
        ]
        assert all(
            g.host in AUTO_PORTS if w.host is None else g.host == w.host for w, g in zip(wanted, p.ports, strict=True)
        )


@given(ask_lists(), snapshots(), seeds)
def test_each_placement_fits_its_node_at_its_turn(asks: tuple[Ask, ...], snapshot: Snapshot, seed: int) -> None:
    plan = place(asks, snapshot, seed=seed)
    views = {n.name: n for n in snapshot.nodes}
    for ask, number, before in before_each(asks, plan, snapshot):
        assert can_take(views[plan.placements[number].node], ask, before)


# --- completeness and reasons ------------------------------------------------------------------------------------


@given(asks(), snapshots(), seeds)
def test_only_what_fits_nowhere_is_blocked_and_each_node_says_truly_why(
    ask: Ask, snapshot: Snapshot, seed: int
) -> None:
    plan = place([ask], snapshot, seed=seed)
    after = with_plan(snapshot, plan)
    for blocked in plan.blocked:
        assert not any(can_take(n, ask, after) for n in snapshot.nodes)
        assert all(is_true(r, ask, after) for r in blocked.blocked.rejections)
        assert len(blocked.blocked.sentence()) > 10
        in_question = {n.name for n in snapshot.nodes if ask.only_node in (None, n.name)}
        assert {r.node for r in blocked.blocked.rejections} == in_question
        assert in_question or blocked.blocked.note


@given(asks(), snapshots(), seeds)
def test_the_nodes_ruled_out_in_a_choice_are_so_by_then(ask: Ask, snapshot: Snapshot, seed: int) -> None:
    plan = place([ask], snapshot, seed=seed)
    for _, number, before in before_each([ask], plan, snapshot):
        why = plan.placements[number].why
        assert all(is_true(r, ask, before) for r in why.rejections)
        fitting = {n.name for n in snapshot.nodes if can_take(n, ask, before)}
        runners = [r.node for r in why.runners_up]
        assert set(runners) <= fitting - {plan.placements[number].node}
        assert len(runners) == min(len(fitting) - 1, 3)
        in_question = [n for n in snapshot.nodes if ask.only_node in (None, n.name)]
        out_of = [n for n in in_question if not can_take(n, replace(ask, spread=()), before)]
        assert len(why.rejections) + why.more == len(out_of)  # what is only too uneven for now isn't counted


@given(ask_lists(), snapshots(), seeds)
def test_a_score_is_the_sum_of_its_parts_and_the_highest(asks: tuple[Ask, ...], snapshot: Snapshot, seed: int) -> None:
    for p in place(asks, snapshot, seed=seed).placements:
        assert p.why.score == pytest.approx(sum(value for _, value in p.why.parts))
        scores = [p.why.score, *(r.score for r in p.why.runners_up)]
        assert all(a >= b - 1e-5 for a, b in pairwise(scores))
        assert p.why.sentence().startswith("score ")


# --- determinism -------------------------------------------------------------------------------------------------


@given(ask_lists(), snapshots(), seeds)
def test_the_plan_depends_on_snapshot_and_seed_but_not_on_the_order_of_nodes(
    asks: tuple[Ask, ...], snapshot: Snapshot, seed: int
) -> None:
    shuffled = replace(
        snapshot, nodes=tuple(reversed(snapshot.nodes)), allocations=tuple(reversed(snapshot.allocations))
    )
    plan = place(asks, snapshot, seed=seed)
    assert place(asks, snapshot, seed=seed) == plan
    assert place(asks, shuffled, seed=seed) == plan


@given(ask_lists(), snapshots(), seeds)
def test_what_is_planned_goes_to_the_same_nodes_at_a_later_revision_and_once_it_has_a_uid(
    asks: tuple[Ask, ...], snapshot: Snapshot, seed: int
) -> None:
    def nodes_of(plan: Plan) -> list[tuple[str, int, str]]:
        return [(p.workload.name, p.index, p.node) for p in plan.placements]

    known = {a.workload for a in snapshot.allocations} | {n.workload for a in asks for n in a.neighbours}
    applied = [
        a if a.workload in known else replace(a, workload=a.workload.model_copy(update={"uid": "drawn"})) for a in asks
    ]
    later = place(applied, replace(snapshot, revision=snapshot.revision + 1), seed=seed + 1)
    assert nodes_of(later) == nodes_of(place(asks, snapshot, seed=seed))


@given(ask_lists(), snapshots(), seeds)
def test_nothing_asked_after_a_plan_plans_nothing(asks: tuple[Ask, ...], snapshot: Snapshot, seed: int) -> None:
    after = with_plan(snapshot, place(asks, snapshot, seed=seed))
    assert place([], after, seed=seed) == Plan((), ())


@given(ask_lists(), snapshots(), seeds)
def test_what_was_blocked_last_stays_blocked_when_asked_again(
    asks: tuple[Ask, ...], snapshot: Snapshot, seed: int
) -> None:
    plan = place(asks, snapshot, seed=seed)
    after = with_plan(snapshot, plan)
    again = [replace(a, indexes=b.indexes) for b in plan.blocked for a in asks if set(b.indexes) <= set(a.indexes)]
    assert place(again, after, seed=seed).placements == ()


@given(asks(), snapshots(), seeds)
def test_a_plan_made_anew_after_any_part_of_it_goes_on_the_same_way(ask: Ask, snapshot: Snapshot, seed: int) -> None:
    """The order that is kept from replica to replica is the order that a fresh look finds."""
    plan = place([ask], snapshot, seed=seed)
    for made in range(len(plan.placements)):
        rest = replace(ask, indexes=ask.indexes[made:])
        anew = place([rest], with_plan(snapshot, Plan(plan.placements[:made], ())), seed=seed)
        assert [p.node for p in anew.placements] == [p.node for p in plan.placements[made:]]


# --- preferences -------------------------------------------------------------------------------------------------


@given(asks(), snapshots(), seeds)
def test_an_avoided_node_is_used_only_when_no_other_fits(ask: Ask, snapshot: Snapshot, seed: int) -> None:
    plan = place([ask], snapshot, seed=seed)
    for _, number, before in before_each([ask], plan, snapshot):
        others = [n for n in snapshot.nodes if n.name not in ask.avoid and can_take(n, ask, before)]
        assert plan.placements[number].node not in ask.avoid or not others


@given(asks(), snapshots(), seeds)
def test_a_spread_takes_the_value_with_the_fewest_wanted_siblings_that_has_room(
    ask: Ask, snapshot: Snapshot, seed: int
) -> None:
    over = ask.spread[0].over if ask.spread else ATTRIBUTES[0]
    ask = replace(ask, avoid=frozenset(), spread=(Spread(over),))
    views = {n.name: n for n in snapshot.nodes}

    plan = place([ask], snapshot, seed=seed)
    for _, number, before in before_each([ask], plan, snapshot):
        chosen = value_of(views[plan.placements[number].node], over)
        open_values = {value_of(n, over) for n in snapshot.nodes if can_take(n, ask, before)}
        assert crowd(chosen, over, ask, before) == min(crowd(v, over, ask, before) for v in open_values)


@st.composite
def roomy_clusters(draw: st.DrawFn) -> Snapshot:
    zones = draw(st.lists(st.sampled_from(ZONES), min_size=1, max_size=6))
    ready = [replace(draw(nodes(name=f"r{i}", is_ready=True)), labels={"zone": z}) for i, z in enumerate(zones)]
    return Snapshot(1, tuple(replace(n, allocatable=Vector(10**6, 2**50, 10**6)) for n in ready), ())


@given(roomy_clusters(), vectors(5), st.integers(1, 12), seeds)
def test_a_spread_is_even_where_there_is_room(snapshot: Snapshot, reserved: Vector, replicas: int, seed: int) -> None:
    ask = Ask(
        WORKLOADS[0], 1, tuple(range(replicas)), reserved, spread=(Spread("node.labels.zone"), Spread("node.name"))
    )
    plan = place([ask], snapshot, seed=seed)
    zone_of = {n.name: n.labels["zone"] for n in snapshot.nodes}
    by_zone = Counter(zone_of[p.node] for p in plan.placements)
    counts = [by_zone[zone] for zone in set(zone_of.values())]
    assert max(counts) - min(counts) <= 1
    by_node = Counter(p.node for p in plan.placements)
    for zone in set(zone_of.values()):
        within = [by_node[name] for name, z in zone_of.items() if z == zone]
        assert max(within) - min(within) <= 1


@given(snapshots(), vectors(4), st.integers(2, 6), seeds)
def test_no_service_stands_on_one_node_alone_while_another_fits(
    snapshot: Snapshot, reserved: Vector, replicas: int, seed: int
) -> None:
    ask = Ask(WORKLOADS[0], 1, tuple(range(100, 100 + replicas)), reserved)
    unrelated: list[PlacedAllocation] = [a for a in snapshot.allocations if a.workload != ask.workload]
    snapshot = replace(snapshot, allocations=tuple(unrelated))
    plan = place([ask], snapshot, seed=seed)
    hosts = {p.node for p in plan.placements}
    before_last = with_plan(snapshot, Plan(plan.placements[:-1], ()))
    others = [n for n in snapshot.nodes if n.name not in hosts and can_take(n, ask, before_last)]
    assert plan.blocked or len(hosts) > 1 or not others
