"""Reconciles a Job: each index runs until it has succeeded once, so many at a time. Pure.

An index that has succeeded never runs again. One that has failed, after its restarts in place, fails the job, and the
rest is stopped; one whose node is lost runs anew elsewhere.
"""

from collections.abc import Sequence

from control_plane.controllers.decision import (
    Decision,
    Seen,
    Stop,
    Succession,
    ask_of,
    failed_reason,
    lost_reason,
    removals_of,
)
from manifests.allocations import Allocation, Phase
from manifests.workloads import JobSpec, WorkloadRecord
from scheduler.model import Eligibility


def reconcile_job(record: WorkloadRecord, seen: Sequence[Seen]) -> Decision:
    """Return what brings the job nearer to its end; nothing once it has ended."""
    spec = record.workload.spec
    assert isinstance(spec, JobSpec)
    succeeded = {s.allocation.index for s in seen if s.phase is Phase.SUCCEEDED}
    failed = [s for s in seen if s.is_wanted and s.phase is Phase.FAILED]
    running = [s for s in seen if s.is_wanted and not s.has_ended]
    proofs = {s.id for s in seen if s.phase is Phase.SUCCEEDED}  # that their index must never run again
    gone = tuple(a for a in removals_of(seen) if a.id not in proofs)
    if failed:
        stops = tuple(Stop(s.allocation, "the job has failed") for s in running)
        messages = tuple(f"allocation {s.id}: {failed_reason(s)}" for s in failed[:3])
        return Decision(stops=stops, removals=gone, messages=messages, is_complete=True, is_failed=True)
    if len(succeeded) >= spec.completions:
        stops = tuple(Stop(s.allocation, "the job is complete") for s in running)
        return Decision(stops=stops, removals=gone, is_complete=True)
    return _next_indexes(record, spec, seen, running, succeeded, gone)


def _next_indexes(
    record: WorkloadRecord,
    spec: JobSpec,
    seen: Sequence[Seen],
    running: Sequence[Seen],
    succeeded: set[int],
    gone: tuple[Allocation, ...],
) -> Decision:
    lost = {s.allocation.index: s for s in running if s.is_out_of_reach}
    drained = [s for s in running if s.node is Eligibility.DRAINING]
    busy = ({s.allocation.index for s in running} - lost.keys()) | _still_stopping(seen)
    count = spec.parallelism - len(busy)
    todo = [i for i in range(spec.completions) if i not in succeeded and i not in busy]
    indexes = sorted(todo, key=lambda i: (i not in lost, i))[: max(0, count)]
    return Decision(
        stops=(
            *(Stop(s.allocation, lost_reason(s)) for s in lost.values()),
            *(Stop(s.allocation, f"node {s.allocation.node} is being drained") for s in drained),
        ),
        asks=(ask_of(record, indexes),) if indexes else (),
        successions={i: Succession(lost[i].id) for i in indexes if i in lost},
        removals=gone,
    )


def _still_stopping(seen: Sequence[Seen]) -> set[int]:
    """Return the indexes that are being stopped within reach: the same index doesn't run twice at once."""
    return {s.allocation.index for s in seen if not s.is_wanted and not s.has_ended and not s.is_out_of_reach}
