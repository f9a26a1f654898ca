"""What must hold at each revision of the store: one rule a function, which sees what a step changed and what is now.

Each rule's docstring begins with the number of the invariant. `old` values tell how things stood one revision earlier.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias, TypeVar

from control_plane import keys
from control_plane.controllers.brake import HOLD_S, is_mass_loss
from control_plane.records import LeaderRecord
from control_plane.store.protocol import ABSENT, CreatedAt, ModifiedAt, Revision
from manifests.allocations import NEXT, Allocation, AllocationStatus, Desired, Phase
from manifests.base import Model
from manifests.nodes import Liveness, NodeIntent, NodeStatus
from manifests.workloads import DaemonSpec, JobSpec, Kind, ServiceSpec, VersionRecord, WorkloadRecord
from tests.invariants.records import Records, Written
from tests.invariants.steps import Breach, Step

M = TypeVar("M", bound=Model)
RESOURCES = ("cpu_m", "memory_bytes", "pids")
Rule: TypeAlias = Callable[[Step, Sequence[Written], Records], Iterator[Breach]]


def capacity(step: Step, written: Sequence[Written], records: Records) -> Iterator[Breach]:
    """S1: what a node's allocations reserve is within what it offers, and no host port is held twice.

    An allocation holds both until its node has said that it ended. Where a node comes to offer less, the sum may stay.
    """
    touched = {w.old.node for w in written if isinstance(w.old, Allocation | AllocationStatus)}
    touched |= {w.new.node for w in written if isinstance(w.new, Allocation | AllocationStatus)}
    for name in sorted(touched):
        node, holding = records.nodes.get(name), list(records.holding(name))
        if node is None:
            continue
        for resource in RESOURCES:
            reserved = sum(getattr(allocation.reserved, resource) for allocation in holding)
            offered = getattr(node.facts.allocatable, resource)
            if reserved > offered and any(_is_placed(w) for w in written):
                yield Breach("S1", f"{name} has {reserved} {resource} reserved of {offered}")
        ports = Counter((port.host, port.protocol) for allocation in holding for port in allocation.ports)
        for port, count in ports.items():
            if count > 1:
                yield Breach("S1", f"{count} allocations hold {port} of {name}")


def slots(step: Step, written: Sequence[Written], records: Records) -> Iterator[Breach]:
    """S2: one wanted allocation has a workload's index; no more than the spec lets are added; one daemon a node.

    A spare is not wanted: its slot went to another while its node was lost, until one of the two is chosen.
    """
    placed = {w.new.workload.uid: w.new for w in written if _is_placed(w) and isinstance(w.new, Allocation)}
    for uid, example in placed.items():
        wanted = [a for a in records.of_workload[uid].values() if a.desired is Desired.RUN]
        for index, count in Counter(a.index for a in wanted).items():
            if count > 1:
                yield Breach("S2", f"{count} allocations of {example.workload} are wanted in slot {index}")
        record = records.workloads.get(keys.id_of_ref(example.workload))
        if record is None or record.uid != uid:
            yield Breach("S2", f"{example.id} was placed for {example.workload}, which isn't there")
            continue
        match record.workload.spec:
            case ServiceSpec(replicas=replicas, update=update):
                most = replicas + max(update.max_surge, update.canary)  # canaries run beside all of the old
                if len(wanted) <= most:
                    continue
                yield Breach("S2", f"{len(wanted)} allocations of {record.ref.name} are wanted, at most {most} may be")
            case DaemonSpec():
                nodes = Counter(a.node for a in wanted)
                yield from (
                    Breach("S2", f"{count} allocations of daemon {record.ref.name} are wanted on {node}")
                    for node, count in nodes.items()
                    if count > 1
                )
            case JobSpec(parallelism=parallelism):
                busy = sum(not records.has_ended(a.id) for a in wanted)
                if busy > parallelism:
                    yield Breach("S2", f"{busy} allocations of job {record.ref.name} run, {parallelism} may")


def job_runs_once(step: Step, written: Sequence[Written], records: Records) -> Iterator[Breach]:
    """S3, S11: a job's index is placed again only when it has not succeeded, and doesn't run within reach."""
    for new in _placed(written):
        if new.workload.kind is not Kind.JOB:
            continue
        for other in records.of_workload[new.workload.uid].values():
            if other.index != new.index or other.id == new.id:
                continue
            status = records.statuses.get(other.id)
            if status is not None and status.phase is Phase.SUCCEEDED:
                yield Breach("S11", f"{new.id} was placed, and {other.id} has succeeded in its slot")
            node = records.nodes.get(other.node)
            if not records.has_ended(other.id) and node is not None and node.liveness is not Liveness.LOST:
                yield Breach("S3", f"{new.id} was placed, and {other.id} may run in its slot on {other.node}")


def at_most_once(step: Step, written: Sequence[Written], records: Records) -> Iterator[Breach]:
    """S3: under onDisconnect.stopAfter a slot goes to no other while the one before may run within reach."""
    for new in _placed(written):
        for other in records.of_workload[new.workload.uid].values():
            is_same = other.index == new.index and other.id != new.id
            if not is_same or records.has_ended(other.id) or not records.is_at_most_once(other):
                continue
            node = records.nodes.get(other.node)
            if node is not None and node.liveness is not Liveness.LOST:
                yield Breach("S3", f"{new.id} was placed, and {other.id} may run in its slot on {other.node}")


def fence(step: Step, written: Sequence[Written], records: Records) -> Iterator[Breach]:
    """S4: what only the leader may write is written under the fence of the leader key alive one revision earlier.

    A history that doesn't tell what was compared shows only whether anyone led.
    """
    if not any(w.table in (keys.ALLOCATIONS, keys.WORKLOAD_STATUSES) for w in written):
        return
    created_at = _leader_before(step, written, records)
    if created_at == ABSENT:
        yield Breach("S4", "allocations were written while nobody led")
    elif step.compares is not None and CreatedAt(keys.LEADER, created_at) not in step.compares:
        yield Breach("S4", f"{step.writer} wrote allocations without the fence of the leader at {created_at}")
    leader = records.leader.get("")
    if leader is not None and step.writer is not None and not leader.server.startswith(f"{step.writer}-"):
        yield Breach("S4", f"{step.writer} wrote allocations, and {leader.server} leads")


def _leader_before(step: Step, written: Sequence[Written], records: Records) -> Revision:
    changed = next((w for w in written if w.table == keys.LEADER), None)
    if changed is None:
        return records.leader_created_at
    return ABSENT if changed.old is None else changed.old_revision


def writers(step: Step, written: Sequence[Written], records: Records) -> Iterator[Breach]:
    """S5: a node's statuses are written by the server that holds its newest session, and compare that it does.

    Who wrote is known in a simulation only.
    """
    if step.writer is None or step.compares is None:
        return
    for w in written:
        if isinstance(w.new, AllocationStatus):
            node = records.nodes.get(w.new.node)
            standing = ModifiedAt(keys.NODES + w.new.node, records.modified_at(keys.NODES, w.new.node))
            if node is None or not node.server.startswith(f"{step.writer}-"):
                yield Breach("S5", f"{step.writer} wrote {w.id}, and the session of {w.new.node} is elsewhere")
            elif standing not in step.compares:
                yield Breach("S5", f"{step.writer} wrote {w.id} without comparing the session of {w.new.node}")
            if w.id not in records.allocations:
                yield Breach("S5", f"{step.writer} wrote a status of {w.id}, which isn't desired at all")
        elif isinstance(w.new, NodeStatus) and w.new.liveness is Liveness.READY:
            if not w.new.server.startswith(f"{step.writer}-"):
                yield Breach("S5", f"{step.writer} wrote that {w.id} has its session with {w.new.server}")
            if isinstance(w.old, NodeStatus) and w.new.session < w.old.session:
                yield Breach("S5", f"the session of {w.id} fell from {w.old.session} to {w.new.session}")


def versions(step: Step, written: Sequence[Written], records: Records) -> Iterator[Breach]:
    """S6: a version never changes; a placed allocation's version is there, and stays for as long as it is needed."""
    for w in written:
        if isinstance(w.old, VersionRecord) and isinstance(w.new, VersionRecord) and w.old != w.new:
            yield Breach("S6", f"version {w.id} was changed")
        if isinstance(w.old, VersionRecord) and w.new is None:
            workload, _, number = w.id.rpartition("/")
            users = [
                a.id
                for a in records.allocations.values()
                if keys.id_of_ref(a.workload) == workload and a.version == int(number)
            ]
            if users:
                yield Breach("S6", f"version {w.id} was deleted, and {users[0]} needs it")
    for new in _placed(written):
        if keys.version_id(keys.id_of_ref(new.workload), new.version) not in records.versions:
            yield Breach("S6", f"{new.id} was placed at version {new.version}, which isn't there")


