"""Examples of plans, to be read as the scheduler's manual."""

from collections import Counter
from dataclasses import replace

import pytest

from manifests.allocations import HostPort
from manifests.constraints import parse_constraint
from manifests.workloads import Kind, WorkloadRef
from scheduler.eligible import matches
from scheduler.ledger import Ledger
from scheduler.model import (
    AUTO_PORTS,
    Ask,
    Eligibility,
    NodeView,
    PlacedAllocation,
    Plan,
    PortAsk,
    Snapshot,
    Spread,
    Vector,
)
from scheduler.place import place, with_plan

MEBIBYTE = 2**20
SMALL = Vector(250, 128 * MEBIBYTE, 50)
HTTP = PortAsk("http", 80, 8080, "tcp")
AUTO = PortAsk("http", 80, None, "tcp")


def ref(name: str = "web") -> WorkloadRef:
    return WorkloadRef(namespace="default", kind=Kind.SERVICE, name=name, uid=f"uid-{name}")


def node(
    name: str,
    *,
    eligibility: Eligibility = Eligibility.READY,
    memory_mi: int = 4096,
    cpu_m: int = 4000,
    **labels: str,
) -> NodeView:
    return NodeView(name, eligibility, labels, {"arch": "amd64"}, Vector(cpu_m, memory_mi * MEBIBYTE, 1000))


def held(
    on: str,
    *,
    workload: str = "old",
    version: int = 1,
    reserved: Vector = SMALL,
    ports: tuple[HostPort, ...] = (),
    is_wanted: bool = True,
    index: int = 0,
) -> PlacedAllocation:
    return PlacedAllocation(f"{workload}-{index}-{on}", ref(workload), version, index, on, reserved, ports, is_wanted)


def snapshot(*members: NodeView | PlacedAllocation) -> Snapshot:
    return Snapshot(
        revision=7,
        nodes=tuple(m for m in members if isinstance(m, NodeView)),
        allocations=tuple(m for m in members if isinstance(m, PlacedAllocation)),
    )


def ask(
    replicas: int = 1,
    *,
    workload: str = "web",
    version: int = 1,
    reserved: Vector = SMALL,
    ports: tuple[PortAsk, ...] = (),
    constraints: tuple[str, ...] = (),
    spread: tuple[str, ...] = (),
    max_per_node: int | None = None,
    avoid: frozenset[str] = frozenset(),
    only_node: str | None = None,
) -> Ask:
    return Ask(
        ref(workload),
        version,
        tuple(range(10, 10 + replicas)),
        reserved,
        ports,
        tuple(parse_constraint(c) for c in constraints),
        tuple(Spread(over) for over in spread),
        max_per_node,
        avoid,
        only_node,
    )


def hosts(plan: Plan) -> list[str]:
    return [p.node for p in plan.placements]


def blocked_sentence(plan: Plan) -> str:
    (blocked,) = plan.blocked
    return blocked.blocked.sentence()


# --- where things go ---------------------------------------------------------------------------------------------


def test_different_workloads_are_packed_onto_the_fullest_node_that_fits() -> None:
    cluster = snapshot(node("n1"), node("n2"), node("n3"), held("n2"))
    plan = place([ask(workload=name) for name in ("a", "b", "c")], cluster, seed=1)
    assert hosts(plan) == ["n2", "n2", "n2"]


def test_the_three_replicas_of_a_service_stand_on_three_equal_nodes() -> None:
    plan = place([ask(3)], snapshot(node("n1"), node("n2"), node("n3")), seed=1)
    assert sorted(hosts(plan)) == ["n1", "n2", "n3"]


@pytest.mark.parametrize("count", [2, 3, 7])
def test_of_equal_nodes_none_is_preferred_by_all_workloads(count: int) -> None:
    cluster = snapshot(*(node(f"n{i}") for i in range(count)))
    firsts = Counter(hosts(place([ask(workload=f"w{i}")], cluster, seed=1))[0] for i in range(600))
    assert all(0.5 < firsts[f"n{i}"] * count / 600 < 1.5 for i in range(count)), firsts


@pytest.mark.parametrize("replicas", [2, 3, 5, 10])
def test_no_service_stands_on_one_node_alone_even_if_that_one_is_the_best_fit(replicas: int) -> None:
    cluster = snapshot(node("busy"), node("empty"), held("busy", reserved=Vector(2000, 2048 * MEBIBYTE, 200)))
    small = Vector(20, 20 * MEBIBYTE, 20)
    assert set(hosts(place([ask(replicas, reserved=small)], cluster, seed=1))) == {"busy", "empty"}


