"""What a Job's reconciler decides, case by case."""

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


def test_the_loser_of_an_index_that_ran_twice_is_removed_and_the_success_is_kept() -> None:
    job = record("Job", completions=1)
    success = seen(job, 0, Phase.SUCCEEDED, node="n22")
    loser = seen(job, 0, Phase.STOPPED, node="n1", desired=Desired.STOP)
    assert reconcile_job(job, [loser, success]).removals == (loser.allocation,)


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


def test_a_failed_index_fails_the_job_and_stops_the_rest() -> None:
    job = record("Job", completions=3, parallelism=3)
    decision = reconcile_job(job, [seen(job, 0, Phase.FAILED), seen(job, 1), seen(job, 2, Phase.SUCCEEDED)])
    assert decision.is_failed
    assert stopped(decision) == [1]
    assert "exit 1" in decision.messages[0]
