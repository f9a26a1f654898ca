"""What a Job's reconciler decides, case by case."""

from control_plane.controllers.decision import Succession
from control_plane.controllers.jobs import reconcile_job
from manifests.allocations import Desired, Phase
from scheduler.model import Eligibility
from tests.builders import record, seen
from tests.unit.test_reconcile_service import asked, stopped


def test_a_job_starts_as_many_as_may_run_at_once() -> None:
    decision = reconcile_job(record("Job", completions=5, parallelism=2), [])
    assert asked(decision) == [0, 1]


def test_the_next_index_starts_when_one_has_succeeded() -> None:
    job = record("Job", completions=5, parallelism=2)
    decision = reconcile_job(job, [seen(job, 0, Phase.SUCCEEDED), seen(job, 1)])
    assert asked(decision) == [2]


def test_a_job_is_complete_when_all_its_indexes_have_succeeded() -> None:
    job = record("Job", completions=2)
    decision = reconcile_job(job, [seen(job, i, Phase.SUCCEEDED) for i in range(2)])
    assert decision.is_complete
    assert not decision.is_failed
    assert decision.asks == ()


def test_a_completed_index_never_runs_again_even_if_its_node_is_gone() -> None:
    job = record("Job", completions=1)
    for node in (Eligibility.LOST, None):
        decision = reconcile_job(job, [seen(job, 0, Phase.SUCCEEDED, node_is=node)])
        assert decision.asks == ()
        assert decision.removals == ()


def test_a_success_that_was_to_be_stopped_is_kept_for_the_index_not_to_run_again() -> None:
    job = record("Job", completions=1)
    success = seen(job, 0, Phase.SUCCEEDED, desired=Desired.STOP)
    decision = reconcile_job(job, [success])
    assert (decision.asks, decision.removals) == ((), ())


def test_an_index_whose_node_is_lost_runs_elsewhere() -> None:
    job = record("Job", completions=1)
    decision = reconcile_job(job, [seen(job, 0, node_is=Eligibility.LOST)])
    assert (asked(decision), stopped(decision)) == ([0], [0])


def test_an_index_on_a_drained_node_stops_before_it_runs_elsewhere() -> None:
    job = record("Job", completions=1)
    first = reconcile_job(job, [seen(job, 0, node_is=Eligibility.DRAINING)])
    assert (asked(first), stopped(first)) == ([], [0])
    stopping = seen(job, 0, Phase.STOPPING, node_is=Eligibility.DRAINING, desired=Desired.STOP)
    assert asked(reconcile_job(job, [stopping])) == []
    ended = seen(job, 0, Phase.STOPPED, node_is=Eligibility.DRAINING, desired=Desired.STOP)
    assert asked(reconcile_job(job, [ended])) == [0]


def test_an_index_that_fails_too_often_fails_the_job_and_stops_the_rest() -> None:
    job = record("Job", completions=3, parallelism=3, retries=0)
    decision = reconcile_job(job, [seen(job, 0, Phase.FAILED), seen(job, 1), seen(job, 2, Phase.SUCCEEDED)])
    assert decision.is_failed
    assert stopped(decision) == [1]
    assert "exit 1" in decision.messages[0]
    assert "after 1 failure" in decision.messages[0]


def test_a_failed_index_is_tried_anew_elsewhere_once_its_backoff_is_over() -> None:
    job = record("Job", completions=1, retries=2, reschedule={"backoff": "10s", "maxBackoff": "1m"})
    early = reconcile_job(job, [seen(job, 0, Phase.FAILED, ended_for_s=4.0)])
    assert (early.asks, early.stops, early.again_after_s) == ((), (), 6.0)
    assert "retry 1 of 2" in early.messages[0]

    failed = seen(job, 0, Phase.FAILED, ended_for_s=10.0)
    due = reconcile_job(job, [failed])
    assert (asked(due), stopped(due)) == ([0], [0])
    assert due.asks[0].avoid == {"n1"}
    assert due.successions[0] == Succession(failed.id, 1)


def test_the_backoff_doubles_with_each_retry() -> None:
    job = record("Job", completions=1, retries=5, reschedule={"backoff": "10s", "maxBackoff": "1m"})
    waits = [reconcile_job(job, [seen(job, 0, Phase.FAILED, reschedules=n)]).again_after_s for n in range(4)]
    assert waits == [10.0, 20.0, 40.0, 60.0]


def test_while_one_index_waits_for_its_retry_another_may_run() -> None:
    job = record("Job", completions=3, retries=2)
    decision = reconcile_job(job, [seen(job, 0, Phase.FAILED)])
    assert asked(decision) == [1]