def test_the_many_replicas_of_a_large_service_are_packed() -> None:
    cluster = snapshot(*(node(f"n{i}", cpu_m=1250) for i in range(50)))
    plan = place([ask(100)], cluster, seed=1)
    assert len(set(hosts(plan))) <= 25


def test_a_lopsided_fit_loses_to_an_even_one() -> None:
    cluster = snapshot(
        node("even"),
        node("lopsided"),
        held("even", reserved=Vector(1000, 1024 * MEBIBYTE, 250)),
        held("lopsided", reserved=Vector(3000, 1 * MEBIBYTE, 1)),
    )
    assert hosts(place([ask()], cluster, seed=1)) == ["even"]


def test_a_spread_comes_before_best_fit() -> None:
    cluster = snapshot(node("n1", zone="a"), node("n2", zone="a"), node("n3", zone="b"), held("n1"))
    plan = place([ask(2, spread=("node.labels.zone",))], cluster, seed=1)
    assert hosts(plan) == ["n1", "n3"]


def test_a_spread_counts_what_already_runs_but_not_what_is_being_stopped() -> None:
    cluster = snapshot(
        node("n1", zone="a"),
        node("n2", zone="b"),
        held("n1", workload="web"),
        held("n2", workload="web", is_wanted=False, index=1),
        held("n2", workload="web", is_wanted=False, index=2),
    )
    assert hosts(place([ask(spread=("node.labels.zone",))], cluster, seed=1)) == ["n2"]


def test_the_first_spread_comes_before_the_second() -> None:
    cluster = snapshot(node("b1", zone="b"), *(node(f"a{i}", zone="a") for i in range(5)))
    plan = place([ask(6, spread=("node.labels.zone", "node.name"))], cluster, seed=1)
    by_node = Counter(hosts(plan))
    assert by_node.pop("b1") == 3
    assert list(by_node.values()) == [1, 1, 1]


def test_nodes_without_the_spread_label_are_one_more_place_to_spread_over() -> None:
    cluster = snapshot(node("n1", zone="a"), node("n2"), node("n3"))
    plan = place([ask(4, spread=("node.labels.zone",))], cluster, seed=1)
    assert Counter(hosts(plan))["n1"] == 2


def test_a_rollout_ends_balanced_as_new_ones_shun_zones_with_new_ones_first() -> None:
    cluster = snapshot(
        node("n1", zone="a"),
        node("n2", zone="b"),
        held("n1", workload="web", version=2, index=0),
        held("n2", workload="web", version=1, index=1),
    )
    assert hosts(place([ask(version=2, spread=("node.labels.zone",))], cluster, seed=1)) == ["n2"]


def test_a_node_where_it_failed_is_used_only_when_no_other_fits() -> None:
    cluster = snapshot(node("n1"), node("n2", memory_mi=200), held("n1"))
    plan = place([ask(2, avoid=frozenset({"n1"}))], cluster, seed=1)
    assert hosts(plan) == ["n2", "n1"]
    assert dict(plan.placements[1].why.parts)["avoid"] < -10


def test_an_ask_for_one_node_goes_there_and_nowhere_else() -> None:
    cluster = snapshot(node("n1"), node("n2"))
    assert hosts(place([ask(only_node="n2")], cluster, seed=1)) == ["n2"]
    assert blocked_sentence(place([ask(only_node="n9")], cluster, seed=1)) == ("1 can't be placed: there is no node n9")


# --- what holds resources and ports ------------------------------------------------------------------------------


def test_what_is_being_stopped_still_holds_its_resources_and_ports() -> None:
    port = HostPort(name="http", container=80, host=8080)
    cluster = snapshot(node("n1"), held("n1", ports=(port,), is_wanted=False))
    assert blocked_sentence(place([ask(ports=(HTTP,))], cluster, seed=1)) == (
        "1 can't be placed: n1 has host port 8080/tcp taken by old-0-n1"
    )


def test_the_same_number_of_the_other_protocol_is_another_port() -> None:
    port = HostPort(name="dns", container=53, host=8080, protocol="udp")
    assert hosts(place([ask(ports=(HTTP,))], snapshot(node("n1"), held("n1", ports=(port,))), seed=1)) == ["n1"]


def test_an_earlier_ask_takes_from_what_a_later_one_finds() -> None:
    cluster = snapshot(node("n1", memory_mi=200))
    plan = place([ask(workload="first"), ask(workload="second")], cluster, seed=1)
    assert hosts(plan) == ["n1"]
    assert blocked_sentence(plan) == "1 can't be placed: n1 lacks memory (128Mi needed, 72Mi free)"


