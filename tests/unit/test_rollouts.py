"""What becomes of a rollout of a Service, case by case: availability, canaries, deadlines, reverts, pauses, leaders."""

from collections.abc import Sequence
from typing import Any

import pytest

from control_plane.controllers.decision import Decision, Seen
from control_plane.controllers.progress import ProgressClock
from control_plane.controllers.rollouts import Progress
from control_plane.controllers.services import reconcile_service
from manifests.allocations import Desired, Phase
from manifests.reasons import Blocked, Code, Rejection
from manifests.rollouts import Rollout, RolloutState
from manifests.workloads import WorkloadRecord
from scheduler.model import Eligibility
from tests.builders import course, record, seen
from tests.clocks import StepClock


def web(version: int = 2, **update: Any) -> WorkloadRecord:
    return record(replicas=3, version=version, update={"minHealthyTime": "10s", **update})


def decide(
    of: WorkloadRecord,
    allocations: Sequence[Seen],
    *,
    healthy: tuple[int, ...] = (1,),
    stalled_for_s: float = 0.0,
    blocked: Sequence[Blocked] = (),
    **said: Any,
) -> Decision:
    where = course(of, healthy=healthy, **said)
    return reconcile_service(where, allocations, blocked=blocked, stalled_for_s=stalled_for_s)


def rollout(decision: Decision) -> Rollout:
    assert decision.rollout is not None
    return decision.rollout


def asked(decision: Decision) -> list[tuple[int, int]]:
    """Return the version and the index of each allocation that is asked for."""
    return sorted((ask.version, index) for ask in decision.asks for index in ask.indexes)


def stopped(decision: Decision) -> list[int]:
    return sorted(stop.allocation.index for stop in decision.stops)


def old(of: WorkloadRecord, count: int = 3, **changes: Any) -> list[Seen]:
    return [seen(of, i, version=1, **changes) for i in range(count)]


# What serves.


def test_a_new_one_that_is_not_ready_for_long_enough_lets_no_old_one_go() -> None:
    of = web()
    decision = decide(of, [*old(of), seen(of, 3, ready_for_s=4.0)])
    assert decision.stops == ()
    assert decision.again_after_s == 6.0


def test_an_old_one_that_crashes_in_place_keeps_its_slot_while_the_new_version_is_not_proven() -> None:
    of = web()
    crashed = seen(of, 0, Phase.BACKOFF, version=1)
    decision = decide(of, [crashed, *old(of)[1:], seen(of, 3, ready=False)])
    assert (stopped(decision), asked(decision)) == ([], [])


def test_an_old_one_that_is_lost_is_made_again_of_its_own_version() -> None:
    of = web()
    lost = seen(of, 0, version=1, node="n2", node_is=Eligibility.LOST)
    decision = decide(of, [lost, *old(of)[1:], seen(of, 3, ready=False)])
    assert asked(decision) == [(1, 0)]


def test_an_old_one_that_failed_waits_for_its_backoff_and_is_made_again_of_its_own_version() -> None:
    of = web()
    rest = [*old(of)[1:], seen(of, 3, ready=False)]
    waiting = decide(of, [seen(of, 0, Phase.FAILED, version=1, ended_for_s=1.0), *rest])
    assert (asked(waiting), waiting.again_after_s) == ([], 4.0)
    due = decide(of, [seen(of, 0, Phase.FAILED, version=1, ended_for_s=5.0), *rest])
    assert asked(due) == [(1, 0)]
    assert due.successions[0].reschedules == 1


def test_once_a_new_one_is_available_the_old_one_that_does_not_serve_goes_first() -> None:
    of = web()
    crashed = seen(of, 0, Phase.BACKOFF, version=1)
    decision = decide(of, [crashed, *old(of)[1:], seen(of, 3)])
    assert stopped(decision) == [0]


def test_an_old_version_that_was_never_healthy_protects_nothing_that_does_not_serve() -> None:
    of = web()
    decision = decide(of, old(of, ready=False), healthy=())
    assert stopped(decision) == [0, 1, 2]


