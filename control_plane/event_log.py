"""What happened and isn't stored yet, as each server sees it happen; and what is told live alone.

Every server keeps this, so that whichever leads next goes on where the last one ended: an event is waiting here until
its record in the store covers the revision at which it happened. The same change makes the same event everywhere, so
nothing is counted twice, whoever writes it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b

from control_plane.records import EventRecord
from control_plane.state import Batch, ClusterState, ObjectChange
from control_plane.told import Told, told_of
from foundation.clock import Clock

MOST_WAITING = 2000  # events; then the oldest are dropped
MOST_TIMES = 100  # of one event, by revision; then the oldest are taken together


@dataclass(frozen=True, slots=True)
class LiveEvent:
    """Something that is told to those who listen now, and kept nowhere."""

    revision: int
    at_s: float
    told: Told


@dataclass(slots=True)
class Waiting:
    """An event, and when it happened: at which revisions, how often at each, and the first and last time."""

    told: Told
    first_s: float
    last_s: float
    times: dict[int, int] = field(default_factory=dict)

    @property
    def revision(self) -> int:
        return next(reversed(self.times))

    def add(self, told: Told, revision: int, at_s: float) -> None:
        self.told, self.last_s = told, at_s
        self.times[revision] = self.times.get(revision, 0) + 1
        if len(self.times) > MOST_TIMES:
            oldest, second = list(self.times)[:2]
            self.times[second] += self.times.pop(oldest)

    def forget(self, upto: int) -> None:
        """Forget the times up to a revision: they are stored."""
        self.times = {revision: count for revision, count in self.times.items() if revision > upto}


class EventLog:
    """Listens to the cache. `on_waiting` is called whenever there is something new for the leader to store."""

    def __init__(self, state: ClusterState, clock: Clock) -> None:
        self._state, self._clock = state, clock
        self._listeners: list[Callable[[LiveEvent], None]] = []
        self.waiting: dict[str, Waiting] = {}  # by the id of the event's record
        self.on_waiting: Callable[[], None] = lambda: None
        state.subscribe(self._on_batch)

    def listen(self, listener: Callable[[LiveEvent], None]) -> Callable[[], None]:
        """Have it called with what is told live alone, until the returned function is called."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def _on_batch(self, batch: Batch) -> None:
        if batch.is_first:
            return
        at_s = self._clock.wall_s()
        for change in batch.changes:
            if change.table == "event":
                self._stored(change)
            elif change.table == "deletion":
                self.on_waiting()
            else:
                self._take(change, at_s)

    def _take(self, change: ObjectChange, at_s: float) -> None:
        for told in told_of(change):
            if told.is_kept:
                self._wait(told, change.revision, at_s)
                continue
            for listener in list(self._listeners):
                listener(LiveEvent(change.revision, at_s, told))

    def _wait(self, told: Told, revision: int, at_s: float) -> None:
        id_ = event_id(told)
        stored = self._state.events.stored(id_)
        if stored is not None and revision <= _covered(stored.value, stored.modified_at):
            return
        known = self.waiting.setdefault(id_, Waiting(told, at_s, at_s))
        known.add(told, revision, at_s)
        if len(self.waiting) > MOST_WAITING:
            del self.waiting[next(iter(self.waiting))]
        self.on_waiting()

    def _stored(self, change: ObjectChange) -> None:
        known = self.waiting.get(change.id)
        if known is None or not isinstance(change.new, EventRecord):
            return
        known.forget(_covered(change.new, change.revision))
        if not known.times:
            del self.waiting[change.id]


def _covered(record: EventRecord, modified_at: int) -> int:
    """Return up to which revision all is stored. After a restore the record's own may be of another count."""
    return min(record.revision, modified_at)


def event_id(told: Told) -> str:
    """Return what its record's key ends with: the same for all that counts as the same."""
    digest = blake2b(told.same.encode(), digest_size=4).hexdigest()
    return f"{told.place}/{told.reason}-{digest}"


def record_of(
    told: Told, old: EventRecord | None, *, revision: int, count: int, first_s: float, last_s: float
) -> EventRecord:
    """Return the event's record after some more times, of which `revision` is the newest."""
    return EventRecord(
        subject=subject_of(told.place),
        namespace="" if told.place.startswith("-/") else told.place.partition("/")[0],
        reason=told.reason,
        message=told.message,
        allocation=told.allocation,
        by=told.by,
        revision=revision,
        count=count + (old.count if old else 0),
        first_s=min(old.first_s, first_s) if old else first_s,
        last_s=max(old.last_s, last_s) if old else last_s,
    )


def subject_of(place: str) -> str:
    """Return how people name what a place is of.

    >>> subject_of("default/service/web"), subject_of("-/node/n1")
    ('service/web', 'node/n1')
    """
    namespace, kind, name = place.split("/")
    return f"{kind}/{name}" if namespace in ("-", "default") else f"{kind}/{namespace}/{name}"
