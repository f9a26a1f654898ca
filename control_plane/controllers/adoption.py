"""After a restore: takes over what runs from before it, where the restored state would start the same anew. Pure.

Nodes keep running what the restored state knows nothing of, and say so. Where such an allocation is of a workload and a
version that were restored, and its slot is empty or waits to be started, it gets its slot back. All else stays as it is
until an operator releases it: a restore is no reason to stop anything.
"""

from collections.abc import Mapping, Sequence

from control_plane.controllers.decision import Decision, Seen, Stop
from manifests.allocations import Allocation, Desired, Phase
from manifests.workloads import JobSpec, ServiceSpec, VersionRecord, WorkloadRecord

_NOT_YET = frozenset({Phase.PENDING, Phase.PULLING, Phase.STARTING})


def adopt(
    record: WorkloadRecord, seen: Sequence[Seen], kept: Sequence[Allocation], versions: Mapping[int, VersionRecord]
) -> Decision | None:
    """Return which of the kept ones get their slots back, and what is stopped that was to start there; None if none."""
    known = {s.id for s in seen}
    slots = {s.allocation.index: s for s in seen if s.is_wanted}
    adopted: dict[int, Allocation] = {}
    stops: list[Stop] = []
    for allocation in sorted(kept, key=lambda a: (a.index, -a.created_s, a.id)):
        index = allocation.index
        is_ours = allocation.workload.uid == record.uid and allocation.version in versions
        if not is_ours or allocation.id in known or index in adopted or not _is_needed(record, seen, index):
            continue
        holder = slots.get(index)
        if holder is not None and not _waits(holder):
            continue
        adopted[index] = allocation.model_copy(update={"desired": Desired.RUN, "stop_reason": ""})
        if holder is not None:
            stops.append(Stop(holder.allocation, f"{allocation.id} runs in its place since before the restore"))
    return Decision(stops=tuple(stops), adoptions=tuple(adopted.values())) if adopted else None


def _waits(holder: Seen) -> bool:
    """Say whether nothing of it runs: its node is there, and it isn't started yet; or its node is not there."""
    return holder.is_out_of_reach or holder.phase in _NOT_YET


def _is_needed(record: WorkloadRecord, seen: Sequence[Seen], index: int) -> bool:
    spec = record.workload.spec
    match spec:
        case ServiceSpec():
            return index < spec.replicas
        case JobSpec():
            succeeded = {s.allocation.index for s in seen if s.phase is Phase.SUCCEEDED}
            return index < spec.completions and index not in succeeded
        case _:
            return True