def test_a_second_change_in_the_middle_takes_what_the_first_one_made_first() -> None:
    of = web(version=3)
    abandoned = seen(of, 3, version=2)
    decision = decide(of, [*old(of), abandoned, seen(of, 4)])
    assert 3 in stopped(decision)
    canary = decide(web(version=3, canary=1), [*old(of), abandoned])
    assert stopped(canary) == [3]


def test_more_replicas_in_the_middle_begin_with_what_is_known_to_work() -> None:
    of = record(replicas=5, version=2)
    decision = decide(of, [*old(of), seen(of, 3, ready=False)])
    assert {version for version, _ in asked(decision)} == {1}


def test_fewer_replicas_in_the_middle_leave_no_more_than_surge() -> None:
    of = record(replicas=1, version=2)
    decision = decide(of, [*old(of), seen(of, 3, ready=False)])
    assert stopped(decision) == [1, 2]


# Room.


def lacking(code: Code, node: str = "n1") -> list[Blocked]:
    return [Blocked(2, 1, (Rejection(node, code, "8080", "web-0-1"),))]


@pytest.mark.parametrize("code", [Code.HOST_PORT, Code.MEMORY, Code.DISK, Code.DEVICES, Code.MAX_PER_NODE, Code.SKEW])
def test_where_only_stopping_makes_room_the_old_one_stops_first_and_it_is_recorded(code: Code) -> None:
    of = web()
    decision = decide(of, old(of), blocked=lacking(code))
    assert stopped(decision) == [2]
    assert rollout(decision).stop_first
    assert "no room for both" in decision.messages[0]


def test_stopping_first_stays_chosen_and_asks_for_no_more_than_the_replicas() -> None:
    of = web()
    decision = decide(of, old(of, 2), stop_first=True)
    assert (stopped(decision), asked(decision)) == ([], [(2, 2)])


@pytest.mark.parametrize(("code", "node"), [(Code.SUSPECT, "n1"), (Code.CORDONED, "n1"), (Code.MEMORY, "n9")])
def test_what_stopping_would_not_mend_stops_nothing(code: Code, node: str) -> None:
    of = web()
    decision = decide(of, old(of), blocked=lacking(code, node))
    assert decision.stops == ()
    assert not rollout(decision).stop_first


def test_what_stops_anyhow_is_waited_for() -> None:
    of = web()
    going = seen(of, 9, Phase.STOPPING, version=1, desired=Desired.STOP)
    assert decide(of, [*old(of), going], blocked=lacking(Code.MEMORY)).stops == ()


# Canaries.


def test_canaries_run_beside_all_of_the_old_and_wait() -> None:
    of = web(canary=2)
    first = decide(of, old(of))
    assert (asked(first), stopped(first)) == ([(2, 3), (2, 4)], [])
    there = decide(of, [*old(of), seen(of, 3), seen(of, 4)])
    assert rollout(there).state is RolloutState.WAITING
    assert (asked(there), stopped(there)) == ([], [])


def test_promoted_canaries_are_where_the_rollout_goes_on_from() -> None:
    of = web(canary=1).model_copy(update={"promoted": 2})
    decision = decide(of, [*old(of), seen(of, 3)], state=RolloutState.WAITING)
    assert rollout(decision).state is RolloutState.PROGRESSING
    assert stopped(decision) == [2]


def test_canaries_that_promote_themselves_are_past_for_good() -> None:
    of = web(canary=1, autoPromote=True)
    decision = decide(of, [*old(of), seen(of, 3)])
    assert rollout(decision).promoted
    flapping = decide(of, [*old(of, 2), seen(of, 3, ready=False)], promoted=True)
    assert rollout(flapping).state is RolloutState.PROGRESSING
    assert asked(flapping) == [(1, 2)]


def test_a_canary_that_never_serves_is_turned_back() -> None:
    of = web(canary=1)
    decision = decide(of, [*old(of), seen(of, 3, ready=False)], stalled_for_s=120)
    assert rollout(decision).target == 1
    assert stopped(decision) == [3]


def test_a_drain_beside_canaries_goes_on_with_the_old_version() -> None:
    of = web(canary=1)
    drained = seen(of, 0, version=1, node_is=Eligibility.DRAINING)
    here = [*old(of)[1:], seen(of, 3)]
    first = decide(of, [drained, *here], state=RolloutState.WAITING)
    assert stopped(first) == [0]
    then = decide(of, here, state=RolloutState.WAITING)
    assert asked(then) == [(1, 0)]


