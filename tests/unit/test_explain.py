"""`explain` by example: what is said of small clusters, and how little is said of large ones."""

from dataclasses import replace
from typing import Any

from manifests.allocations import HostPort
from manifests.constraints import parse_constraint
from manifests.engines import engine_constraints
from manifests.explanations import Explanation
from manifests.reasons import MOST_LISTED
from manifests.taints import parse_taint
from manifests.workloads import Kind, WorkloadRef
from scheduler.explain import explain
from scheduler.ledger import Ledger
from scheduler.model import (
    Ask,
    Eligibility,
    Neighbour,
    NodeView,
    PlacedAllocation,
    PortAsk,
    Snapshot,
    Spread,
    Vector,
)

MEBIBYTE = 2**20


def ref(name: str) -> WorkloadRef:
    return WorkloadRef(namespace="default", kind=Kind.SERVICE, name=name, uid=f"uid-{name}")


def vector(cpu_m: int = 1_000, memory_mi: int = 1_024, **more: Any) -> Vector:
    return Vector(cpu_m, memory_mi * MEBIBYTE, 1_000, 2**33, **more)


def node(name: str, allocatable: Vector | None = None, **fields: Any) -> NodeView:
    fields = {"eligibility": Eligibility.READY, "labels": {}, "attributes": {}, **fields}
    return NodeView(name=name, allocatable=allocatable or vector(), **fields)


def held(id_: str, on: str, reserved: Vector | None = None, **fields: Any) -> PlacedAllocation:
    fields = {"workload": ref(id_.rpartition("-")[0]), "ports": (), "is_wanted": True, **fields}
    return PlacedAllocation(id=id_, version=1, index=0, node=on, reserved=reserved or Vector(1, 1, 1), **fields)


def ask(cpu_m: int = 100, memory_mi: int = 512, **fields: Any) -> Ask:
    return Ask(ref("web"), 1, (0,), Vector(cpu_m, memory_mi * MEBIBYTE, 10), **fields)


def told(wanted: Ask, nodes: list[NodeView], *there: PlacedAllocation, **how: Any) -> Explanation:
    return explain(wanted, Ledger.of(Snapshot(1, tuple(nodes), there)), seed=1, **how)


def remedies(*question: Any, **how: Any) -> list[str]:
    return [remedy.sentence() for remedy in told(*question, **how).remedies]


def test_all_that_rules_a_node_out_is_told() -> None:
    wanted = ask(memory_mi=2_048, constraints=(parse_constraint("node.labels.zone == a"),))
    full = node("n1", labels={"zone": "b"}, taints=(parse_taint("gpu:noSchedule"), parse_taint("edge:noExecute")))
    [group] = told(wanted, [full]).groups
    assert group.nodes[0].sentence() == (
        "n1: has the taint gpu:noSchedule, which isn't tolerated; has the taint edge:noExecute, which isn't tolerated; "
        "node.labels.zone == a doesn't hold, it is b; needs 2Gi memory, has 1Gi free"
    )


def test_a_driver_or_a_runtime_that_a_node_lacks_is_told_in_the_words_of_the_manifest() -> None:
    wanted = ask(constraints=engine_constraints("oci", "runsc"))
    oci = {"driver": "oci", "runtime.runc": "1.1"}
    told_of = told(wanted, [node("n1", attributes=oci), node("n2", attributes={"driver": "docker"})])
    assert sorted(group.nodes[0].sentence() for group in told_of.groups) == [
        "n1: has no runtime runsc",
        "n2: has the driver docker and not oci; has no runtime runsc",
    ]
    assert remedies(wanted, [node("n1", attributes=oci)])[0] == "fits n1 without the constraint runtime: runsc"
    assert told(wanted, [node("n3", attributes={**oci, "runtime.runsc": "1"})]).fits == 1


def test_the_node_that_needs_the_smallest_change_is_named() -> None:
    nodes = [node("n1", vector(memory_mi=200)), node("n2", vector(memory_mi=410)), node("n3", vector(memory_mi=64))]
    assert remedies(ask(), nodes)[0] == "fits n2 if memory <= 410Mi"


