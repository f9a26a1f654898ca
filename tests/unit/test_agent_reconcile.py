"""What an agent decides for one allocation, case by case."""

from dataclasses import replace
from typing import Any

import pytest

from agent.admission import admit
from agent.driver import Container, ContainerId, ContainerState
from agent.reconcile import Action, Discard, Forget, Remove, Start, Stop, decide, next_look_s
from agent.tracked import (
    Failure,
    Moment,
    Tracked,
    Work,
    condemned,
    newly_assigned,
    with_delay,
    with_failure,
    with_health,
    with_log_tail,
    with_sight,
    without_work,
)
from manifests.allocations import Desired, Health, HostPort, Phase
from manifests.containers import Resources
from tests.scripted_server import assigned


def at(now_s: float) -> Moment:
    return Moment(now_s, 1000.0 + now_s)


def container(attempt: int = 1, *, exit_code: int | None = None, oom: bool = False, address: str = "") -> Container:
    state = ContainerState.RUNNING if exit_code is None else ContainerState.EXITED
    return Container(
        ContainerId(f"c{attempt}"), f"c{attempt}", {}, "i", state, exit_code=exit_code, oom_killed=oom, address=address
    )


def new(allocation: str = "web-0-a", **spec: Any) -> Tracked:
    """Return a record that is admitted and of which nothing exists."""
    fresh = newly_assigned(assigned(allocation, **spec))
    return replace(with_sight(fresh, None, attempt=1), is_admitted=True)


def running(now_s: float = 0.0, **spec: Any) -> Tracked:
    return started(decide(new(**spec), at(now_s))[0], now_s)


def started(tracked: Tracked, now_s: float) -> Tracked:
    """Return the record after its start has worked."""
    attempt = tracked.status.attempt
    return decide(with_sight(without_work(tracked), container(attempt), attempt=attempt), at(now_s))[0]


def exits(tracked: Tracked, now_s: float, code: int = 1, *, oom: bool = False) -> tuple[Tracked, tuple[Action, ...]]:
    attempt = tracked.status.attempt
    return decide(with_sight(tracked, container(attempt, exit_code=code, oom=oom), attempt=attempt), at(now_s))


def stopping(tracked: Tracked) -> Tracked:
    allocation = tracked.assigned.allocation.model_copy(update={"desired": Desired.STOP})
    return replace(tracked, assigned=tracked.assigned.model_copy(update={"allocation": allocation}))


def test_a_new_allocation_is_started_once() -> None:
    tracked, actions = decide(new(), at(0.0))
    assert actions == (Start("web-0-a", is_restart=False),)
    assert decide(tracked, at(0.0)) == (tracked, ())


def test_what_was_not_seen_yet_is_left_alone() -> None:
    tracked = replace(new(), is_seen=False)
    assert decide(tracked, at(0.0)) == (tracked, ())
    assert decide(replace(tracked, is_withdrawn=True), at(0.0))[1] == ()


def test_it_runs_and_is_healthy_without_a_readiness_check() -> None:
    assert running().status.phase is Phase.RUNNING
    assert running().status.health is Health.HEALTHY
    checked = running(health={"readiness": {"tcp": {"port": 80}}})
    assert checked.status.health is Health.UNKNOWN


def test_the_first_exit_is_answered_at_once_and_the_next_ones_after_a_doubling_backoff() -> None:
    tracked, now_s, delays = running(), 10.0, []
    for _ in range(5):
        tracked, actions = exits(tracked, now_s)
        due_s = tracked.due_s if not actions else now_s
        delays.append(due_s - now_s)
        now_s = due_s
        tracked = started(decide(tracked, at(now_s))[0], now_s)
    assert delays == [0.0, 1.0, 2.0, 4.0, 8.0]
    tracked, actions = exits(tracked, now_s)
    assert (tracked.status.phase, actions) == (Phase.FAILED, ())
    assert "restart.attempts is 5" in tracked.status.message


def test_exits_older_than_the_window_do_not_count() -> None:
    tracked, now_s = running(restart={"attempts": 1, "window": "10s"}), 0.0
    for _ in range(4):
        now_s += 11.0
        tracked, actions = exits(tracked, now_s)
        assert actions[-1] == Start("web-0-a", is_restart=True)
        tracked = started(tracked, now_s)
    assert tracked.status.attempt == 5


