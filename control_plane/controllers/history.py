"""What is kept of allocations that ended, once their records go: the newest failures, and the newest other ends. Pure.

Failures have places of their own, so that a rollout of many replicas doesn't push out why one of them died. The history
of a workload goes with the workload.
"""

from collections.abc import Iterable, Mapping, Sequence

from control_plane import keys
from control_plane.records import EndedAllocation
from control_plane.state import ClusterState
from manifests.allocations import Allocation, AllocationStatus

KEPT_FAILURES = 5  # of each workload
KEPT_OTHERS = 5


def ended_id(ended: EndedAllocation) -> str:
    """Return what its key ends with: `default/service/web/web-0-1f3a9c2e`."""
    return f"{keys.id_of_ref(ended.workload)}/{ended.id}"


def newest(ended: Iterable[EndedAllocation]) -> list[EndedAllocation]:
    """Return those of one workload that are kept, newest first."""
    ordered = sorted(ended, key=lambda e: (e.finished_s, e.id), reverse=True)
    failures = [e for e in ordered if e.has_failed][:KEPT_FAILURES]
    others = [e for e in ordered if not e.has_failed][:KEPT_OTHERS]
    return sorted((*failures, *others), key=lambda e: (e.finished_s, e.id), reverse=True)


def kept_of(state: ClusterState, removals: Sequence[Allocation], wall_s: float) -> Mapping[str, EndedAllocation]:
    """Return what to keep of one workload's allocations that are being removed, by id: never more than is kept in all.

    Nothing is kept of a workload that is gone, or of an earlier life of its name.
    """
    ended = []
    for a in removals:
        record = state.workloads.get(keys.id_of_ref(a.workload))
        if record is not None and record.uid == a.workload.uid:
            ended.append(ended_of(a, state.statuses.get(a.id), wall_s))
    return {e.id: e for e in newest(ended)}


def ended_of(a: Allocation, status: AllocationStatus | None, wall_s: float) -> EndedAllocation:
    has_ended = status is not None and status.is_terminal
    ending = status.last_ending if status else None
    return EndedAllocation(
        id=a.id,
        workload=a.workload,
        version=a.version,
        index=a.index,
        node=a.node,
        phase=status.phase.value if status and has_ended else "lost",
        stop_reason=a.stop_reason,
        last_ending=ending,
        restarts=status.attempt - 1 if status else 0,
        replaces=a.replaces,
        created_s=a.created_s,
        started_s=status.started_s if status else None,
        finished_s=ending.finished_s if ending and status and ending.attempt == status.attempt else wall_s,
    )
