"""The life of an allocation is a table; a test walks it."""

from itertools import product

import pytest

from manifests.allocations import NEXT, TERMINAL, AllocationStatus, Health, Phase, advance, next_attempt
from manifests.workloads import Kind, WorkloadRef

REF = WorkloadRef(namespace="default", kind=Kind.SERVICE, name="web", uid="u1")


def status(phase: Phase) -> AllocationStatus:
    return AllocationStatus(
        id="web-0-1", node="n1", workload=REF, version=1, index=0, phase=phase, message="busy", next_attempt_s=5.0
    )


def test_every_phase_has_its_row() -> None:
    assert set(NEXT) == set(Phase)


def test_exactly_the_terminal_phases_are_never_left() -> None:
    assert {phase for phase in Phase if not NEXT[phase]} == TERMINAL


def test_phases_never_move_back() -> None:
    reachable = {phase: set(NEXT[phase]) for phase in Phase}
    for _ in Phase:
        reachable = {p: to | {q for step in to for q in reachable[step]} for p, to in reachable.items()}
    assert all(phase not in reachable[phase] for phase in Phase)


def test_every_phase_can_end() -> None:
    assert all(NEXT[phase] & TERMINAL for phase in set(Phase) - TERMINAL)


@pytest.mark.parametrize(("here", "there"), list(product(Phase, Phase)))
def test_a_step_is_taken_if_and_only_if_it_is_in_the_table(here: Phase, there: Phase) -> None:
    before = status(here)
    if there in NEXT[here]:
        after = advance(before, there, attempt=3)
        assert (after.phase, after.attempt, after.message, after.next_attempt_s) == (there, 3, "", None)
    else:
        with pytest.raises(ValueError, match=f"web-0-1, attempt 1, can't go from {here} to {there}"):
            advance(before, there)
    assert before == status(here)


def test_a_new_attempt_begins_pending_with_nothing_of_the_old_one() -> None:
    after = next_attempt(status(Phase.BACKOFF).model_copy(update={"health": Health.UNHEALTHY, "container_id": "c"}))
    assert (after.phase, after.attempt, after.health, after.container_id) == (Phase.PENDING, 2, Health.UNKNOWN, "")


@pytest.mark.parametrize("phase", sorted(set(Phase) - {Phase.BACKOFF}))
def test_a_new_attempt_begins_from_backoff_only(phase: Phase) -> None:
    with pytest.raises(ValueError, match="from backoff only"):
        next_attempt(status(phase))


def test_ready_is_running_and_healthy() -> None:
    healthy = {"health": Health.HEALTHY}
    assert status(Phase.RUNNING).model_copy(update=healthy).is_ready
    assert not status(Phase.RUNNING).is_ready
    assert not status(Phase.STOPPING).model_copy(update=healthy).is_ready
