"""What may be moved for the sake of the cluster: allocations of services that are at rest. Pure.

Daemons belong to their nodes, and jobs would lose their work. A service in a rollout, or of which something is missing,
has enough to do. What others must be together with stays, so that these needn't follow.
"""

from dataclasses import replace

from control_plane import keys
from control_plane.controllers.asks import ask_of, resolved
from control_plane.controllers.snapshot import eligibility_of
from control_plane.state import ClusterState
from manifests.allocations import Allocation, Desired
from manifests.workloads import Kind, Service, WorkloadRecord
from scheduler.ledger import Ledger
from scheduler.model import Ask, Eligibility

_HOMES = (Eligibility.READY, Eligibility.CORDONED)


def movable(state: ClusterState) -> dict[str, Ask]:
    """Return what each allocation that may be moved asks for, by its id."""
    companions = _companions(state)
    resting: dict[str, list[Allocation]] = {}
    records = []
    for workload in sorted(set(state.workloads.ids()) - companions):
        record = state.workloads.get(workload)
        if record is not None and (found := _at_rest(state, workload, record)):
            resting[workload] = found
            records.append(record)
    asks = resolved([ask_of(record, [0]) for record in records], state)
    return {a.id: replace(ask, indexes=(a.index,)) for ask in asks for a in resting[keys.id_of_ref(ask.workload)]}


def _at_rest(state: ClusterState, workload: str, record: WorkloadRecord) -> list[Allocation]:
    """Return the allocations of a service that has just what it wants; nothing of any other."""
    said = state.workload_statuses.get(workload)
    rollout = said.rollout if said and said.ref.uid == record.uid else None
    if not isinstance(record.workload, Service) or record.paused or said is None or said.blocked:
        return []
    if rollout is None or not rollout.is_over or rollout.target != record.version:
        return []
    present = [a for a in state.allocations_of(workload) if a.desired is not Desired.STOP]
    is_well = len(present) == record.workload.spec.replicas and all(_is_well(state, record, a) for a in present)
    return present if is_well else []


def _is_well(state: ClusterState, record: WorkloadRecord, a: Allocation) -> bool:
    status, node = state.statuses.get(a.id), state.nodes.get(a.node)
    is_present = a.desired is Desired.RUN and a.workload.uid == record.uid and a.version == record.version
    is_home = node is not None and eligibility_of(node, state.intents.get(a.node)) in _HOMES
    return is_present and is_home and status is not None and status.is_ready


def _companions(state: ClusterState) -> set[str]:
    """Return the workloads that others must be together with."""
    return {
        keys.workload_id(record.workload.metadata.namespace, spec.kind, spec.name)
        for record in state.workloads.values()
        for spec in record.workload.spec.placement.together
    }


def lacking(state: ClusterState, ledger: Ledger, record: WorkloadRecord) -> list[Ask]:
    """Return one ask for each allocation of the workload that has no room now, as the leader recorded it."""
    workload = keys.id_of_ref(record.ref)
    said = state.workload_statuses.get(workload)
    if said is None or said.ref.uid != record.uid:
        return []
    count = sum(b.count for b in said.blocked if b.version == record.version)
    wanted = [a for a in state.allocations_of(workload) if a.desired is Desired.RUN]
    if record.ref.kind is Kind.DAEMON:
        nodes = sorted(ledger.nodes.rows.keys() - {a.node for a in wanted}) if count else []
        return resolved([ask_of(record, [0], only_node=node) for node in nodes], state)
    taken = {a.index for a in wanted}
    free = [index for index in range(count + len(taken)) if index not in taken][:count]
    return resolved([ask_of(record, [index]) for index in free], state)