def test_the_backoff_begins_anew_after_an_attempt_that_was_healthy_for_twice_its_most() -> None:
    tracked, now_s = running(restart={"attempts": 100, "maxBackoff": "30s"}), 0.0
    for _ in range(3):
        tracked = started(decide(exits(tracked, now_s)[0], at(now_s + 10.0))[0], now_s + 10.0)
        now_s += 10.0
    assert (tracked.strikes, tracked.status.failures) == (3, 3)
    assert next_look_s(tracked, now_s) == now_s + 60.0
    assert decide(tracked, at(now_s + 59.0))[0].status.failures == 3
    steady, actions = decide(tracked, at(now_s + 60.0))
    assert (steady.strikes, steady.status.failures, actions) == (0, 0, ())
    assert len(steady.failures) == 3  # they still count against restart.attempts
    tracked, actions = exits(tracked, now_s + 61.0)
    assert actions[-1] == Start("web-0-a", is_restart=True)  # at once, as after a first exit
    assert tracked.strikes == 1


def test_an_attempt_that_was_never_healthy_is_never_steady() -> None:
    tracked = running(restart={"attempts": 100, "maxBackoff": "1s"}, health={"readiness": {"tcp": {"port": 80}}})
    tracked, _ = exits(tracked, 100.0)
    tracked, _ = exits(started(tracked, 100.0), 200.0)
    assert (tracked.strikes, tracked.due_s) == (2, 201.0)


def test_health_counts_from_when_it_came_and_is_remembered_when_it_goes_again() -> None:
    tracked = running(restart={"attempts": 100, "maxBackoff": "1s"}, health={"readiness": {"tcp": {"port": 80}}})
    tracked = replace(tracked, strikes=3)
    short = with_health(with_health(tracked, Health.HEALTHY, 10.0), Health.UNHEALTHY, 11.9)
    long = with_health(with_health(tracked, Health.HEALTHY, 10.0), Health.UNHEALTHY, 12.0)
    assert (short.strikes, long.strikes) == (3, 0)


def test_what_ended_long_before_it_was_seen_was_not_healthy_all_the_while() -> None:
    tracked = replace(running(restart={"attempts": 100, "maxBackoff": "1s"}), strikes=3)
    ended = replace(container(exit_code=1), started_s=5.0, finished_s=6.0)
    tracked, _ = decide(with_sight(tracked, ended, attempt=1), at(500.0))
    assert tracked.strikes == 4


def test_no_manifest_makes_more_than_ten_starts_a_minute() -> None:
    tracked, now_s, starts = running(restart={"attempts": 1000, "backoff": "100ms", "maxBackoff": "100ms"}), 0.0, [0.0]
    while now_s < 130.0:
        tracked, _ = exits(tracked, now_s)
        tracked, now_s = decide(tracked, at(tracked.due_s))[0], max(tracked.due_s, now_s)
        assert tracked.work is Work.START
        starts.append(now_s)
        tracked = started(tracked, now_s)
    assert all(sum(one <= other < one + 60.0 for other in starts) <= 10 for one in starts)
    assert len(starts) > 20


def test_what_the_manager_loses_again_and_again_is_no_hot_loop_either() -> None:
    tracked = running(restart={"attempts": 0})
    for _ in range(9):
        tracked, actions = exits(replace(tracked, has_lost_sight=True), 1.0, 255)
        assert actions[-1] == Start("web-0-a", is_restart=True)
        tracked = started(tracked, 1.0)
    tracked, actions = exits(replace(tracked, has_lost_sight=True), 1.0, 255)
    assert (tracked.status.phase, tracked.due_s) == (Phase.BACKOFF, 60.0)
    assert tracked.status.next_attempt_s == 1060.0


def test_the_last_lines_belong_to_the_attempt_that_wrote_them() -> None:
    tracked, _ = exits(running(restart={"policy": "never"}), 1.0)
    ended = with_log_tail(tracked, 1, ("no luck",)).status.last_ending
    assert ended is not None
    assert ended.log_tail == ("no luck",)
    assert with_log_tail(tracked, 2, ("no luck",)) is tracked


