"""What a Service's reconciler decides, case by case."""

from collections.abc import Sequence

from control_plane.controllers.decision import Decision, Seen
from control_plane.controllers.services import reconcile_service
from manifests.allocations import Desired, Phase
from manifests.reasons import Blocked, Code, Rejection
from manifests.workloads import WorkloadRecord
from scheduler.model import Eligibility
from tests.builders import course, record, seen


def decide(of: WorkloadRecord, allocations: Sequence[Seen], *, was_blocked: bool = False) -> Decision:
    """Return the decision where no version was ever healthy, so that nothing is known to go back to."""
    lacking = Blocked(of.version, 1, (Rejection("n1", Code.HOST_PORT, "8080", "web-0-1"),))
    return reconcile_service(course(of), allocations, blocked=[lacking] if was_blocked else ())


def is_quiet(decision: Decision) -> bool:
    return not (decision.stops or decision.asks or decision.removals or decision.messages)


def asked(decision: Decision) -> list[int]:
    return sorted(index for ask in decision.asks for index in ask.indexes)


def stopped(decision: Decision) -> list[int]:
    return sorted(stop.allocation.index for stop in decision.stops)


def test_a_new_service_asks_for_all_its_replicas() -> None:
    decision = decide(record(replicas=3), [])
    assert asked(decision) == [0, 1, 2]


def test_a_whole_service_needs_nothing() -> None:
    web = record(replicas=2)
    decision = decide(web, [seen(web, 0), seen(web, 1)])
    assert is_quiet(decision)


def test_scaling_down_stops_the_highest_slots() -> None:
    web = record(replicas=1)
    decision = decide(web, [seen(web, i) for i in range(3)])
    assert stopped(decision) == [1, 2]


def test_scaling_down_stops_what_does_not_serve_first() -> None:
    web = record(replicas=1)
    decision = decide(web, [seen(web, 0, ready=False), seen(web, 1)])
    assert stopped(decision) == [0]


def test_a_lost_nodes_slot_is_taken_over_at_once() -> None:
    web = record(replicas=2)
    lost = seen(web, 0, node="n2", node_is=Eligibility.LOST)
    decision = decide(web, [lost, seen(web, 1)])
    assert stopped(decision) == [0]
    assert asked(decision) == [0]
    assert decision.successions[0].replaces == lost.id


def test_what_has_ended_and_is_not_wanted_is_removed() -> None:
    web = record(replicas=1)
    old = seen(web, 1, Phase.STOPPED, desired=Desired.STOP)
    decision = decide(web, [seen(web, 0), old])
    assert decision.removals == (old.allocation,)


def test_what_still_stops_is_not_removed() -> None:
    web = record(replicas=1)
    old = seen(web, 1, Phase.STOPPING, desired=Desired.STOP)
    assert decide(web, [seen(web, 0), old]).removals == ()


def test_a_new_version_starts_one_more_before_it_stops_any() -> None:
    web = record(replicas=3, version=2)
    decision = decide(web, [seen(web, i, version=1) for i in range(3)])
    assert asked(decision) == [3]
    assert stopped(decision) == []


def test_an_old_one_stops_once_a_new_one_is_ready() -> None:
    web = record(replicas=3, version=2)
    old = [seen(web, i, version=1) for i in range(3)]
    decision = decide(web, [*old, seen(web, 3)])
    assert stopped(decision) == [2]


def test_an_old_one_stays_while_the_new_one_is_not_ready() -> None:
    web = record(replicas=3, version=2)
    old = [seen(web, i, version=1) for i in range(3)]
    decision = decide(web, [*old, seen(web, 3, ready=False)])
    assert decision.stops == ()


def test_without_room_for_both_the_old_one_stops_first_and_it_is_said() -> None:
    web = record(replicas=1, version=2)
    decision = decide(web, [seen(web, 0, version=1)], was_blocked=True)
    assert stopped(decision) == [0]
    assert "no room for both" in decision.messages[0]


def test_a_drained_node_keeps_its_allocation_until_another_serves() -> None:
    web = record(replicas=1)
    drained = seen(web, 0, node_is=Eligibility.DRAINING)
    first = decide(web, [drained])
    assert (asked(first), stopped(first)) == ([1], [])
    then = decide(web, [drained, seen(web, 1, node="n2")])
    assert stopped(then) == [0]


def test_a_drain_that_is_blocked_never_stops_what_serves() -> None:
    web = record(replicas=1)
    decision = decide(web, [seen(web, 0, node_is=Eligibility.DRAINING)], was_blocked=True)
    assert decision.stops == ()


def test_a_failed_allocation_waits_for_its_backoff() -> None:
    web = record(replicas=1)
    decision = decide(web, [seen(web, 0, Phase.FAILED, ended_for_s=1.0)])
    assert decision.asks == ()
    assert decision.again_after_s == 4.0


def test_a_failed_allocation_is_then_tried_on_another_node() -> None:
    web = record(replicas=1)
    failed = seen(web, 0, Phase.FAILED, node="n2", ended_for_s=5.0)
    decision = decide(web, [failed])
    assert decision.asks[0].avoid == {"n2"}
    assert decision.successions[0].reschedules == 1


def test_each_failure_of_a_slot_doubles_its_wait() -> None:
    web = record(replicas=1)
    failed = seen(web, 0, Phase.FAILED, reschedules=3, ended_for_s=0.0)
    assert decide(web, [failed]).again_after_s == 40.0


def test_a_newer_version_cures_a_failed_allocation_at_once() -> None:
    web = record(replicas=1, version=2)
    decision = decide(web, [seen(web, 0, Phase.FAILED, version=1)])
    assert asked(decision) == [0]


def test_a_silent_new_allocation_is_waited_for() -> None:
    web = record(replicas=1)
    assert is_quiet(decide(web, [seen(web, 0, None)]))


def test_no_replicas_means_none() -> None:
    web = record(replicas=0)
    decision = decide(web, [seen(web, 0)])
    assert (asked(decision), stopped(decision)) == ([], [0])