def _reachable() -> dict[Phase, frozenset[Phase]]:
    """Return what one attempt can come to from each phase, in any number of steps."""
    found = {phase: {phase} for phase in Phase}
    for _ in Phase:
        for phase, known in found.items():
            found[phase] = known.union(*(NEXT[step] for step in known))
    return {phase: frozenset(known) for phase, known in found.items()}


REACHABLE = _reachable()


def phases(step: Step, written: Sequence[Written], records: Records) -> Iterator[Breach]:
    """S7: within an attempt phases follow the table, attempts never fall, and what has ended stays so.

    A new session may be that of a new agent, which tells again what it finds: a step that its predecessor told and did
    not write down comes twice. What has ended stays so even then.
    """
    for w in written:
        old, new = w.old, w.new
        if not isinstance(old, AllocationStatus) or not isinstance(new, AllocationStatus):
            continue
        was, now = f"{old.phase} ({old.attempt})", f"{new.phase} ({new.attempt})"
        if old.is_terminal and (old.phase, old.attempt) != (new.phase, new.attempt):
            yield Breach("S7", f"{w.id} has ended as {was} and became {now}")
        elif len(set(records.told_in[w.id])) > 1:
            continue
        elif new.attempt < old.attempt:
            yield Breach("S7", f"{w.id} went back from {was} to {now}")
        elif new.attempt == old.attempt and new.phase not in REACHABLE[old.phase]:
            yield Breach("S7", f"{w.id} can't go from {was} to {now}")