def test_a_start_that_fails_counts_and_is_tried_again_after_the_backoff() -> None:
    tracked, _ = decide(new(restart={"attempts": 2}), at(0.0))
    tracked, actions = decide(with_failure(tracked, Failure("imageFailed", "no such image"), None), at(0.0))
    assert (tracked.status.phase, tracked.due_s, actions) == (Phase.BACKOFF, 1.0, ())
    assert tracked.status.next_attempt_s == 1001.0
    assert next_look_s(tracked, 0.0) == 1.0
    tracked, actions = decide(tracked, at(1.0))
    assert actions == (Start("web-0-a", is_restart=True),)


def test_a_manager_that_is_away_costs_no_attempt() -> None:
    tracked, _ = decide(new(), at(0.0))
    tracked = with_delay(tracked, retry_s=5.0, message="docker doesn't answer")
    assert decide(tracked, at(4.9))[1] == ()
    tracked, actions = decide(tracked, at(5.0))
    assert actions == (Start("web-0-a", is_restart=False),)
    assert (tracked.status.attempt, tracked.failures) == (1, ())


@pytest.mark.parametrize(
    ("kind", "policy", "code", "phase"),
    [
        ("Service", None, 0, Phase.PENDING),
        ("Service", "onFailure", 0, Phase.SUCCEEDED),
        ("Service", "never", 0, Phase.SUCCEEDED),
        ("Service", "never", 1, Phase.FAILED),
        ("Job", None, 0, Phase.SUCCEEDED),
        ("Job", None, 1, Phase.PENDING),
        ("Job", "never", 1, Phase.FAILED),
    ],
)
def test_an_exit_means_what_the_policy_says(kind: str, policy: str | None, code: int, phase: Phase) -> None:
    restart = {} if policy is None else {"policy": policy}
    tracked, _ = exits(running(kind=kind, restart=restart), 1.0, code)
    assert tracked.status.phase is phase


def test_memory_beyond_the_limit_is_named_with_the_limit() -> None:
    tracked, _ = exits(running(restart={"policy": "never"}, limits={"memory": "32Mi"}), 1.0, 137, oom=True)
    assert tracked.status.last_ending is not None
    assert tracked.status.last_ending.reason == "oomKilled"
    assert "32Mi" in tracked.status.message


def test_a_sigkill_that_nobody_sent_leads_to_the_limit_too() -> None:
    tracked, _ = exits(running(restart={"policy": "never"}), 1.0, 137)
    assert "(SIGKILL); if nobody killed it, its memory limit of 16Mi" in tracked.status.message


def test_what_the_manager_lost_is_restarted_at_once_and_not_counted() -> None:
    tracked = running(restart={"attempts": 0})
    tracked, actions = exits(replace(tracked, has_lost_sight=True), 1.0, 255)
    assert actions == (Start("web-0-a", is_restart=True),)
    assert tracked.status.last_ending is not None
    assert tracked.status.last_ending.reason == "lostByRuntime"
    assert tracked.failures == ()


def test_exit_code_255_is_the_containers_own_while_the_manager_was_there() -> None:
    tracked, _ = exits(running(), 1.0, 255)
    assert tracked.status.last_ending is not None
    assert tracked.status.last_ending.reason == "exited"


def test_a_failed_liveness_check_stops_it_and_counts_as_a_failed_attempt() -> None:
    tracked, actions = decide(condemned(running(), "its liveness check failed: no luck"), at(1.0))
    assert actions == (Stop("web-0-a", "SIGTERM", 10.0),)
    assert tracked.status.phase is Phase.RUNNING
    tracked, actions = exits(without_work(tracked), 2.0, 143)
    assert actions == (Start("web-0-a", is_restart=True),)
    assert tracked.status.last_ending is not None
    assert (tracked.status.last_ending.reason, tracked.failures) == ("unhealthy", (2.0,))
    assert "no luck" in tracked.status.last_ending.message


def test_a_jobs_time_counts_from_its_first_start_over_restarts() -> None:
    tracked = running(0.0, kind="Job", timeout="10s")
    tracked = started(exits(tracked, 4.0)[0], 4.0)
    assert next_look_s(tracked, 4.0) == 10.0
    tracked, actions = decide(tracked, at(10.0))
    assert (tracked.status.phase, actions) == (Phase.STOPPING, (Stop("web-0-a", "SIGTERM", 10.0),))
    tracked, actions = exits(without_work(tracked), 11.0, 137)
    assert (tracked.status.phase, actions) == (Phase.FAILED, ())
    assert tracked.status.last_ending is not None
    assert tracked.status.last_ending.reason == "timeout"