def test_auto_ports_differ_and_a_later_plan_starts_elsewhere() -> None:
    cluster = snapshot(node("n1"))
    first, second = (place([ask(3, ports=(AUTO,))], cluster, seed=seed) for seed in (1, 2))
    given = [[p.ports[0].host for p in plan.placements] for plan in (first, second)]
    assert len({*given[0], *given[1]}) == 6
    assert all(host in AUTO_PORTS for host in given[0])


def test_the_last_free_auto_port_is_found_and_then_there_is_none() -> None:
    full = tuple(HostPort(name="p", container=1, host=host) for host in AUTO_PORTS if host != 25_000)
    cluster = snapshot(node("n1"), held("n1", ports=full))
    plan = place([ask(2, ports=(AUTO,))], cluster, seed=1)
    assert [p.ports[0].host for p in plan.placements] == [25_000]
    assert blocked_sentence(plan) == ("1 can't be placed: n1 has host port 20000-31999/tcp taken by other allocations")


def test_an_auto_port_keeps_clear_of_the_allocations_own_static_port() -> None:
    full = tuple(HostPort(name="p", container=1, host=host) for host in AUTO_PORTS if host != 25_000)
    cluster = snapshot(node("n1"), held("n1", ports=full))
    both = (AUTO, PortAsk("admin", 81, 25_000, "tcp"))
    assert place([ask(ports=both)], cluster, seed=1).placements == ()


def test_a_node_that_shrank_below_what_it_holds_takes_nothing_more() -> None:
    cluster = snapshot(node("n1", memory_mi=100), held("n1"))
    assert blocked_sentence(place([ask()], cluster, seed=1)) == (
        "1 can't be placed: n1 lacks memory (128Mi needed, 0 free)"
    )


# --- reasons -----------------------------------------------------------------------------------------------------


def test_a_blocked_ask_says_for_each_node_what_rules_it_out() -> None:
    cluster = snapshot(
        node("n1", memory_mi=400, disk="ssd"),
        node("n2", memory_mi=500, disk="ssd"),
        node("n3", eligibility=Eligibility.CORDONED),
        node("n4", eligibility=Eligibility.LOST),
        node("n5", disk="hdd"),
        node("n6"),
        held("n1", reserved=Vector(1, 200 * MEBIBYTE, 1)),
    )
    wanted = ask(2, reserved=Vector(100, 512 * MEBIBYTE, 10), constraints=("node.labels.disk == ssd",))
    plan = place([wanted], cluster, seed=1)
    assert blocked_sentence(plan) == (
        "2 can't be placed: n1 and n2 lack memory (512Mi needed, at most 500Mi free); "
        "n5 and n6 fail node.labels.disk == ssd; n3 is cordoned; n4 is lost"
    )
    details = {r.node: r.sentence() for r in plan.blocked[0].blocked.rejections}
    assert details["n1"] == "n1: needs 512Mi memory, has 200Mi free"
    assert details["n5"] == "n5: node.labels.disk == ssd doesn't hold, it is hdd"
    assert details["n6"] == "n6: node.labels.disk == ssd doesn't hold, it is not set"


def test_what_fits_is_placed_and_the_rest_says_why_not() -> None:
    plan = place([ask(3, max_per_node=1)], snapshot(node("n1"), node("n2")), seed=1)
    assert sorted(hosts(plan)) == ["n1", "n2"]
    assert blocked_sentence(plan) == "1 can't be placed: n1 and n2 have reached maxPerNode (1)"


def test_odd_amounts_of_free_memory_are_rounded_down_for_people() -> None:
    cluster = snapshot(NodeView("n1", Eligibility.READY, {}, {}, Vector(4000, 100 * MEBIBYTE + 12_345, 1000)))
    assert blocked_sentence(place([ask()], cluster, seed=1)) == (
        "1 can't be placed: n1 lacks memory (128Mi needed, 100Mi free)"
    )


def test_in_a_large_cluster_the_sentence_counts_all_nodes_while_few_are_stored() -> None:
    lacking = [node(f"small{i:03}", memory_mi=64 + i % 7) for i in range(600)]
    cordoned = [node(f"c{i:03}", eligibility=Eligibility.CORDONED) for i in range(200)]
    plan = place([ask()], snapshot(*lacking, *cordoned, node("z", eligibility=Eligibility.LOST)), seed=1)
    assert len(plan.blocked[0].blocked.rejections) == 50
    assert blocked_sentence(plan) == (
        "1 can't be placed: 600 nodes lack memory (128Mi needed, at most 70Mi free); 200 nodes are cordoned; z is lost"
    )


def test_a_placement_says_its_score_the_next_best_and_who_was_ruled_out() -> None:
    cluster = snapshot(node("n1"), node("n2"), node("n3", eligibility=Eligibility.DRAINING), held("n1"))
    (placement,) = place([ask()], cluster, seed=1).placements
    assert placement.why.sentence() == ("score 0.81 (bestFit 0.81); next n2 0.59; ruled out n3 (is being drained)")