# Ends.


def test_it_is_complete_and_proven_once_all_are_available() -> None:
    of = web()
    done = rollout(decide(of, [seen(of, i) for i in range(3)]))
    assert (done.state, done.healthy) == (RolloutState.COMPLETE, (1, 2))


def test_without_replicas_it_is_complete_and_proves_nothing() -> None:
    of = record(replicas=0, version=2)
    done = rollout(decide(of, []))
    assert (done.state, done.healthy) == (RolloutState.COMPLETE, (1,))


def test_what_completed_without_running_is_tried_when_it_first_runs() -> None:
    of = web()
    decision = decide(of, [], state=RolloutState.COMPLETE)
    assert rollout(decision).state is RolloutState.PROGRESSING


def test_after_its_end_a_failure_is_no_failed_rollout() -> None:
    of = web()
    broken = [seen(of, 0, ready=False), seen(of, 1), seen(of, 2)]
    decision = decide(of, broken, healthy=(1, 2), state=RolloutState.COMPLETE, stalled_for_s=1e6)
    assert rollout(decision).state is RolloutState.COMPLETE


def test_without_progress_it_turns_back_to_the_last_healthy_version_and_says_why() -> None:
    of = web(version=3)
    failing = seen(of, 3, Phase.BACKOFF)
    decision = decide(of, [*old(of), failing], healthy=(1, 2), stalled_for_s=120)
    turned = rollout(decision)
    assert (turned.version, turned.target, turned.state) == (3, 2, RolloutState.PROGRESSING)
    assert "version 3 made no progress for 2m: 0 of 3 available" in turned.message
    assert "exit 1" in turned.message
    assert turned.message.endswith("Back to version 2")
    assert stopped(decision) == [3]


def test_a_revert_is_timed_from_when_it_began() -> None:
    """The next look came a whole deadline later, and only that began to count."""
    of = web(progressDeadline="60s")
    decision = decide(of, [*old(of), seen(of, 3, ready=False)], stalled_for_s=60.0)
    assert rollout(decision).is_reverting
    assert decision.again_after_s == 0.0


def test_a_revert_that_is_done_is_reverted_and_keeps_its_reason() -> None:
    of = web()
    done = rollout(decide(of, old(of), target=1, message="it failed"))
    assert (done.state, done.target, done.message) == (RolloutState.REVERTED, 1, "it failed")


def test_a_revert_that_fails_too_ends_as_failed_and_turns_nowhere() -> None:
    of = web(version=3)
    failed = rollout(decide(of, old(of, ready=False), healthy=(1, 2), target=1, message="so", stalled_for_s=120))
    assert (failed.state, failed.target) == (RolloutState.FAILED, 1)
    assert failed.message.startswith("so; then version 1 made no progress")


def test_without_auto_revert_it_fails_stops_going_on_and_the_old_stay() -> None:
    of = web(autoRevert=False)
    here = [*old(of), seen(of, 3, ready=False)]
    failed = decide(of, here, stalled_for_s=120)
    assert rollout(failed).state is RolloutState.FAILED
    assert (asked(failed), stopped(failed)) == ([], [])
    lost = seen(of, 0, version=1, node="n2", node_is=Eligibility.LOST)
    then = decide(of, [lost, *here[1:]], state=RolloutState.FAILED)
    assert asked(then) == [(1, 0)]


def test_what_only_lacks_room_does_not_turn_back_since_the_old_would_lack_it_too() -> None:
    of = web()
    failed = rollout(decide(of, [seen(of, 0), seen(of, 1)], stalled_for_s=120, blocked=lacking(Code.MEMORY)))
    assert (failed.state, failed.target) == (RolloutState.FAILED, 2)
    assert "lacks memory" in failed.message


def test_a_first_version_that_fails_goes_on_trying_and_can_still_complete() -> None:
    of = web(version=1)
    failed = decide(of, [], healthy=(), stalled_for_s=120)
    assert rollout(failed).state is RolloutState.FAILED
    assert len(asked(failed)) == 3
    done = decide(of, [seen(of, i) for i in range(3)], healthy=(), state=RolloutState.FAILED)
    assert rollout(done).state is RolloutState.COMPLETE


