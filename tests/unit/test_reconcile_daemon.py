"""What a Daemon's reconciler decides, case by case."""

from collections.abc import Sequence

from control_plane.controllers.daemons import reconcile_daemon
from control_plane.controllers.decision import Decision, Seen
from manifests.allocations import Desired, Phase
from manifests.workloads import WorkloadRecord
from scheduler.model import Eligibility, NodeView, Vector
from tests.builders import course, record, seen


def decide(of: WorkloadRecord, allocations: Sequence[Seen], nodes: Sequence[NodeView]) -> Decision:
    """Return the decision where no version was ever healthy, so that nothing is known to go back to."""
    return reconcile_daemon(course(of), allocations, nodes)


def node(name: str, eligibility: Eligibility = Eligibility.READY, **labels: str) -> NodeView:
    return NodeView(name, eligibility, labels, {}, Vector(1000, 2**30, 1000, 2**40))


def asked_nodes(decision: Decision) -> list[str]:
    return sorted(str(ask.only_node) for ask in decision.asks)


def test_each_node_gets_one() -> None:
    decision = decide(record("Daemon"), [], [node("n1"), node("n2")])
    assert asked_nodes(decision) == ["n1", "n2"]
    assert sorted(i for ask in decision.asks for i in ask.indexes) == [0, 1]


def test_only_nodes_that_meet_the_constraints_get_one() -> None:
    ssd_only = record("Daemon", placement={"constraints": ["node.labels.disk == ssd"]})
    decision = decide(ssd_only, [], [node("n1", disk="ssd"), node("n2", disk="hdd"), node("n3")])
    assert asked_nodes(decision) == ["n1"]


def test_only_nodes_with_the_runtime_get_one_and_none_is_stopped_for_what_its_node_does_not_tell() -> None:
    daemon = record("Daemon", runtime="runsc")
    has = NodeView("n1", Eligibility.READY, {}, {"runtime.runsc": "1"}, Vector(1000, 2**30, 1000, 2**40))
    decision = decide(daemon, [seen(daemon, 0, node="n2")], [has, node("n2"), node("n3")])
    assert asked_nodes(decision) == ["n1"]
    assert decision.stops == ()


def test_a_node_that_comes_gets_one_and_the_others_are_left_alone() -> None:
    daemon = record("Daemon")
    decision = decide(daemon, [seen(daemon, 0, node="n1")], [node("n1"), node("n2")])
    assert asked_nodes(decision) == ["n2"]
    assert decision.stops == ()


def test_a_lost_nodes_daemon_waits_for_its_node() -> None:
    daemon = record("Daemon")
    there = seen(daemon, 0, node="n1", node_is=Eligibility.LOST)
    decision = decide(daemon, [there], [node("n1", Eligibility.LOST), node("n2")])
    assert asked_nodes(decision) == ["n2"]
    assert decision.stops == ()


def test_a_deleted_nodes_daemon_goes() -> None:
    daemon = record("Daemon")
    decision = decide(daemon, [seen(daemon, 0, node="n1", node_is=None)], [])
    assert [stop.reason for stop in decision.stops] == ["node n1 was deleted"]


def test_a_drained_nodes_daemon_stops_and_comes_to_no_other() -> None:
    daemon = record("Daemon")
    there = seen(daemon, 0, node="n1", node_is=Eligibility.DRAINING)
    decision = decide(daemon, [there], [node("n1", Eligibility.DRAINING)])
    assert len(decision.stops) == 1
    assert decision.asks == ()


def test_a_new_version_goes_from_node_to_node() -> None:
    daemon = record("Daemon", version=2)
    old = [seen(daemon, i, node=f"n{i}", version=1) for i in range(3)]
    nodes = [node(f"n{i}") for i in range(3)]
    first = decide(daemon, old, nodes)
    assert [stop.allocation.node for stop in first.stops] == ["n0"]
    stopping = seen(daemon, 0, Phase.STOPPING, node="n0", version=1, desired=Desired.STOP)
    assert decide(daemon, [stopping, *old[1:]], nodes).asks == ()
    gone = decide(daemon, old[1:], nodes)
    assert asked_nodes(gone) == ["n0"]


def test_while_one_node_changes_versions_the_others_keep_theirs() -> None:
    daemon = record("Daemon", version=2)
    old = [seen(daemon, i, node=f"n{i}", version=1) for i in (1, 2)]
    nodes = [node(f"n{i}") for i in range(3)]
    for phase in (Phase.RUNNING, Phase.STOPPING, Phase.STOPPED):
        leaving = seen(daemon, 0, phase, node="n0", version=1, desired=Desired.STOP)
        assert decide(daemon, [leaving, *old], nodes).stops == ()


def test_a_node_that_died_while_it_changed_versions_holds_up_nobody() -> None:
    daemon = record("Daemon", version=2)
    leaving = seen(daemon, 0, Phase.STOPPING, node="n0", node_is=Eligibility.LOST, version=1, desired=Desired.STOP)
    decision = decide(daemon, [leaving, seen(daemon, 1, node="n1", version=1)], [node("n1")])
    assert [stop.allocation.node for stop in decision.stops] == ["n1"]


def test_the_next_node_waits_until_the_new_one_serves() -> None:
    daemon = record("Daemon", version=2)
    starting = seen(daemon, 0, Phase.STARTING, node="n0")
    old = seen(daemon, 1, node="n1", version=1)
    decision = decide(daemon, [starting, old], [node("n0"), node("n1")])
    assert decision.stops == ()