def cordons(step: Step, written: Sequence[Written], records: Records) -> Iterator[Breach]:
    """S13: nothing is placed on a node at a revision after its cordon or the begin of its drain, nor on a lost one.

    So that it can't be, each placement compares that both the node's records stand as they did when it was decided.
    """
    for new in _placed(written):
        intent = _before(keys.NODE_INTENTS, new.node, written, records.intents.get(new.node))
        if isinstance(intent, NodeIntent) and (intent.is_cordoned or intent.is_draining):
            yield Breach("S13", f"{new.id} was placed on {new.node}, which is cordoned or being drained")
        node = _before(keys.NODES, new.node, written, records.nodes.get(new.node))
        if isinstance(node, NodeStatus) and node.liveness is Liveness.LOST:
            yield Breach("S13", f"{new.id} was placed on {new.node}, which is lost")
        for table in (keys.NODE_INTENTS, keys.NODES) if step.compares is not None else ():
            standing = ModifiedAt(table + new.node, _revision_before(table, new.node, written, records))
            if standing not in (step.compares or ()):
                yield Breach("S13", f"{new.id} was placed without comparing {table}{new.node}")


def removals(step: Step, written: Sequence[Written], records: Records) -> Iterator[Breach]:
    """S1: a record, which holds what its allocation reserves, goes once its node said that it ended, or is gone."""
    for w in written:
        if not isinstance(w.old, Allocation) or w.new is not None:
            continue
        status = _before(keys.STATUSES, w.id, written, records.statuses.get(w.id))
        has_ended = isinstance(status, AllocationStatus) and status.is_terminal
        if not has_ended and w.old.node in records.nodes:
            yield Breach("S1", f"the record of {w.id} went, and {w.old.node} had not said that it ended")


def _before(table: str, id_: str, written: Sequence[Written], now: Model | None) -> Model | None:
    return next((w.old for w in written if (w.table, w.id) == (table, id_)), now)


def _revision_before(table: str, id_: str, written: Sequence[Written], records: Records) -> Revision:
    changed = next((w.old_revision for w in written if (w.table, w.id) == (table, id_)), None)
    return records.modified_at(table, id_) if changed is None else changed


def cron_slots(step: Step, written: Sequence[Written], records: Records) -> Iterator[Breach]:
    """S11: a CronJob's time makes one Job, ever: its name tells the time, and is never used again."""
    for w in written:
        if w.old is None and isinstance(w.new, WorkloadRecord) and w.new.owner is not None:
            slot = (w.new.owner.uid, w.new.ref.name)
            if slot in records.cron_slots:
                yield Breach("S11", f"{w.id} was made before, for the same time of {w.new.owner}")
            records.cron_slots.add(slot)


def mass_loss(step: Step, written: Sequence[Written], records: Records) -> Iterator[Breach]:
    """S20: of 3 or more nodes, and over 55 % of those that were there, that are silent at once none is lost.

    Unless an operator said so, or they have been silent for all of the brake's hold.
    """
    lost = [w.new for w in written if isinstance(w.new, NodeStatus) and _has_become_lost(w)]
    if not lost or any(node.silent_s > HOLD_S for node in lost):
        return
    if any(i.confirmed_lost is not None for i in (records.intents.get(n.facts.name) for n in lost) if i):
        return
    known = max((c.revision for c in step.compares or () if isinstance(c, ModifiedAt)), default=Revision(0))
    suspects = sum(
        n.liveness is Liveness.SUSPECT and records.modified_at(keys.NODES, name) <= known
        for name, n in records.nodes.items()
    )  # as far as the leader must have seen
    heard = sum(n.liveness is Liveness.READY for n in records.nodes.values())
    if is_mass_loss(len(lost) + suspects, heard):
        yield Breach("S20", f"{len(lost)} nodes were called lost, with {suspects} more silent and {heard} heard")


def _has_become_lost(w: Written) -> bool:
    was_lost = isinstance(w.old, NodeStatus) and w.old.liveness is Liveness.LOST
    return isinstance(w.new, NodeStatus) and w.new.liveness is Liveness.LOST and not was_lost


def one_leader(step: Step, written: Sequence[Written], records: Records) -> Iterator[Breach]:
    """S4: leadership passes on by way of nobody: the key is never overwritten."""
    for w in written:
        if isinstance(w.old, LeaderRecord) and isinstance(w.new, LeaderRecord):
            yield Breach("S4", f"{w.new.server} took the lead from {w.old.server}, which had it")


def _is_placed(w: Written) -> bool:
    return w.old is None and isinstance(w.new, Allocation)


def _placed(written: Sequence[Written]) -> Iterator[Allocation]:
    return (w.new for w in written if w.old is None and isinstance(w.new, Allocation))


RULES: tuple[Rule, ...] = (
    capacity,
    slots,
    job_runs_once,
    at_most_once,
    fence,
    one_leader,
    writers,
    versions,
    phases,
    cordons,
    removals,
    cron_slots,
    mass_loss,
)
