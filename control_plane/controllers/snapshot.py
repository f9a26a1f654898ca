"""Turns records of the watch cache into what the pure parts look at."""

from collections.abc import Collection, Mapping

from control_plane import keys
from control_plane.controllers.ages import Ages
from control_plane.controllers.decision import Leaving, Seen
from control_plane.controllers.leaving import leaving_of
from control_plane.controllers.moving import leaving_by_move, moving
from control_plane.state import ClusterState
from manifests.allocations import Allocation, Desired
from manifests.nodes import Liveness, NodeIntent, NodeStatus
from manifests.taints import parse_taint
from manifests.workloads import DEFAULT_PRIORITY
from scheduler.model import Eligibility, NodeView, PlacedAllocation, vector_of


def holds_resources(state: ClusterState, allocation: Allocation) -> bool:
    """Say whether its reservation counts: until its node has said that it ended."""
    status = state.statuses.get(allocation.id)
    return status is None or not status.is_terminal


def node_view(state: ClusterState, name: str) -> NodeView:
    status, intent = state.nodes.get(name), state.intents.get(name)
    assert status is not None
    eligibility = eligibility_of(status, intent)
    if eligibility is Eligibility.READY and state.is_unreadable(keys.NODE_INTENTS + name):
        eligibility = Eligibility.CORDONED  # nobody can tell whether it is
    return NodeView(
        name=name,
        eligibility=eligibility,
        labels=labels_of(status, intent),
        attributes=_attributes_of(status),
        allocatable=vector_of(status.facts.allocatable),
        taints=tuple(parse_taint(t) for t in intent.taints) if intent else (),
        devices=status.facts.devices,
    )


def _attributes_of(status: NodeStatus) -> Mapping[str, str]:
    """Return the node's attributes; the volumes that it keeps count as one, which pins who has them."""
    facts = status.facts
    return {**facts.attributes, "volumes": ",".join(facts.volumes)} if facts.volumes else facts.attributes


def eligibility_of(status: NodeStatus, intent: NodeIntent | None) -> Eligibility:
    if status.liveness is Liveness.LOST:
        return Eligibility.LOST
    if intent and intent.is_draining:
        return Eligibility.DRAINING  # also while it is suspect: a short silence doesn't take a drain back
    if status.liveness is Liveness.SUSPECT:
        return Eligibility.SUSPECT
    if intent and intent.is_cordoned:
        return Eligibility.CORDONED
    return Eligibility.TROUBLED if status.trouble else Eligibility.READY


def labels_of(status: NodeStatus, intent: NodeIntent | None) -> Mapping[str, str]:
    """Return the node's labels: those that its agent was started with, and over them those that operators set."""
    return {**status.facts.labels, **(intent.labels if intent else {})}


def seen_of(state: ClusterState, workload: str, ages: Ages) -> list[Seen]:
    """Return all allocations of the workload of that id, of whichever life of it."""
    move = moving(state, workload)
    return [
        _seen(state, a, ages, leaving_by_move(move) if move and move.allocation == a.id else None)
        for a in state.allocations_of(workload)
    ]


def _seen(state: ClusterState, a: Allocation, ages: Ages, moves: Leaving | None) -> Seen:
    status, host = state.statuses.get(a.id), state.nodes.get(a.node)
    node = _eligibility(state, a.node, host)
    leaving = (leaving_of(state, a, ages) or moves) if node not in (None, Eligibility.LOST) else None
    if leaving:
        node = Eligibility.DRAINING
    elif node is Eligibility.DRAINING:
        node = Eligibility.CORDONED  # it may stay for now
    known = ages.of(a, status, host)
    return Seen(
        a,
        status,
        node,
        ended_for_s=known.ended_for_s,
        ready_for_s=min(known.ready_for_s, known.back_for_s),  # silence proves nothing
        lost_for_s=known.lost_for_s,
        back_for_s=known.back_for_s,
        leaving=leaving,
    )


def kept_since_restore(state: ClusterState, workload: str, without: Collection[str]) -> list[Allocation]:
    """Return what nodes keep of the workload from before a restore, at versions that were restored with it.

    A version of the same number that was made since the restore may be another one. `without` are nodes to pass over.
    """
    cluster = state.cluster.stored("")
    restored_at = cluster.modified_at if cluster else 0
    return [
        a
        for a in _all_kept(state)
        if keys.id_of_ref(a.workload) == workload
        and a.node not in without
        and (version := state.versions.stored(keys.version_id(workload, a.version)))
        and version.created_at <= restored_at
    ]


def _all_kept(state: ClusterState) -> list[Allocation]:
    """Return what nodes keep running and has no record, in an order that is always the same."""
    kept = [a for node in state.nodes.values() for a in node.kept if a.id not in state.allocations]
    return sorted(kept, key=lambda a: a.id)


def _eligibility(state: ClusterState, name: str, status: NodeStatus | None) -> Eligibility | None:
    if state.is_unreadable(keys.NODES + name):
        return Eligibility.TROUBLED  # it may be well: what runs there stays
    return eligibility_of(status, state.intents.get(name)) if status else None


def placed(a: Allocation, priority: int = DEFAULT_PRIORITY) -> PlacedAllocation:
    """Return what the scheduler knows of the allocation. Its priority is its workload's, as it is now."""
    return PlacedAllocation(
        id=a.id,
        workload=a.workload,
        version=a.version,
        index=a.index,
        node=a.node,
        reserved=vector_of(a.reserved),
        ports=a.ports,
        is_wanted=a.desired is Desired.RUN,
        devices=tuple(sorted(a.devices.items())),
        priority=priority,
        created_s=a.created_s,
        is_leaving=a.desired is Desired.STOP,
    )


def workload_ids(state: ClusterState) -> set[str]:
    """Return the ids of all workloads, and of those that are gone but have something left."""
    left_over = {version.rpartition("/")[0] for version in state.versions.ids()}
    crons = {*state.crons.ids(), *state.owners()}
    return {
        *state.workloads.ids(),
        *state.workloads_with_allocations(),
        *state.workload_statuses.ids(),
        *left_over,
        *crons,
    }