def test_a_stop_is_graceful_then_removed_and_forgotten_once_withdrawn() -> None:
    tracked, actions = decide(stopping(running(stop={"signal": "SIGINT", "grace": "3s"})), at(1.0))
    assert (tracked.status.phase, actions) == (Phase.STOPPING, (Stop("web-0-a", "SIGINT", 3.0),))
    tracked, actions = exits(without_work(tracked), 2.0, 0)
    assert (tracked.status.phase, actions) == (Phase.STOPPED, ())  # its container stays, for the logs
    tracked, actions = decide(replace(tracked, is_withdrawn=True), at(3.0))
    assert actions == (Remove("web-0-a", (ContainerId("c1"),)),)
    tracked, actions = decide(replace(without_work(tracked), container=None), at(3.0))
    assert actions == (Forget("web-0-a"),)
    assert tracked.work is Work.FORGOTTEN


def test_a_stop_ends_a_start_that_is_under_way() -> None:
    tracked, _ = decide(new(), at(0.0))
    tracked, actions = decide(stopping(tracked), at(1.0))
    assert actions == (Stop("web-0-a", "SIGTERM", 10.0),)
    tracked, actions = decide(with_sight(without_work(tracked), None, attempt=1), at(2.0))
    assert (tracked.status.phase, actions) == (Phase.STOPPED, ())


def test_what_has_ended_never_runs_again_and_a_container_that_still_runs_is_stopped() -> None:
    tracked, _ = exits(running(kind="Job"), 1.0, 0)
    again, actions = decide(with_sight(tracked, container(), attempt=1), at(2.0))
    assert actions == (Stop("web-0-a", "SIGTERM", 10.0),)
    assert again.status == tracked.status
    assert decide(with_sight(tracked, None, attempt=1), at(3.0))[1] == ()


def test_a_running_container_of_a_later_attempt_is_adopted() -> None:
    fresh = newly_assigned(assigned("web-0-a"))
    tracked, actions = decide(with_sight(fresh, container(3), attempt=3), at(0.0))
    assert (tracked.status.phase, tracked.status.attempt, actions) == (Phase.RUNNING, 3, ())


def test_of_earlier_containers_only_the_last_is_kept() -> None:
    tracked = replace(running(), earlier=(ContainerId("a"), ContainerId("b")))
    tracked, actions = exits(tracked, 1.0)
    assert Discard((ContainerId("a"), ContainerId("b"))) in actions
    assert tracked.earlier == (ContainerId("c1"),)


ROOM = Resources().model_copy(update={"cpu_m": 400, "memory_bytes": 2**30, "pids": 1000, "disk_bytes": 2**40})


def waiting(allocation: str, created_s: float, **spec: Any) -> Tracked:
    return with_sight(newly_assigned(assigned(allocation, created_s=created_s, **spec)), None, attempt=1)


def test_what_the_node_cannot_hold_is_refused_and_the_rest_admitted() -> None:
    newcomers = [waiting(f"web-{n}-a", float(n)) for n in range(3)]  # 200m each, and the node has 400m
    changed = {t.id: t for t in admit(newcomers, ROOM, at(0.0))}
    assert [changed[f"web-{n}-a"].is_admitted for n in range(3)] == [True, True, False]
    refused = changed["web-2-a"].status
    assert refused.phase is Phase.FAILED
    assert refused.message == "the node can't hold it: it needs 200m cpu, and 0 is free"
    assert refused.last_ending is not None
    assert refused.last_ending.reason == "refused"


def test_a_newcomer_waits_for_room_that_is_being_made() -> None:
    port = (HostPort(name="main", container=80, host=8080),)
    old, newcomer = stopping(running(ports=port)), waiting("web-1-a", 1.0, ports=port)
    assert admit([old, newcomer], ROOM, at(0.0)) == ()
    gone = replace(old, status=old.status.model_copy(update={"phase": Phase.STOPPED}), container=None)
    assert [t.id for t in admit([gone, newcomer], ROOM, at(0.0))] == ["web-1-a"]
    staying = running(ports=port)
    assert admit([staying, newcomer], ROOM, at(0.0))[0].status.message.endswith("host port 8080 is held by web-0-a")
