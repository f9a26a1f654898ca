"""Who is evicted for whom, checked against trying all sets of victims on small clusters."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import combinations

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from manifests.allocations import HostPort
from manifests.workloads import Kind, WorkloadRef
from scheduler.model import NOTHING, Ask, NodeView, PlacedAllocation, Plan, Snapshot
from scheduler.place import place, with_plan
from tests.property.test_place import can_take, is_beside, is_open, is_too_uneven, running_on
from tests.strategies import WORKLOADS, asks, nodes, one_in, vectors, versions, with_gpus

seeds = st.integers(0, 5)
PRIORITIES = (0, 20, 50, 80)
AGENTS = WorkloadRef(namespace="default", kind=Kind.DAEMON, name="agents", uid="uid-agents")


@st.composite
def crowded(draw: st.DrawFn) -> Snapshot:
    """Return a few nodes that have little room left, and on them allocations of all priorities."""
    views, held = [], []
    priority_of = {ref: draw(st.sampled_from(PRIORITIES)) for ref in (*WORKLOADS, AGENTS)}
    for name in ("n0", "n1", "n2")[: draw(st.integers(1, 3))]:
        here = [draw(allocations(f"{name}-{i}", name, priority_of)) for i in range(draw(st.integers(0, 5)))]
        used = sum((a.reserved for a in here), NOTHING)
        gpus = tuple(f"gpu{i}" for i in range(dict(used.devices).get("gpu", 0) + draw(st.integers(0, 1))))
        view = draw(nodes(name=name, is_ready=not draw(one_in(6))))
        room = with_gpus(replace(used, devices=()) + draw(vectors(2, least=0)), len(gpus))
        views.append(replace(view, allocatable=room, devices={"gpu": gpus} if gpus else {}))
        held += here
    named = draw(st.sets(st.sampled_from(WORKLOADS)))
    return Snapshot(7, tuple(views), tuple(held), {ref: draw(st.integers(0, 2)) for ref in sorted(named, key=str)})


@st.composite
def allocations(draw: st.DrawFn, id_: str, node: str, priority_of: Mapping[WorkloadRef, int]) -> PlacedAllocation:
    ref = draw(st.sampled_from((*WORKLOADS, *WORKLOADS, AGENTS)))
    is_wanted = not draw(one_in(5))
    ports = (HostPort(name="http", container=80, host=8080),) if id_.endswith("-0") and draw(one_in(3)) else ()
    return PlacedAllocation(
        id=id_,
        workload=ref,
        version=draw(versions),
        index=int(id_[-1]),
        node=node,
        reserved=with_gpus(draw(vectors(4)), draw(one_in(4))),
        ports=ports,
        is_wanted=is_wanted,
        priority=priority_of[ref],
        created_s=float(draw(st.integers(1, 4))),
        is_leaving=not is_wanted and not draw(one_in(4)),
    )


@st.composite
def asks_of_one(draw: st.DrawFn) -> Ask:
    return replace(draw(asks()), indexes=(100,), priority=draw(st.sampled_from((50, 80, 100))))


many_asks = st.lists(
    st.builds(replace, asks(), priority=st.sampled_from((0, 20, 50, 80, 100)), preempts=st.booleans()), max_size=3
).map(lambda drawn: tuple(replace(a, indexes=tuple(i + 100 * n for i in a.indexes)) for n, a in enumerate(drawn)))


# --- the naive reading -------------------------------------------------------------------------------------------


def lacks_only_room(node: NodeView, ask: Ask, snapshot: Snapshot) -> bool:
    return (
        is_open(node, ask)
        and (ask.max_per_node is None or running_on(node, ask, snapshot) < ask.max_per_node)
        and all(n.weight is not None or is_beside(node, n, snapshot) is n.is_wanted for n in ask.neighbours)
        and not is_too_uneven(node, ask, snapshot)
    )


def without(snapshot: Snapshot, gone: Iterable[PlacedAllocation]) -> Snapshot:
    """Return the cluster once these have ended, and all that is leaving."""
    ids = {a.id for a in gone}
    return replace(snapshot, allocations=tuple(a for a in snapshot.allocations if a.id not in ids and not a.is_leaving))


def cost(victims: Iterable[PlacedAllocation], snapshot: Snapshot) -> tuple[int, int, int, float]:
    chosen = list(victims)
    counts = Counter(a.workload for a in chosen)
    excess = sum(max(0, n - snapshot.may_miss[ref]) for ref, n in counts.items() if ref in snapshot.may_miss)
    return excess, len(chosen), max(a.priority for a in chosen), -sum(a.created_s for a in chosen)


def sets_of_victims(ask: Ask, snapshot: Snapshot) -> Iterator[tuple[PlacedAllocation, ...]]:
    """Yield each set on one node whose end makes room there."""
    companions = {n.workload for n in ask.neighbours if n.weight is None and n.is_wanted}
    for node in snapshot.nodes:
        if not lacks_only_room(node, ask, snapshot):
            continue
        lower = [
            a
            for a in snapshot.allocations
            if a.node == node.name and a.is_wanted and a.priority < ask.priority
            if a.workload.kind is not Kind.DAEMON and a.workload not in companions
        ]
        for count in range(len(lower) + 1):
            for chosen in combinations(lower, count):
                room = replace(ask, neighbours=(), spread=(), max_per_node=None)
                if can_take(node, room, without(snapshot, chosen)):
                    yield chosen


def victims_of(plan: Plan, snapshot: Snapshot) -> list[PlacedAllocation]:
    by_id = {a.id: a for a in snapshot.allocations}
    return [by_id[e.allocation] for e in plan.evictions]


# --- whom it hits ------------------------------------------------------------------------------------------------


@given(asks_of_one(), crowded(), seeds)
@settings(max_examples=400)
def test_the_least_is_evicted_and_only_where_nothing_else_helps(ask: Ask, snapshot: Snapshot, seed: int) -> None:
    plan = place([ask], snapshot, seed=seed)
    victims = victims_of(plan, snapshot)
    has_lower = any(a.priority < ask.priority and (a.is_leaving or a.is_wanted) for a in snapshot.allocations)
    possible = list(sets_of_victims(ask, snapshot)) if has_lower else []
    if plan.placements or not possible or () in possible:  # it fits, nothing helps, or room comes by itself
        assert victims == []
    else:
        assert len({a.node for a in victims}) == 1
        assert cost(victims, snapshot) == min(cost(chosen, snapshot) for chosen in possible)
    waits = [wait for blocked in plan.blocked for wait in blocked.blocked.waits]
    assert bool(waits) is (not plan.placements and bool(possible))
    assert all(a.node == waits[0].node and a.id in waits[0].leaving for a in victims)


@given(asks_of_one(), crowded(), seeds)
def test_no_part_of_the_victims_would_do(ask: Ask, snapshot: Snapshot, seed: int) -> None:
    victims = victims_of(place([ask], snapshot, seed=seed), snapshot)
    parts = [part for count in range(len(victims)) for part in combinations(victims, count)]
    room = replace(ask, neighbours=(), spread=(), max_per_node=None)
    for node in [n for n in snapshot.nodes if victims and n.name == victims[0].node]:
        assert not any(can_take(node, room, without(snapshot, part)) for part in parts)
        assert can_take(node, room, without(snapshot, victims))


@given(many_asks, crowded(), seeds)
@settings(max_examples=300)
def test_only_lower_priorities_are_evicted_once_each_and_for_asks_that_may(
    wanted: tuple[Ask, ...], snapshot: Snapshot, seed: int
) -> None:
    plan = place(wanted, snapshot, seed=seed)
    by_id = {a.id: a for a in snapshot.allocations}
    assert len({e.allocation for e in plan.evictions}) == len(plan.evictions)
    for eviction in plan.evictions:
        victim = by_id[eviction.allocation]
        assert (victim.node, victim.workload) == (eviction.node, eviction.workload)
        assert victim.is_wanted
        assert victim.priority < eviction.priority
        assert victim.workload.kind is not Kind.DAEMON
        assert any(a.preempts and (a.workload, a.priority) == (eviction.by, eviction.priority) for a in wanted)
    answered = Counter([p.index for p in plan.placements] + [i for b in plan.blocked for i in b.indexes])
    assert answered == Counter(index for ask in wanted for index in ask.indexes)


@given(asks_of_one(), crowded(), seeds)
@settings(max_examples=300)
def test_who_may_not_evict_waits_for_the_room_that_comes_by_itself_and_for_no_other(
    ask: Ask, snapshot: Snapshot, seed: int
) -> None:
    plan = place([replace(ask, preempts=False)], snapshot, seed=seed)
    has_lower = any(a.priority < ask.priority and (a.is_leaving or a.is_wanted) for a in snapshot.allocations)
    comes_by_itself = has_lower and () in sets_of_victims(ask, snapshot)
    assert plan.evictions == ()
    assert bool([w for b in plan.blocked for w in b.blocked.waits]) is (not plan.placements and comes_by_itself)


@given(many_asks, crowded(), seeds)
def test_where_nothing_is_evicted_it_makes_no_difference_who_may(
    wanted: tuple[Ask, ...], snapshot: Snapshot, seed: int
) -> None:
    plan = place(wanted, snapshot, seed=seed)
    assume(not plan.evictions)
    assert place([replace(ask, preempts=False) for ask in wanted], snapshot, seed=seed) == plan


@given(many_asks, crowded(), seeds)
def test_the_victims_are_the_same_whatever_the_order_of_nodes_and_allocations(
    wanted: tuple[Ask, ...], snapshot: Snapshot, seed: int
) -> None:
    turned = replace(snapshot, nodes=tuple(reversed(snapshot.nodes)), allocations=tuple(reversed(snapshot.allocations)))
    plan = place(wanted, snapshot, seed=seed)
    assert place(wanted, snapshot, seed=seed) == plan
    assert place(wanted, turned, seed=seed) == plan


# --- what comes of it --------------------------------------------------------------------------------------------


@given(asks(), crowded(), seeds)
@settings(max_examples=300)
def test_who_waits_for_room_has_nothing_more_evicted_and_then_finds_it(ask: Ask, snapshot: Snapshot, seed: int) -> None:
    ask = replace(ask, priority=80)
    plan = place([ask], snapshot, seed=seed)
    left = tuple(i for b in plan.blocked for i in b.indexes)
    waiting = sum(w.count for b in plan.blocked for w in b.blocked.waits)
    after = with_plan(snapshot, plan)
    again = place([replace(ask, indexes=left)], after, seed=seed + 1)
    assert again.evictions == ()
    assert sum(w.count for b in again.blocked for w in b.blocked.waits) == waiting
    at_last = place([replace(ask, indexes=left)], without(after, ()), seed=seed + 2)
    assert len(at_last.placements) >= min(waiting, 1)


@given(crowded(), many_asks, seeds)
@settings(max_examples=200)
def test_evictions_come_to_an_end(snapshot: Snapshot, wanted: tuple[Ask, ...], seed: int) -> None:
    """What is evicted asks again, at its own priority; all that leaves ends between two plans."""
    todo = {(a.workload, index): replace(a, indexes=(index,)) for a in wanted for index in a.indexes}
    for number in range(40):
        plan = place(tuple(todo.values()), snapshot, seed=seed + number)
        if not plan.placements and not plan.evictions:
            return
        victims = victims_of(plan, snapshot)
        after = without(with_plan(snapshot, plan), ())
        placed = {(p.workload, p.index): todo.pop((p.workload, p.index)) for p in plan.placements}
        here = [
            replace(a, priority=placed[a.workload, a.index].priority)
            if a.index >= 100 and (a.workload, a.index) in placed
            else a
            for a in after.allocations
        ]
        snapshot = replace(after, revision=after.revision + 1, allocations=tuple(here))
        for v in victims:
            todo[v.workload, 10_000 + len(todo) + 100 * number] = Ask(
                v.workload, v.version, (10_000 + len(todo) + 100 * number,), v.reserved, priority=v.priority
            )
    raise AssertionError("there is no end to it")
