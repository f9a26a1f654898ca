"""Who evicts nothing for now: what fails over and over would take others' places each time anew."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from control_plane import keys
from control_plane.state import ClusterState
from manifests.allocations import Phase
from manifests.workloads import WorkloadRef
from scheduler.model import Ask

WINDOW_S = 600.0
MOST_FAILURES = 2  # within that time; from then on it waits for room like others
FAILING = "2 of its allocations or more have failed within 10m"
CALMED = f"it evicts nothing for now: {FAILING}"


def failing_of(state: ClusterState, evicting: Iterable[WorkloadRef], wall_s: float) -> set[str]:
    """Return the workloads among these of whose present version too many have failed lately."""
    records = {keys.id_of_ref(ref): state.workloads.get(keys.id_of_ref(ref)) for ref in evicting}
    lives = {(record.uid, record.version): workload for workload, record in records.items() if record}
    if not lives:
        return set()
    failures: Counter[str] = Counter()
    for ended in state.ended.values():
        workload = lives.get((ended.workload.uid, ended.version))
        if workload and ended.phase == Phase.FAILED and wall_s - ended.finished_s < WINDOW_S:
            failures[workload] += 1
    for workload in lives.values():
        for a in state.allocations_of(workload):
            status = state.statuses.get(a.id)
            has_failed = status is not None and status.phase is Phase.FAILED and a.evicted_for is None
            failures[workload] += has_failed and (a.workload.uid, a.version) in lives
    return {workload for workload, count in failures.items() if count >= MOST_FAILURES}


def calmed(asks: Sequence[Ask], failing: set[str]) -> tuple[Ask, ...]:
    """Return the asks of which those of failing workloads evict nothing, and wait for room like others."""
    return tuple(replace(ask, preempts=False) if keys.id_of_ref(ask.workload) in failing else ask for ask in asks)
