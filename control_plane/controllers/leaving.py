"""Which allocations must leave their nodes, why, and by when: the node is drained, or has taints that hurt them.

Between the cache and the reconcilers, which treat all of them as on a node that is being drained.

Daemons leave a drained node last: what serves the others there, such as a log shipper, stays until they are gone.
"""

from control_plane import keys
from control_plane.controllers.ages import Ages
from control_plane.controllers.decision import Leaving
from control_plane.state import ClusterState
from manifests.allocations import Allocation
from manifests.nodes import NodeIntent
from manifests.quantities import render_duration
from manifests.taints import Effect, Toleration, parse_taint, parse_toleration, untolerated
from manifests.workloads import Kind


def leaving_of(state: ClusterState, a: Allocation, ages: Ages) -> Leaving | None:
    """Return why the allocation must leave its node, None if it may stay for now."""
    intent = state.intents.get(a.node)
    if intent is None:
        return None
    if intent.is_draining:
        leaving = _drain(intent, ages)
        waits = a.workload.kind is Kind.DAEMON and not leaving.is_overdue and _has_others(state, a.node)
        return None if waits else leaving
    taints = [t for t in map(parse_taint, intent.taints) if t.effect is Effect.NO_EXECUTE]
    hurting = next(untolerated(taints, _tolerations(state, a)), None) if taints else None
    return Leaving(f"node {a.node} has the taint {hurting}, which isn't tolerated") if hurting else None


def _drain(intent: NodeIntent, ages: Ages) -> Leaving:
    reason = f"node {intent.name} is being drained"
    if intent.drain_deadline_s is None:
        return Leaving(reason)
    left_s = intent.drain_deadline_s - ages.draining_for_s(intent.name)
    if left_s <= 0:
        reason += f", and its deadline of {render_duration(intent.drain_deadline_s)} has passed"
    return Leaving(reason, left_s)


def _has_others(state: ClusterState, node: str) -> bool:
    """Say whether anything but daemons still holds resources there."""
    for a in state.allocations_on(node):
        status = state.statuses.get(a.id)
        if a.workload.kind is not Kind.DAEMON and not (status and status.is_terminal):
            return True
    return False


def _tolerations(state: ClusterState, a: Allocation) -> list[Toleration]:
    """Return what the allocation tolerates, by its own version."""
    workload = keys.id_of_ref(a.workload)
    known = state.versions_of(workload).get(a.version) or state.workloads.get(workload)
    return [parse_toleration(t) for t in known.workload.spec.placement.tolerations] if known else []
