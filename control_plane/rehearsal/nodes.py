"""Ideal nodes: what is told to run is ready at once, what is told to stop has stopped; what is lost does nothing."""

from collections.abc import Iterable, Iterator

from control_plane import keys
from control_plane.state import ClusterState
from control_plane.store.protocol import Put
from manifests.allocations import Allocation, AllocationStatus, Desired, Health, Phase
from manifests.nodes import Liveness

_ON_THE_WAY = frozenset({Phase.PENDING, Phase.PULLING, Phase.STARTING})


def obeyed(state: ClusterState, allocations: Iterable[str]) -> Iterator[Put]:
    """Yield what nodes write once they have done what they are told; nothing where they have.

    What already fails goes on failing: who says that it would work here and now?
    """
    for id_ in allocations:
        allocation = state.allocations.get(id_)
        if allocation is None:
            continue
        known = state.statuses.get(id_)
        phase = _next_phase(allocation, known)
        node = state.nodes.get(allocation.node) if phase else None
        if phase is not None and node is not None and node.liveness is not Liveness.LOST:
            status = _status(allocation, known, phase)
            yield Put(keys.STATUSES + keys.placed_id(allocation.node, id_), status.to_bytes())


def _next_phase(allocation: Allocation, known: AllocationStatus | None) -> Phase | None:
    if known is not None and known.is_terminal:
        return None
    if allocation.desired is Desired.STOP:
        return Phase.STOPPED
    if allocation.desired is not Desired.RUN:
        return None
    is_coming = known is None or known.phase in _ON_THE_WAY
    is_unchecked = known is not None and known.phase is Phase.RUNNING and known.health is Health.UNKNOWN
    return Phase.RUNNING if is_coming or is_unchecked else None


def _status(a: Allocation, known: AllocationStatus | None, phase: Phase) -> AllocationStatus:
    status = known or AllocationStatus(
        id=a.id, node=a.node, workload=a.workload, version=a.version, index=a.index, phase=phase
    )
    health = Health.HEALTHY if phase is Phase.RUNNING else Health.UNKNOWN
    return status.model_copy(update={"phase": phase, "health": health, "message": "", "next_attempt_s": None})