def test_each_rule_that_alone_is_in_the_way_has_its_remedy() -> None:
    zone_a = ask(constraints=(parse_constraint("node.labels.zone == a"),))
    assert remedies(zone_a, [node("n1")]) == ["fits n1 without the constraint node.labels.zone == a"]
    assert remedies(ask(), [node("n1", taints=(parse_taint("gpu=a100:noSchedule"),))])[0] == (
        "fits n1 if its taint gpu=a100 is tolerated"
    )
    once = ask(max_per_node=1)
    assert remedies(once, [node("n1")], held("web-1", "n1"))[0] == "fits n1 with maxPerNode 2"
    http = ask(ports=(PortAsk("http", 80, 8080, "tcp"),))
    holder = held("api-0", "n1", ports=(HostPort(name="x", container=1, host=8080),))
    assert remedies(http, [node("n1")], holder)[0] == "fits n1 once host port 8080/tcp is free (held by api-0)"
    away = ask(neighbours=(Neighbour(ref("db"), is_wanted=False),))
    assert remedies(away, [node("n1")], held("db-0", "n1"))[0] == "fits n1 if it needn't be apart from service/db"
    near = ask(neighbours=(Neighbour(ref("db")),))
    assert remedies(near, [node("n1")]) == ["fits n1 if it needn't be together with service/db"]
    gpu = replace(ask(), reserved=vector(100, 10, devices=(("gpu", 2),)))
    assert remedies(gpu, [node("n1", vector(devices=(("gpu", 1),)))])[0] == "fits n1 if gpu <= 1"


def test_an_uneven_spread_names_the_skew_that_would_do() -> None:
    nodes = [node("n1", labels={"zone": "a"}), node("n2", vector(memory_mi=100), labels={"zone": "b"})]
    even = ask(spread=(Spread("node.labels.zone", max_skew=1),))
    assert remedies(even, nodes, held("web-1", "n1"))[:2] == [
        "fits n2 if memory <= 100Mi",
        "fits n1 with maxSkew 2 over node.labels.zone",
    ]


def test_what_the_cluster_could_do_comes_after_what_the_manifest_could() -> None:
    cordoned = node("n1", eligibility=Eligibility.CORDONED)
    small = node("n2", vector(memory_mi=256))
    assert remedies(ask(), [cordoned, small]) == [
        "fits n2 if memory <= 256Mi",
        "fits n1 once it is uncordoned",
        "one more node with at least 100m cpu, 512Mi memory, 10 pids and 0 disk free would do",
    ]


def test_one_of_lower_priority_that_makes_way_is_named() -> None:
    low = held("etl-0", "n1", vector(memory_mi=600), priority=20)
    high = held("db-0", "n2", vector(memory_mi=600), priority=90)
    equal = held("api-0", "n3", vector(memory_mi=600), priority=50)
    said = remedies(ask(memory_mi=900), [node("n1"), node("n2"), node("n3")], low, high, equal)
    assert "fits n1 once etl-0 (service/etl, priority 20) is gone" in said
    assert not any("db-0" in sentence or "api-0" in sentence.split("(")[0] for sentence in said)
    assert not any("gone" in s for s in remedies(ask(memory_mi=900), [node("n2"), node("n3")], high, equal))


def test_who_would_be_evicted_is_told_and_what_is_under_way_and_why_it_may_not_be() -> None:
    low = held("etl-0", "n1", Vector(100, 600 * MEBIBYTE, 10), priority=20)
    going = held("web-0", "n1", Vector(100, 300 * MEBIBYTE, 10), is_wanted=False, is_leaving=True)
    wanted = ask(memory_mi=900)
    [room] = told(wanted, [node("n1")], low).rooms
    assert room.sentence() == "n1: would fit once etl-0 (service/etl, priority 20) is evicted, which is done for it"
    [room] = told(wanted, [node("n1")], low, forbids="the cluster is frozen").rooms
    assert room.sentence().endswith("is evicted, which isn't done: the cluster is frozen")
    [room] = told(wanted, [node("n1")], low, going).rooms
    assert room.sentence() == (
        "n1: would fit once web-0 has ended and etl-0 (service/etl, priority 20) is evicted, which is done for it"
    )
    leaves = replace(low, is_wanted=False, is_leaving=True)
    [room] = told(wanted, [node("n1")], leaves, forbids="the cluster is frozen").rooms
    assert room.sentence() == "n1: would fit once etl-0 has ended, which is under way"
    assert told(ask(memory_mi=100), [node("n1")], low).rooms == ()
    assert told(ask(memory_mi=2_000), [node("n1")], low).rooms == ()


def test_where_no_single_change_will_do_several_are_told_together() -> None:
    tainted = node("n1", vector(memory_mi=256), taints=(parse_taint("gpu:noSchedule"),))
    assert remedies(ask(), [tainted])[0] == "fits n1 if memory <= 256Mi and if its taint gpu is tolerated"


def test_a_new_node_must_be_like_one_that_passes_the_rules_that_matter() -> None:
    zone_a = ask(memory_mi=4_096, constraints=(parse_constraint("node.labels.zone == a"),))
    nodes = [node("n1", labels={"zone": "b"}), node("n2", labels={"zone": "a"})]
    assert remedies(zone_a, nodes)[-1].startswith("one more node like n2 with at least 100m cpu, 4Gi memory")
    by_name = replace(zone_a, constraints=(parse_constraint("node.name == n2"),))
    assert not any("one more" in sentence for sentence in remedies(by_name, nodes))


