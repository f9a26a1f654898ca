"""Which marked allocations move now. Pure.

One of a workload at a time, and only while the workload lacks nothing: so what is asked for then takes the moved one's
place, and has nobody evicted. To the reconciler a moved one is like one on a node that is drained. The marks of what is
done, or matters no more, the collector takes away; see `is_over`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from control_plane import keys
from control_plane.controllers.decision import Leaving
from control_plane.state import ClusterState
from manifests.allocations import Allocation, Desired
from manifests.moves import MoveRecord
from manifests.nodes import Liveness
from manifests.workloads import Service, WorkloadRecord
from scheduler.model import Ask


def moving(state: ClusterState, workload: str) -> MoveRecord | None:
    """Return the move of the workload that is under way or may begin now."""
    if not len(state.moves):
        return None
    allocations = state.allocations_of(workload)
    marked = [move for a in allocations if (move := state.moves.get(a.id))]
    record = state.workloads.get(workload)
    if not marked or record is None or record.paused or not _is_whole(state, record, allocations):
        return None
    ready = (m for m in marked if not is_over(state, m) and _is_ready(state, m.allocation))
    return min(ready, key=lambda m: m.allocation, default=None)


def leaving_by_move(move: MoveRecord) -> Leaving:
    return Leaving(move.sentence())


def is_over(state: ClusterState, move: MoveRecord) -> bool:
    """Say whether the move is done, or would not be made any more: then its mark may go.

    While its allocation is being stopped the mark stays: what takes its place may be yet to be placed.
    """
    a, record = state.allocations.get(move.allocation), state.workloads.get(keys.id_of_ref(move.workload))
    if a is None or a.desired is Desired.SPARE or a.node != move.from_node or record is None:
        return True
    if record.uid != move.workload.uid or record.version != move.version:
        return True
    return a.desired is Desired.RUN and not _is_open(state, move.to_node)


def _is_open(state: ClusterState, node: str) -> bool:
    status, intent = state.nodes.get(node), state.intents.get(node)
    is_closed = intent is not None and (intent.is_cordoned or intent.is_draining)
    return status is not None and status.liveness is not Liveness.LOST and not is_closed


def _is_whole(state: ClusterState, record: WorkloadRecord, allocations: Iterable[Allocation]) -> bool:
    """Say whether all that the service wants is there and serves, and no rollout of it is under way."""
    said = state.workload_statuses.get(keys.id_of_ref(record.ref))
    rollout = said.rollout if said and said.ref.uid == record.uid else None
    if not isinstance(record.workload, Service) or rollout is None:
        return False
    if not rollout.is_over or (rollout.version, rollout.target) != (record.version, record.version):
        return False
    mine = (a for a in allocations if a.workload.uid == record.uid and a.version == record.version)
    serving = sum(a.desired is Desired.RUN and _is_ready(state, a.id) for a in mine)
    return serving >= record.workload.spec.replicas


def _is_ready(state: ClusterState, allocation: str) -> bool:
    a, status = state.allocations.get(allocation), state.statuses.get(allocation)
    node = state.nodes.get(a.node) if a else None
    is_there = node is not None and node.liveness is not Liveness.LOST
    return is_there and a is not None and a.desired is Desired.RUN and status is not None and status.is_ready


def with_moves(asks: Sequence[Ask], state: ClusterState) -> list[Ask]:
    """Return the asks for what takes a moved one's place, which prefer its target, and avoid what is to be left."""
    if not len(state.moves):
        return list(asks)
    left = frozenset(move.from_node for move in state.moves.values())
    return [_with_move(ask, state, left) for ask in asks]


def _with_move(ask: Ask, state: ClusterState, left: frozenset[str]) -> Ask:
    workload = keys.id_of_ref(ask.workload)
    move = moving(state, workload)
    if move is not None:
        return replace(ask, prefer=frozenset({move.to_node}), avoid=ask.avoid | left, preempts=False)
    stopped = [a for a in state.allocations_of(workload) if a.desired is Desired.STOP]
    targets = frozenset(m.to_node for a in stopped if (m := state.moves.get(a.id)))
    return replace(ask, prefer=targets, avoid=ask.avoid | left) if targets else ask
