"""Turns decisions and a plan into fenced transactions, none larger than the store takes.

A placement also compares what it rests on: the workload's record, and the node's intent and status. So nothing is
placed on a node that was cordoned, or on behalf of a workload that was changed, since the snapshot was taken; and no
index of a job runs again that has succeeded meanwhile.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from control_plane import keys
from control_plane.controllers.decision import Stop, Succession
from control_plane.controllers.history import ended_id
from control_plane.records import EndedAllocation
from control_plane.settings import settings_ids
from control_plane.state import ClusterState
from control_plane.store.protocol import (
    ABSENT,
    MOST_BYTES,
    MOST_OPERATIONS,
    Compare,
    CreatedAt,
    Delete,
    ModifiedAt,
    Put,
    Txn,
)
from manifests.allocations import Allocation, Desired, allocation_id
from manifests.nodes import Liveness
from manifests.status import WorkloadStatus
from manifests.workloads import Kind
from scheduler.model import Eviction, Placement, resources_of


@dataclass(frozen=True, slots=True)
class Unit:
    """Writes that belong together, and what must still hold for them."""

    writes: tuple[Put | Delete, ...]
    compares: tuple[Compare, ...] = ()


@dataclass(frozen=True, slots=True)
class Writes:
    """All writes of a pass. What frees comes first, in its order; placements need none of each other."""

    freeing: tuple[Unit, ...] = ()
    placements: tuple[Unit, ...] = ()
    statuses: tuple[Unit, ...] = ()

    @property
    def units(self) -> tuple[Unit, ...]:
        return (*self.freeing, *self.placements, *self.statuses)


def stop_unit(state: ClusterState, stop: Stop) -> Unit:
    """Return the write that has it stopped: for a node's loss only if it is lost still, and not just back."""
    why = {"stop_reason": stop.reason, "evicted_for": stop.evicted_for}
    stopped = stop.allocation.model_copy(update={"desired": Desired.STOP, **why})
    node = state.nodes.get(stopped.node)
    is_there = node.liveness is not Liveness.LOST if node else state.is_unreadable(keys.NODES + stopped.node)
    compares: tuple[Compare, ...] = () if is_there else (_unchanged_node(state, stopped.node),)
    if stopped.id in state.moves:  # which may be taken back meanwhile
        compares = (*compares, ModifiedAt(keys.MOVES + stopped.id, state.moves.modified_at(stopped.id)))
    return Unit((Put(_desired_key(stop.allocation), stopped.to_bytes()),), compares)


def eviction_units(state: ClusterState, evictions: Iterable[Eviction]) -> Iterator[Unit]:
    """Yield the writes that stop what is evicted, if all is as it was by which that was decided.

    That is both workloads, and the settings which say whether anything may be evicted for the one.
    """
    for eviction in evictions:
        if (allocation := state.allocations.get(eviction.allocation)) is not None:
            unit = stop_unit(state, Stop(allocation, eviction.sentence(), evicted_for=eviction.by))
            refs = [keys.id_of_ref(ref) for ref in (eviction.by, eviction.workload)]
            workloads = [ModifiedAt(keys.WORKLOADS + w, state.workloads.modified_at(w)) for w in refs]
            ids = settings_ids(eviction.by.namespace)
            settings = [ModifiedAt(keys.SETTINGS + s, state.settings.modified_at(s)) for s in ids]
            yield Unit(unit.writes, (*unit.compares, *workloads, *settings))


def turn_unit(state: ClusterState, allocation: Allocation) -> Unit:
    """Return the write of what is desired of an allocation whose node was lost or is back, and is so still."""
    return Unit((Put(_desired_key(allocation), allocation.to_bytes()),), (_unchanged_node(state, allocation.node),))


def _unchanged_node(state: ClusterState, node: str) -> ModifiedAt:
    return ModifiedAt(keys.NODES + node, state.nodes.modified_at(node))


def adoption_unit(state: ClusterState, allocation: Allocation) -> Unit:
    """Make the record of an allocation that runs already, provided that its node still says so."""
    key, node = _desired_key(allocation), keys.NODES + allocation.node
    compares = (ModifiedAt(key, ABSENT), ModifiedAt(node, state.nodes.modified_at(allocation.node)))
    return Unit((Put(key, allocation.to_bytes()),), compares)