def test_a_new_node_must_be_where_it_may_be_beside_its_neighbours() -> None:
    away = ask(neighbours=(Neighbour(ref("db"), is_wanted=False, over="node.labels.zone"),))
    nodes = [node("n1", labels={"zone": "a"}), node("n2", vector(memory_mi=1), labels={"zone": "b"})]
    assert remedies(away, nodes, held("db-0", "n1"))[-1].startswith("one more node like n2 with")


def test_a_rule_that_is_there_twice_is_lifted_at_once() -> None:
    zone_a = parse_constraint("node.labels.zone == a")
    answer = told(ask(constraints=(zone_a, zone_a)), [node("n1")])
    assert [len(group.faults) for group in answer.groups] == [1]
    assert [r.sentence() for r in answer.remedies] == ["fits n1 without the constraint node.labels.zone == a"]


def test_what_would_make_a_spread_too_uneven_is_no_remedy() -> None:
    """Without the constraint zone d would be there to be filled, and zone c be fuller than it by too much."""
    even = ask(spread=(Spread("node.labels.zone", max_skew=1),), constraints=(parse_constraint("node.labels.x == y"),))
    full, small = vector(memory_mi=600), vector(memory_mi=100)
    nodes = [
        node("n1", full, labels={"zone": "a", "x": "y"}),
        node("n3", labels={"zone": "c"}),
        node("n4", small, labels={"zone": "d"}),
    ]
    there = [held("web-1", "n1", Vector(1, 500 * MEBIBYTE, 1)), held("web-2", "n3")]
    lacking = {n.node: [f.code.value for f in n.faults] for g in told(even, nodes, *there).groups for n in g.nodes}
    assert lacking == {"n1": ["memory"], "n3": ["constraint"], "n4": ["constraint", "memory"]}
    assert not any("n3" in sentence for sentence in remedies(even, nodes, *there))
    assert "fits n3 without the constraint node.labels.x == y" in remedies(even, nodes[:2], *there)


def test_what_fits_is_told_with_its_score_and_needs_no_remedy() -> None:
    answer = told(ask(), [node("n1"), node("n2", eligibility=Eligibility.LOST)])
    assert answer.fits == 1
    assert answer.goal is not None
    assert answer.goal.node == "n1"
    assert answer.remedies == ()
    assert [n.sentence() for group in answer.groups for n in group.nodes] == ["n2: is lost"]


def test_one_node_can_be_asked_about_alone() -> None:
    nodes = [node("n1"), node("n2", vector(memory_mi=410))]
    assert remedies(ask(), nodes, among=["n2"]) == ["fits n2 if memory <= 410Mi"]
    assert told(ask(), nodes, among=["n9"]).note == "there is no node n9"


def test_without_a_node_or_with_nonsense_the_note_says_so() -> None:
    assert told(ask(), []).note == "there are no nodes"
    assert "less than nothing" in told(ask(memory_mi=-1), [node("n1")]).note


def test_of_many_nodes_a_few_are_named_of_each_kind_and_all_are_counted() -> None:
    many = [node(f"n{i:04}", vector(memory_mi=i % 400)) for i in range(2_000)]
    tainted = [node(f"t{i:04}", taints=(parse_taint("gpu:noSchedule"),)) for i in range(500)]
    lost = [node("x1", eligibility=Eligibility.LOST)]
    groups = told(ask(), [*many, *tainted, *lost]).groups
    assert sorted(group.count for group in groups) == [1, 500, 2_000]
    assert sum(len(group.nodes) for group in groups) == MOST_LISTED
    assert groups[0].sentence() == "2000 nodes lack memory (512Mi needed, at most 399Mi free)"


def test_two_kinds_of_taints_and_two_states_are_two_groups() -> None:
    taints = [node(f"t{i}", taints=(parse_taint(f"{key}:noSchedule"),)) for i, key in enumerate(("gpu", "edge"))]
    states = [node(f"s{i}", eligibility=e) for i, e in enumerate((Eligibility.LOST, Eligibility.CORDONED))]
    assert [group.count for group in told(ask(), [*taints, *states]).groups] == [1, 1, 1, 1]
    assert remedies(ask(), taints)[:2] == [
        "fits t0 if its taint gpu is tolerated",
        "fits t1 if its taint edge is tolerated",
    ]


def test_more_rules_than_a_number_has_bits_still_tell_nodes_apart() -> None:
    rules = tuple(parse_constraint(f"node.labels.l{i} not exists") for i in range(100))
    nodes = [node(f"n{i}", labels={f"l{i % 50}": "x"}) for i in range(100)]
    groups = told(ask(constraints=rules), nodes).groups
    assert len(groups) == 50
    assert all(group.count == 2 for group in groups)
