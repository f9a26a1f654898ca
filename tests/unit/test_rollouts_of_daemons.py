"""What becomes of a rollout of a Daemon, case by case."""

from typing import Any

from control_plane.controllers.daemons import reconcile_daemon
from control_plane.controllers.decision import Decision, Seen
from manifests.allocations import Phase
from manifests.rollouts import RolloutState
from manifests.workloads import WorkloadRecord
from scheduler.model import Eligibility, NodeView, Vector
from tests.builders import course, record, seen

NODES = [NodeView(f"n{i}", Eligibility.READY, {}, {}, Vector(1000, 2**30, 1000, 2**40)) for i in range(4)]


def daemon(version: int = 2, **update: Any) -> WorkloadRecord:
    return record("Daemon", version=version, update={"minHealthyTime": "10s", **update})


def at(of: WorkloadRecord, number: int, version: int, **changes: Any) -> Seen:
    return seen(of, number, changes.pop("phase", Phase.RUNNING), node=f"n{number}", version=version, **changes)


def decide(of: WorkloadRecord, here: list[Seen], *, stalled_for_s: float = 0.0, **said: Any) -> Decision:
    said.setdefault("healthy", (1,))
    return reconcile_daemon(course(of, **said), here, NODES, stalled_for_s=stalled_for_s)


def stopped(decision: Decision) -> list[str]:
    return sorted(stop.allocation.node for stop in decision.stops)


def asked(decision: Decision) -> list[tuple[int, str]]:
    return sorted((ask.version, str(ask.only_node)) for ask in decision.asks)


def test_so_many_nodes_at_a_time_as_may_be_without() -> None:
    of = daemon(maxUnavailable=2)
    assert stopped(decide(of, [at(of, i, 1) for i in range(4)])) == ["n0", "n1"]


def test_the_next_node_waits_until_the_new_one_served_for_long_enough() -> None:
    of = daemon()
    rest = [at(of, i, 1) for i in (1, 2, 3)]
    assert stopped(decide(of, [at(of, 0, 2, ready_for_s=3.0), *rest])) == []
    assert stopped(decide(of, [at(of, 0, 2), *rest])) == ["n1"]


def test_an_old_one_that_crashes_in_place_is_left_alone_while_a_new_one_does_not_serve() -> None:
    of = daemon()
    here = [at(of, 0, 2, ready=False), at(of, 1, 1, phase=Phase.BACKOFF), at(of, 2, 1), at(of, 3, 1)]
    assert stopped(decide(of, here)) == []


def test_a_node_that_lost_its_old_one_gets_it_again_while_the_new_version_is_on_trial() -> None:
    of = daemon()
    assert asked(decide(of, [at(of, 0, 2, ready=False), at(of, 1, 1), at(of, 2, 1)])) == [(1, "n3")]


def test_a_paused_rollout_stops_nothing_and_fills_gaps_with_the_healthy_version() -> None:
    of = daemon().model_copy(update={"paused": True})
    decision = decide(of, [at(of, i, 1) for i in range(3)])
    assert (stopped(decision), asked(decision)) == ([], [(1, "n3")])
    assert decision.rollout is not None
    assert decision.rollout.state is RolloutState.PAUSED


def test_a_version_that_makes_no_progress_is_turned_back() -> None:
    of = daemon()
    here = [at(of, 0, 2, ready=False), *(at(of, i, 1) for i in (1, 2, 3))]
    decision = decide(of, here, stalled_for_s=120)
    assert decision.rollout is not None
    assert (decision.rollout.target, stopped(decision)) == (1, ["n0"])


def test_it_is_complete_once_every_node_has_an_available_one() -> None:
    of = daemon()
    here = [at(of, i, 2) for i in range(4)]
    decision = decide(of, here)
    assert decision.rollout is not None
    assert (decision.rollout.state, decision.rollout.healthy) == (RolloutState.COMPLETE, (1, 2))
    missing = decide(of, here[:3])
    assert missing.rollout is not None
    assert missing.rollout.state is RolloutState.PROGRESSING


def test_a_lost_node_does_not_hold_it_up_and_is_renewed_when_it_is_back() -> None:
    of = daemon()
    here = [at(of, 0, 1, node_is=Eligibility.LOST), *(at(of, i, 2) for i in (1, 2, 3))]
    nodes = [NodeView("n0", Eligibility.LOST, {}, {}, NODES[0].allocatable), *NODES[1:]]
    decision = reconcile_daemon(course(of, healthy=(1,)), here, nodes)
    assert decision.rollout is not None
    assert decision.rollout.state is RolloutState.COMPLETE
    back = [at(of, 0, 1), *here[1:]]
    assert stopped(decide(of, back, healthy=(1, 2), state=RolloutState.COMPLETE)) == ["n0"]


def test_a_node_without_one_counts_among_those_that_may_be_without() -> None:
    of = daemon()
    assert stopped(decide(of, [at(of, i, 1) for i in range(3)])) == []