def test_a_node_that_an_earlier_replica_filled_is_among_the_ruled_out() -> None:
    plan = place([ask(2, max_per_node=1)], snapshot(node("n1"), node("n2")), seed=1)
    first, second = plan.placements
    assert first.why.rejections == ()
    assert [r.sentence() for r in second.why.rejections] == [f"{first.node}: runs 1 already, maxPerNode is 1"]


def test_an_empty_cluster_says_so() -> None:
    assert blocked_sentence(place([ask(2)], snapshot(), seed=1)) == "2 can't be placed: there are no nodes"


@pytest.mark.parametrize(
    "poisoned",
    [
        ask(reserved=Vector(-1, 1, 1)),
        ask(ports=(PortAsk("x", 80, 8080, "sctp"),)),
        ask(ports=(PortAsk("x", 80, 0, "tcp"),)),
        ask(ports=(HTTP, HTTP)),
        ask(spread=("zone",)),
    ],
)
def test_an_ask_that_makes_no_sense_is_blocked_and_stops_no_other(poisoned: Ask) -> None:
    plan = place([poisoned, ask(workload="good")], snapshot(node("n1")), seed=1)
    assert [p.workload.name for p in plan.placements] == ["good"]
    assert len(plan.blocked) == 1


def test_a_slot_that_is_asked_for_twice_is_filled_once() -> None:
    twice = Ask(ref(), 1, (3, 3), SMALL)
    assert len(place([twice], snapshot(node("n1")), seed=1).placements) == 1


# --- daemons and what-if -----------------------------------------------------------------------------------------


def test_a_daemon_belongs_on_ready_nodes_that_meet_its_constraints() -> None:
    cluster = snapshot(
        node("n2", disk="ssd"), node("n1", disk="ssd"), node("n3"), node("n4", eligibility=Eligibility.CORDONED)
    )
    constraints = (parse_constraint("node.labels.disk == ssd"),)
    daemons = [ask(constraints=("node.labels.disk == ssd",), only_node=n.name) for n in cluster.nodes]
    placed = [host for daemon in daemons for host in hosts(place([daemon], cluster, seed=1))]
    assert sorted(placed) == ["n1", "n2"]
    assert matches(cluster.nodes[0], constraints)
    assert not matches(cluster.nodes[2], constraints)


def test_the_snapshot_with_a_plan_holds_what_the_plan_placed() -> None:
    cluster = snapshot(node("n1"), held("n1"))
    after = with_plan(cluster, place([ask(2, ports=(AUTO,))], cluster, seed=1))
    assert [a.workload.name for a in after.allocations] == ["old", "web", "web"]
    assert after.allocations[1].ports[0].host in AUTO_PORTS
    assert len({a.id for a in after.allocations}) == 3


# --- a ledger that is kept ---------------------------------------------------------------------------------------


def test_a_device_that_only_an_allocation_knows_stops_no_plan() -> None:
    ledger = Ledger.of(snapshot(node("n1")))
    assert len(place([ask(workload="a"), ask(workload="b")], ledger, seed=1).placements) == 2
    ledger.put(held("n1", reserved=replace(SMALL, devices=(("gpu", 1),))))
    assert len(place([ask(workload="a"), ask(workload="b")], ledger, seed=1).placements) == 2


def test_shares_are_of_the_values_that_nodes_have_now() -> None:
    shares = Spread("node.labels.zone", shares=(("a", 0.5),))
    asked = replace(ask(4), spread=(shares,))
    now = snapshot(node("n1", zone="a"), node("n2", zone="b"))
    kept = Ledger.of(snapshot(*now.nodes, node("n3", zone="c")))
    place([asked], kept, seed=1)
    kept.drop_node("n3")
    assert place([asked], kept, seed=1).placements == place([asked], now, seed=1).placements
    assert Counter(hosts(place([asked], kept, seed=1))) == {"n1": 2, "n2": 2}


def test_a_preferred_node_is_taken_if_it_fits_and_else_the_best() -> None:
    cluster = snapshot(node("n1", memory_mi=256), node("n2"), node("n3"), held("n2"))
    for name in ("n2", "n3"):
        plan = place([replace(ask(), prefer=frozenset({name, "gone"}))], cluster, seed=1)
        assert [p.node for p in plan.placements] == [name]
    plan = place([replace(ask(4), prefer=frozenset({"n1"}))], cluster, seed=1)
    assert Counter(p.node for p in plan.placements)["n1"] == 2
    assert len(plan.placements) == 4
