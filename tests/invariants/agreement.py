"""L1 and L2: what is desired, what is observed and what really runs are one, and it is what users asked for.

For a quiet cluster: while things are under way, of course they differ.
"""

from collections.abc import Iterator, Mapping

from agent.tracked import SANDBOX
from control_plane import keys
from manifests.allocations import Allocation, Desired, Phase
from manifests.constraints import parse_constraint
from manifests.nodes import Liveness
from manifests.rollouts import RolloutState
from manifests.workloads import DaemonSpec, JobSpec, Kind, ServiceSpec, Workload, WorkloadRecord
from tests.invariants.records import Records
from tests.invariants.running import RunningChecker
from tests.invariants.steps import Breach


def differences(
    records: Records, running: RunningChecker, wanted: Mapping[str, Workload], nodes: frozenset[str]
) -> Iterator[Breach]:
    """Yield how things differ from what users want, `wanted`, on nodes that are all there."""
    yield from _of_nodes(records, nodes)
    for id_ in sorted(wanted.keys() | records.workloads.keys()):
        record = records.workloads.get(id_)
        if record is None or id_ not in wanted:
            yield Breach("S14", f"{id_} is {'wanted' if record is None else 'there'}, and should not be so")
        elif record.workload != wanted[id_]:
            yield Breach("S14", f"{id_} isn't what its user was told is stored")
        else:
            yield from _of_workload(id_, record, records, running)
    yield from _left_over(records, wanted)
    yield from running.unwanted()


def _of_nodes(records: Records, nodes: frozenset[str]) -> Iterator[Breach]:
    if not records.leader:
        yield Breach("L4", "nobody leads")
    for name in sorted(nodes):
        node = records.nodes.get(name)
        if node is None or node.liveness is not Liveness.READY or node.trouble:
            yield Breach("L8", f"node {name} isn't ready")
        elif node.server not in records.servers:
            yield Breach("L8", f"node {name} has its session with {node.server}, which is gone")


def _of_workload(id_: str, record: WorkloadRecord, records: Records, running: RunningChecker) -> Iterator[Breach]:
    wanted = [a for a in records.of_workload[record.uid].values() if a.desired is Desired.RUN]
    status = records.workload_statuses.get(id_)
    if status is None or status.generation != record.generation:
        yield Breach("L1", f"the leader has not answered generation {record.generation} of {id_}")
        return
    spec = record.workload.spec
    if isinstance(spec, JobSpec):
        if not status.is_complete and not status.blocked:
            yield Breach("L1", f"job {id_} isn't complete")
        return
    for allocation in wanted:
        if not (status.blocked and records.has_ended(allocation.id)):  # it stays until its slot's next one has a place
            yield from _of_allocation(allocation, record, records, running)
    rollout = status.rollout
    may_wait = (
        status.blocked and rollout is not None and rollout.state in (RolloutState.FAILED, RolloutState.PROGRESSING)
    )
    if rollout is not None and not rollout.is_over and not may_wait:
        yield Breach("L7", f"the rollout of {id_} is {rollout.state}: {rollout.message}")
    if status.blocked:
        return  # L2: it says why it can't have more
    yield from _of_contents(id_, record, records)
    if isinstance(spec, ServiceSpec):
        indexes = sorted(a.index for a in wanted)
        if len(indexes) != spec.replicas:
            yield Breach("L2", f"{id_} has the indexes {indexes} and should have {spec.replicas}")
    if isinstance(spec, DaemonSpec):
        yield from _of_daemon(id_, spec, wanted, records)


def _of_contents(id_: str, record: WorkloadRecord, records: Records) -> Iterator[Breach]:
    """A config's change renews who names it; only who went back names an older content."""
    version = records.versions.get(keys.version_id(id_, record.version))
    if version is None or version.cause.startswith("undo"):
        return
    for name, number in version.configs.items():
        config = records.configs.get(keys.config_id(record.ref.namespace, name))
        if config is None or config.version != number:
            yield Breach("L1", f"{id_} names version {number} of config {name}, which has changed since")


def _of_daemon(id_: str, spec: DaemonSpec, wanted: list[Allocation], records: Records) -> Iterator[Breach]:
    assert not [parse_constraint(c) for c in spec.placement.constraints]  # such daemons go to all nodes
    served = {a.node for a in wanted}
    for name in sorted(records.nodes):
        intent = records.intents.get(name)
        if (intent is None or not (intent.is_cordoned or intent.is_draining)) and name not in served:
            yield Breach("L2", f"{id_} is missing on {name}")


def _of_allocation(
    allocation: Allocation, record: WorkloadRecord, records: Records, running: RunningChecker
) -> Iterator[Breach]:
    status = records.statuses.get(allocation.id)
    phase = status.phase if status else Phase.PENDING
    if status is None or not status.is_ready:
        yield Breach("L1", f"{allocation.id} on {allocation.node} is {phase} and not ready")
        return
    if record.workload.spec.is_group:
        names = sorted(one.name for one in running.of(allocation.id))
        if names != sorted([SANDBOX, *(member.name for member in record.workload.spec.containers)]):
            yield Breach("L1", f"{allocation.id} is said to run, and of its group run {names}")
    elif [one.container for one in running.of(allocation.id)] != [status.container_id]:
        found = [one.container for one in running.of(allocation.id)]
        yield Breach("L1", f"{allocation.id} is said to run as {status.container_id}, and runs as {found}")
    answer = records.workload_statuses[keys.id_of_ref(allocation.workload)]
    is_blocked = bool(answer.blocked)
    has_turned_back = answer.rollout is not None and answer.rollout.is_reverting
    target = answer.rollout.target if answer.rollout is not None and has_turned_back else record.version
    if allocation.version != target and not is_blocked:
        yield Breach("L7", f"{allocation.id} is of version {allocation.version}, not {target}")
    waits = isinstance(record.workload.spec, DaemonSpec) and _has_others(records, allocation)
    if _is_draining(records, allocation.node) and not is_blocked and not waits:
        yield Breach("L6", f"{allocation.id} is still on {allocation.node}, which is being drained")


def _is_draining(records: Records, node: str) -> bool:
    intent = records.intents.get(node)
    return intent is not None and intent.is_draining


def _has_others(records: Records, daemon: Allocation) -> bool:
    """Say whether others must leave the node first: daemons go last."""
    return any(a.workload.kind is not Kind.DAEMON for a in records.holding(daemon.node))


def _left_over(records: Records, wanted: Mapping[str, Workload]) -> Iterator[Breach]:
    """Yield records that nothing needs any more: of what was stopped, or deleted."""
    for allocation in records.allocations.values():
        id_ = keys.id_of_ref(allocation.workload)
        record = records.workloads.get(id_)
        is_job = record is not None and isinstance(record.workload.spec, JobSpec)
        if record is None or record.uid != allocation.workload.uid:
            yield Breach("L1", f"{allocation.id} is left of a workload that is gone")
        elif allocation.desired is Desired.STOP and not is_job:
            yield Breach("L1", f"{allocation.id} was stopped, and its record is still there")
    for allocation_id in records.statuses:
        if allocation_id not in records.allocations:
            yield Breach("L1", f"a status of {allocation_id} is left, and no allocation")
    for version in records.versions:
        if version.rpartition("/")[0] not in wanted:
            yield Breach("S6", f"version {version} is left of a workload that is gone")
    for workload in records.workload_statuses:
        if workload not in wanted:
            yield Breach("L1", f"a status of {workload} is left, and no workload")