def removal_unit(state: ClusterState, allocation: Allocation, ended: EndedAllocation | None) -> Unit:
    """Return the end of an allocation's records, and what is kept of it, if it is as it was when that was decided."""
    desired = _desired_key(allocation)
    observed = keys.STATUSES + keys.placed_id(allocation.node, allocation.id)
    compares = (
        ModifiedAt(desired, state.allocations.modified_at(allocation.id)),
        ModifiedAt(observed, state.statuses.modified_at(allocation.id)),
    )
    kept = (Put(keys.ENDED + ended_id(ended), ended.to_bytes()),) if ended else ()
    return Unit((Delete(desired), Delete(observed), *kept), compares)


def placement_unit(
    state: ClusterState, placement: Placement, succession: Succession | None, *, revision: int, wall_s: float
) -> Unit:
    allocation = allocation_of(placement, succession, revision=revision, wall_s=wall_s)
    workload = keys.id_of_ref(placement.workload)
    compares = (
        ModifiedAt(keys.WORKLOADS + workload, state.workloads.modified_at(workload)),
        ModifiedAt(keys.NODE_INTENTS + placement.node, state.intents.modified_at(placement.node)),
        ModifiedAt(keys.NODES + placement.node, state.nodes.modified_at(placement.node)),
        *_of_formers(state, placement),
    )
    return Unit((Put(_desired_key(allocation), allocation.to_bytes()),), compares)


def allocation_of(placement: Placement, succession: Succession | None, *, revision: int, wall_s: float) -> Allocation:
    """Return the allocation that the placement makes, of the plan at that revision."""
    return Allocation(
        id=allocation_id(placement.workload, placement.index, revision),
        workload=placement.workload,
        version=placement.version,
        index=placement.index,
        node=placement.node,
        reserved=resources_of(placement.reserved),
        ports=placement.ports,
        devices=dict(placement.devices),
        why=placement.why,
        created_s=wall_s,
        replaces=succession.replaces if succession else None,
        reschedules=succession.reschedules if succession else 0,
    )


def _of_formers(state: ClusterState, placement: Placement) -> Iterator[Compare]:
    """Yield that nothing new is known of what had a job's index before: word may have come that it succeeded."""
    if placement.workload.kind is not Kind.JOB:
        return
    for former in state.allocations_of(keys.id_of_ref(placement.workload)):
        if former.index == placement.index:
            key = keys.STATUSES + keys.placed_id(former.node, former.id)
            yield ModifiedAt(key, state.statuses.modified_at(former.id))


def status_unit(state: ClusterState, workload: str, status: WorkloadStatus) -> Unit:
    compare = ModifiedAt(keys.WORKLOADS + workload, state.workloads.modified_at(workload))
    return Unit((Put(keys.WORKLOAD_STATUSES + workload, status.to_bytes()),), (compare,))


def batches(
    fence: CreatedAt, writes: Writes, *, also: Sequence[Compare] = (), at_once: int
) -> Iterator[tuple[Txn, ...]]:
    """Yield what to commit, one batch after the other; the transactions of a batch need none of each other.

    What fits into one transaction is one.
    """
    first, second = islice(chain(transactions(fence, writes.units, also=also), (None, None)), 2)
    if first is not None and second is None:
        yield (first,)
        return
    for units, size in ((writes.freeing, 1), (writes.placements, at_once), (writes.statuses, 1)):
        txns = transactions(fence, units, also=also)
        while batch := tuple(islice(txns, size)):
            yield batch


def transactions(fence: CreatedAt, units: Iterable[Unit], *, also: Sequence[Compare] = ()) -> Iterator[Txn]:
    """Yield transactions that hold the units in order, as few as the store's limits let.

    Each compares the fence, and `also` what all writes depend on.
    """
    always = dict.fromkeys((fence, *also))
    compares: dict[Compare, None] = dict(always)
    writes: list[Put | Delete] = []
    size = 0
    for unit in units:
        compared = len(compares) + sum(c not in compares for c in unit.compares)
        is_full = compared > MOST_OPERATIONS or len(writes) + len(unit.writes) > MOST_OPERATIONS
        if writes and (is_full or size + _size_of(unit) > MOST_BYTES):
            yield Txn(tuple(compares), tuple(writes))
            compares, writes, size = dict(always), [], 0
        compares.update(dict.fromkeys(unit.compares))
        writes.extend(unit.writes)
        size += _size_of(unit)
    if writes:
        yield Txn(tuple(compares), tuple(writes))


def _size_of(unit: Unit) -> int:
    keys_size = sum(len(part.key) for part in (*unit.writes, *unit.compares))
    return keys_size + sum(len(write.value) for write in unit.writes if isinstance(write, Put))


def _desired_key(allocation: Allocation) -> str:
    return keys.ALLOCATIONS + keys.placed_id(allocation.node, allocation.id)