def test_a_retry_that_finds_no_room_is_not_forgotten_nor_its_count() -> None:
    job = record("Job", completions=1, retries=3)
    stopped_by_us = seen(job, 0, Phase.FAILED, desired=Desired.STOP, reschedules=2, ended_for_s=1e6)
    decision = reconcile_job(job, [stopped_by_us])
    assert asked(decision) == [0]
    assert decision.removals == ()
    assert decision.successions[0].reschedules == 3

    successor = seen(job, 0, node="n22", reschedules=3)
    assert reconcile_job(job, [stopped_by_us, successor]).removals == (stopped_by_us.allocation,)


def test_a_lost_node_is_no_failure_and_the_count_goes_on_behind_it() -> None:
    job = record("Job", completions=1, retries=1)
    lost = seen(job, 0, node_is=Eligibility.LOST, reschedules=1)
    decision = reconcile_job(job, [lost])
    assert decision.successions[0] == Succession(lost.id, 1)
    assert decision.asks[0].avoid == frozenset()
    successor = seen(job, 0, Phase.FAILED, node="n22", reschedules=1)
    gone = seen(job, 0, node_is=Eligibility.LOST, desired=Desired.STOP, reschedules=1)
    assert reconcile_job(job, [gone, successor]).is_failed


def test_a_late_success_on_a_lost_node_counts_and_its_replacement_is_stopped() -> None:
    job = record("Job", completions=2, parallelism=2)
    late = seen(job, 0, Phase.SUCCEEDED, desired=Desired.STOP)
    replacement, other = seen(job, 0, node="n22"), seen(job, 1)
    decision = reconcile_job(job, [late, replacement, other])
    assert stopped(decision) == [0]
    assert (decision.asks, decision.removals, decision.is_complete) == ((), (), False)
    done = reconcile_job(job, [late, seen(job, 1, Phase.SUCCEEDED)])
    assert done.is_complete


def test_a_replaced_one_that_comes_back_is_stopped_and_then_forgotten() -> None:
    job = record("Job", completions=1)
    winner = seen(job, 0, Phase.SUCCEEDED, node="n22")
    back = seen(job, 0, Phase.STOPPED, desired=Desired.STOP)
    running = record("Job", completions=2)
    assert reconcile_job(running, [winner, back]).removals == (back.allocation,)


def test_one_that_was_stopped_on_its_node_runs_anew_and_that_is_no_failure() -> None:
    job = record("Job", completions=1, retries=0)
    decision = reconcile_job(job, [seen(job, 0, Phase.STOPPED)])
    assert (asked(decision), stopped(decision)) == ([0], [0])
    assert decision.successions[0].reschedules == 0


def test_a_finished_job_keeps_its_allocations_for_their_logs() -> None:
    job = record("Job", completions=2, parallelism=2, retries=0)
    allocations = [seen(job, 0, Phase.FAILED), seen(job, 1, Phase.STOPPED, desired=Desired.STOP)]
    decision = reconcile_job(job, allocations)
    assert decision.is_failed
    assert decision.removals == ()


def test_a_higher_retries_takes_a_failed_job_up_again() -> None:
    job, raised = record("Job", retries=0), record("Job", retries=1)
    failed = seen(job, 0, Phase.FAILED, ended_for_s=1e6)
    assert reconcile_job(job, [failed]).is_failed
    assert asked(reconcile_job(raised, [failed])) == [0]


def test_a_lower_parallelism_starts_less_and_stops_nothing() -> None:
    job = record("Job", completions=5, parallelism=1)
    decision = reconcile_job(job, [seen(job, 0), seen(job, 1)])
    assert (decision.asks, decision.stops) == ((), ())


def test_a_cancelled_job_fails_and_says_why() -> None:
    job = record("Job", completions=2).model_copy(update={"cancelled": "it was replaced"})
    decision = reconcile_job(job, [seen(job, 0)])
    assert (decision.is_failed, stopped(decision), decision.messages) == (True, [0], ("it was replaced",))


def test_a_job_that_was_complete_stays_so_if_its_allocations_are_collected() -> None:
    decision = reconcile_job(record("Job", completions=3), [], was_complete=True)
    assert (decision.is_complete, decision.is_failed, decision.asks) == (True, False, ())


def test_a_large_job_is_decided_about_in_a_moment() -> None:
    job = record("Job", completions=10_000, parallelism=10_000)
    allocations = [seen(job, i, Phase.SUCCEEDED if i % 2 else Phase.RUNNING) for i in range(10_000)]
    assert not reconcile_job(job, allocations).is_complete
