"""What happened to what, in sentences, as this server saw it: made from changes of the cache, kept in memory.

Nothing is stored for it, so a server that has just started tells only what happened since.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from control_plane.state import Batch, ClusterState, ObjectChange
from foundation.clock import Clock
from manifests.allocations import Allocation, AllocationStatus, Desired, Health, Phase
from manifests.nodes import Liveness, NodeIntent, NodeStatus
from manifests.status import WorkloadStatus
from manifests.workloads import WorkloadRecord

MOST_EVENTS = 2000


@dataclass(frozen=True, slots=True)
class Event:
    revision: int
    at_s: float
    subject: str  # node/n1, service/web, allocation/web-0-1f3a9c2e
    reason: str  # one word
    message: str
    workload: str = ""  # the workload that it concerns, if any


class EventLog:
    """The newest events; `on_event` hears of each."""

    def __init__(self, state: ClusterState, clock: Clock) -> None:
        self._state, self._clock = state, clock
        self._events: deque[Event] = deque(maxlen=MOST_EVENTS)
        self._listeners: list[Callable[[Event], None]] = []
        state.subscribe(self._on_batch)

    def newest(self, limit: int) -> list[Event]:
        """Return up to `limit` events, oldest first."""
        return list(self._events)[-limit:] if limit > 0 else []

    def listen(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def _on_batch(self, batch: Batch) -> None:
        if batch.is_first:
            return
        at_s = self._clock.wall_s()
        for change in batch.changes:
            for subject, reason, message, workload in _told(change):
                event = Event(batch.revision, at_s, subject, reason, message, workload)
                self._events.append(event)
                for listener in list(self._listeners):
                    listener(event)


_Told = tuple[str, str, str, str]  # subject, reason, message, workload


def _told(change: ObjectChange) -> Iterator[_Told]:
    """Yield what a change means, in words; most mean nothing worth telling."""
    match change.new or change.old:
        case WorkloadRecord() as record:
            yield from _workload_told(change, record)
        case WorkloadStatus() as status:
            yield from _workload_status_told(change, status)
        case Allocation() as allocation:
            yield from _allocation_told(change, allocation)
        case AllocationStatus() as status:
            yield from _status_told(change, status)
        case NodeStatus() as node:
            yield from _node_told(change, node)
        case NodeIntent() as intent:
            yield from _intent_told(change, intent)


def _workload_told(change: ObjectChange, record: WorkloadRecord) -> Iterator[_Told]:
    subject, old = str(record.ref), change.old
    if change.new is None:
        yield subject, "deleted", "deleted: its allocations are being stopped", subject
    elif not isinstance(old, WorkloadRecord):
        yield subject, "created", f"created at version {record.version}", subject
    elif old.version != record.version:
        yield subject, "changed", f"changed to version {record.version}", subject
    else:
        yield subject, "changed", "changed, at the same version", subject


def _workload_status_told(change: ObjectChange, status: WorkloadStatus) -> Iterator[_Told]:
    subject = str(status.ref)
    if change.new is None:
        return
    before = change.old if isinstance(change.old, WorkloadStatus) else None
    old_codes = {(b.count, tuple((r.node, r.code) for r in b.rejections)) for b in before.blocked} if before else set()
    for blocked in status.blocked:
        if (blocked.count, tuple((r.node, r.code) for r in blocked.rejections)) not in old_codes:
            yield subject, "blocked", blocked.sentence(), subject
    if before and before.blocked and not status.blocked:
        yield subject, "unblocked", "everything has a place now", subject
    if status.is_complete and not (before and before.is_complete):
        outcome = "failed: " + "; ".join(status.messages) if status.is_failed else "complete"
        yield subject, "failed" if status.is_failed else "complete", outcome, subject


def _allocation_told(change: ObjectChange, allocation: Allocation) -> Iterator[_Told]:
    subject, workload = f"allocation/{allocation.id}", str(allocation.workload)
    old = change.old
    if change.new is None:
        yield subject, "removed", f"gone from node {allocation.node}", workload
    elif old is None:
        yield subject, "placed", f"placed on node {allocation.node}: {allocation.why.sentence()}", workload
    elif isinstance(old, Allocation) and old.desired is not allocation.desired and allocation.desired is Desired.STOP:
        yield subject, "stop", f"to be stopped: {allocation.stop_reason}", workload
    elif isinstance(old, Allocation) and old.desired is not allocation.desired:
        yield subject, "kept" if allocation.desired is Desired.RUN else "spare", allocation.note, workload


def _status_told(change: ObjectChange, status: AllocationStatus) -> Iterator[_Told]:
    subject, workload = f"allocation/{status.id}", str(status.workload)
    old = change.old if isinstance(change.old, AllocationStatus) else None
    if change.new is None:
        return
    ending = status.last_ending
    if ending and status.attempt > ending.attempt and not (old and old.last_ending == ending):
        told = f"attempt {ending.attempt} ended on node {status.node}: {ending.message or ending.reason}"
        yield subject, ending.reason, told, workload
    if old is None or (old.phase, old.attempt) != (status.phase, status.attempt):
        yield subject, status.phase.value, _phase_sentence(status), workload
    if old and old.health is not status.health and status.health is not Health.UNKNOWN:
        yield subject, status.health.value, f"is {status.health}", workload


def _phase_sentence(status: AllocationStatus) -> str:
    ending = status.last_ending
    if status.phase in (Phase.BACKOFF, Phase.FAILED) and ending:
        return f"{status.phase} on node {status.node}: {ending.message or ending.reason}"
    attempt = f", attempt {status.attempt}" if status.attempt > 1 else ""
    return f"{status.phase} on node {status.node}{attempt}" + (f": {status.message}" if status.message else "")


def _node_told(change: ObjectChange, node: NodeStatus) -> Iterator[_Told]:
    subject, old = f"node/{node.facts.name}", change.old
    if change.new is None:
        yield subject, "deleted", "deleted", ""
    elif not isinstance(old, NodeStatus):
        yield subject, "ready", "registered", ""
    elif old.liveness is not node.liveness:
        message = f"lost: {node.message}" if node.liveness is Liveness.LOST else "back"
        yield subject, node.liveness.value, message, ""
    elif old.trouble != node.trouble:
        yield subject, "troubled" if node.trouble else "well", node.trouble or "can start containers again", ""


def _intent_told(change: ObjectChange, intent: NodeIntent) -> Iterator[_Told]:
    old = change.old if isinstance(change.old, NodeIntent) else NodeIntent(name=intent.name)
    new = change.new if isinstance(change.new, NodeIntent) else NodeIntent(name=intent.name)
    subject = f"node/{intent.name}"
    if new.is_draining and not old.is_draining:
        yield subject, "draining", "is being drained: what runs there moves elsewhere", ""
    elif new.is_cordoned != old.is_cordoned:
        yield subject, "cordoned" if new.is_cordoned else "uncordoned", _cordon_sentence(new), ""


def _cordon_sentence(intent: NodeIntent) -> str:
    return "takes nothing new" if intent.is_cordoned else "takes new work again"
