"""Stores what happened, while this server leads: batched, under the fence, and never in the way of a decision.

What waits in the event log is stored soon; what happens over and over only so often as its allowance lets, with the
count of what came meanwhile. So a crash loop costs a write now and then, and a cluster in which nothing happens none.
Losing the store or the lead costs nothing but time: what isn't stored goes on waiting, here and on the next leader.
"""

import asyncio
import contextlib
from collections.abc import Iterator

from control_plane import keys
from control_plane.controllers.writes import Unit, transactions
from control_plane.event_log import EventLog, Waiting, event_id, record_of
from control_plane.records import DeletionRecord
from control_plane.state import ClusterState, Stored
from control_plane.store.protocol import CreatedAt, Delete, ModifiedAt, Put, Store
from control_plane.told import told_of_deletion
from foundation.clock import Clock
from foundation.logs import Log
from manifests.errors import ConflictError, UnavailableError

log = Log(__name__)

GATHER_S = 0.2  # what happens together is stored together
PAUSE_S = 0.8  # after each time
MOST_AT_ONCE = 60  # events; what is more waits for the next time
BURST = 5  # times that one event may be stored at once, and then one more each REFILL_S
REFILL_S = 10.0
LOOK_S = 60.0  # so that a lost word costs time and not an event


class Allowance:
    """Lets each event be stored BURST times, and then once each REFILL_S. Pure but for what it remembers."""

    def __init__(self) -> None:
        self._used: dict[str, tuple[float, float]] = {}  # how many were used, as of when

    def due_in_s(self, id_: str, now_s: float) -> float:
        """Return how long the event has to wait yet; 0.0: not at all."""
        return max(0.0, (self._used_now(id_, now_s) - (BURST - 1)) * REFILL_S)

    def use(self, id_: str, now_s: float) -> None:
        self._used[id_] = (self._used_now(id_, now_s) + 1, now_s)

    def forget_unused(self, now_s: float) -> None:
        """Forget those that have their whole allowance again."""
        self._used = {id_: used for id_, used in self._used.items() if self._used_now(id_, now_s) > 0}

    def _used_now(self, id_: str, now_s: float) -> float:
        used, at_s = self._used.get(id_, (0.0, now_s))
        return max(0.0, used - (now_s - at_s) / REFILL_S)


class EventWriter:
    def __init__(self, store: Store, state: ClusterState, clock: Clock, events: EventLog) -> None:
        self._store, self._state, self._clock, self._events = store, state, clock, events
        self._allowance = Allowance()
        self._woken = asyncio.Event()

    async def run(self, fence: CreatedAt) -> None:
        """Store events until cancelled."""
        self._events.on_waiting = self._woken.set
        while True:
            await self._woken_or_due()
            await self._clock.sleep(GATHER_S)
            self._woken.clear()
            if self._due_in_s() > 0:
                continue
            try:
                await self._store_due(fence)
            except (ConflictError, UnavailableError) as error:
                log.debug("events could not be stored now", why=error.why or error.what)
            except Exception as error:  # a bug in telling what happened must not end the leading
                log.error("events could not be stored and are dropped", exc_info=error)
                self._events.waiting.clear()
            await self._clock.sleep(PAUSE_S)

    async def _woken_or_due(self) -> None:
        """Return once something may be stored, or there is something new that may."""
        due_s = self._due_in_s()
        if due_s > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(due_s):
                    await self._woken.wait()

    def _due_in_s(self) -> float:
        if len(self._state.deletions):
            return 0.0
        now_s = self._clock.now_s()
        return min((self._allowance.due_in_s(id_, now_s) for id_ in self._events.waiting), default=LOOK_S)

    async def _store_due(self, fence: CreatedAt) -> None:
        now_s = self._clock.now_s()
        self._allowance.forget_unused(now_s)
        deletions = [self._state.deletions.stored(id_) for id_ in self._state.deletions.ids()]
        units = [self._deletion_unit(d) for d in deletions[:MOST_AT_ONCE] if d]
        for id_, waiting in self._due(now_s):
            self._allowance.use(id_, now_s)
            units.append(self._unit(id_, waiting))
        for txn in transactions(fence, units):
            await self._state.wait_for(await self._store.commit(txn))

    def _due(self, now_s: float) -> Iterator[tuple[str, Waiting]]:
        due = [(i, w) for i, w in self._events.waiting.items() if self._allowance.due_in_s(i, now_s) <= 0]
        yield from ((i, w) for i, w in due[:MOST_AT_ONCE] if not self._state.is_unreadable(keys.EVENTS + i))

    def _unit(self, id_: str, waiting: Waiting) -> Unit:
        record = record_of(
            waiting.told,
            self._state.events.get(id_),
            revision=waiting.revision,
            count=sum(waiting.times.values()),
            first_s=waiting.first_s,
            last_s=waiting.last_s,
        )
        unchanged = ModifiedAt(keys.EVENTS + id_, self._state.events.modified_at(id_))
        return Unit((Put(keys.EVENTS + id_, record.to_bytes()),), (unchanged,))

    def _deletion_unit(self, deletion: Stored[DeletionRecord]) -> Unit:
        """Return what tells a deletion and takes its note away, so that it is told once."""
        told, at_s = told_of_deletion(deletion.value), deletion.value.at_s
        id_ = event_id(told)
        if self._state.is_unreadable(keys.EVENTS + id_):
            return Unit((Delete(deletion.key),), (ModifiedAt(deletion.key, deletion.modified_at),))
        record = record_of(
            told, self._state.events.get(id_), revision=deletion.modified_at, count=1, first_s=at_s, last_s=at_s
        )
        compares = (
            ModifiedAt(deletion.key, deletion.modified_at),
            ModifiedAt(keys.EVENTS + id_, self._state.events.modified_at(id_)),
        )
        return Unit((Put(keys.EVENTS + id_, record.to_bytes()), Delete(deletion.key)), compares)