def test_a_version_that_was_applied_begins_anew_whatever_was_before() -> None:
    of = web(version=3)
    decision = decide(of, old(of), version=2, target=1, state=RolloutState.REVERTED)
    assert (rollout(decision).target, rollout(decision).state) == (3, RolloutState.PROGRESSING)
    assert asked(decision) == [(3, 3)]


# Pause.


def test_a_paused_rollout_renews_nothing_and_keeps_up_what_is_there() -> None:
    of = web().model_copy(update={"paused": True})
    paused = decide(of, [*old(of), seen(of, 3)], stalled_for_s=1e6)
    assert rollout(paused).state is RolloutState.PAUSED
    assert (asked(paused), stopped(paused)) == ([], [])
    lost = seen(of, 0, version=1, node="n2", node_is=Eligibility.LOST)
    assert asked(decide(of, [lost, *old(of)[1:]])) == [(1, 0)]


def test_a_resumed_rollout_goes_on() -> None:
    of = web()
    decision = decide(of, old(of), state=RolloutState.PAUSED, message="paused")
    assert (rollout(decision).state, rollout(decision).message) == (RolloutState.PROGRESSING, "")
    assert asked(decision) == [(2, 3)]


def test_a_drain_during_a_pause_takes_the_place_of_a_new_one_that_does_not_serve() -> None:
    of = web().model_copy(update={"paused": True})
    drained = seen(of, 0, version=1, node_is=Eligibility.DRAINING)
    decision = decide(of, [drained, *old(of)[1:], seen(of, 3, ready=False)])
    assert stopped(decision) == [3]


# Leaders and clocks.


def test_a_new_leader_that_has_seen_nothing_for_long_stops_and_asks_for_nothing() -> None:
    of = web()
    here = [*old(of, 2, ready_for_s=0.0), seen(of, 2, ready_for_s=0.0), seen(of, 3, ready_for_s=0.0)]
    decision = decide(of, here)
    assert (asked(decision), stopped(decision)) == ([], [])


def test_once_proven_a_version_needs_no_time_to_count_again() -> None:
    of = web()
    drained = seen(of, 0, node_is=Eligibility.DRAINING)
    here = [drained, *(seen(of, i, ready_for_s=0.0) for i in (1, 2, 3))]
    assert stopped(decide(of, here, healthy=(1, 2), state=RolloutState.COMPLETE)) == [0]


def test_progress_is_a_new_height_or_a_new_low_and_nothing_else() -> None:
    clock = StepClock()
    watch = ProgressClock(clock)

    def stalled(available: int, old_left: int, of: str = "1") -> float:
        clock.advance(10)
        return watch.stalled_for_s("w", Progress((of,), available, old_left))

    assert stalled(0, 3) == 0.0
    assert stalled(0, 3) == 10.0
    assert stalled(1, 3) == 0.0
    assert stalled(0, 3) == 10.0  # it flaps
    assert stalled(1, 3) == 20.0  # and back, which is nothing new
    assert stalled(1, 2) == 0.0
    assert stalled(1, 3, of="2") == 0.0  # another rollout
    assert watch.stalled_for_s("w", None) == 0.0
    assert stalled(1, 3, of="2") == 0.0


def test_deciding_twice_decides_the_same() -> None:
    of = web()
    here = [*old(of), seen(of, 3, ready=False)]
    first = decide(of, here)
    again = reconcile_service(course(of, healthy=(1,)), here)
    assert first == again


def test_a_new_one_that_serves_since_a_moment_uses_up_what_may_be_tried() -> None:
    of = web()
    lost_one_before = [*old(of, 2), seen(of, 3, ready_for_s=1.0)]
    assert asked(decide(of, lost_one_before)) == []


def test_a_drain_during_a_pause_stops_nothing_that_is_needed_while_another_crashes() -> None:
    of = web().model_copy(update={"paused": True})
    leaving = seen(of, 0, version=1, node_is=Eligibility.DRAINING)
    crashed = seen(of, 3, Phase.BACKOFF, version=1)
    assert stopped(decide(of, [leaving, *old(of)[1:], crashed])) == []
