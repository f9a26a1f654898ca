"""A simulated etcd: one history under one clock, shared by all servers, each through a client and a link of its own.

The client keeps what the real one promises: a transaction is applied once however often it is tried, an unknown outcome
is read back, a watch has no gaps, a lease is lost when no renewal got through. The link is where it goes wrong.
"""

import asyncio
import random
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from control_plane.store.protocol import (
    Change,
    Changes,
    Delete,
    Entry,
    LeaseId,
    Page,
    Put,
    Revision,
    Txn,
)
from control_plane.store.transactions import NOWHERE, beyond, check, compacted, conflict, holds, lease_conflict
from foundation.backoff import Backoff
from manifests.errors import UnavailableError, WherryError
from tests.invariants.steps import Step
from tests.simulation.crashes import effect
from tests.simulation.loop import carried_out, later

T = TypeVar("T")
TRY_S = 1.5
TOTAL_S = 15.0
RETRY = Backoff(first_s=0.05, most_s=1.0)
LATE_SHARE = 0.3  # of the requests that a cut holds up, so many arrive when it has healed
LEAST_TTL_S = 2.0


@dataclass(slots=True)
class _Lease:
    ttl_s: float
    expires_s: float
    keys: dict[str, None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Origin:
    """Who writes, and what led to it: for those who judge."""

    writer: str
    began_s: float
    call: int  # one for all tries of it
    seen: Revision | None = None


@dataclass(frozen=True, slots=True)
class _Event:
    change: Change
    before: Entry | None


class Etcd:
    """The store itself. Nothing here takes time; links do."""

    def __init__(self) -> None:
        self.revision = Revision(1)
        self.compacted = Revision(0)
        self._entries: dict[str, Entry] = {}
        self._events: list[_Event] = []
        self._revisions: list[int] = []  # of the events, for bisection
        self._leases: dict[LeaseId, _Lease] = {}
        self._of_lease: dict[str, LeaseId] = {}
        self._done: dict[int, Revision | WherryError] = {}  # by operation: what became of it
        self._operations = 0
        self._granted = 0
        self.is_down = False  # it has lost its quorum
        self.observers: list[Callable[[Step], None]] = []
        self.channels: list[Channel] = []

    def new_operation(self) -> int:
        self._operations += 1
        return self._operations

    def get(self, key: str) -> Entry | None:
        return self._entries.get(key)

    def list_prefix(self, prefix: str, *, at: Revision | None, start: str | None, limit: int) -> Page:
        if at is not None and at > self.revision:
            raise beyond(at, self.revision)
        if at is not None and at < self.compacted:
            raise compacted(at, self.compacted)
        entries = self._entries if at is None or at == self.revision else self._entries_at(at)
        first = max(prefix, start or "")
        found = [entries[key] for key in sorted(entries) if key.startswith(prefix) and key >= first]
        next_key = found[limit - 1].key + "\0" if len(found) > limit else None
        return Page(tuple(found[:limit]), at or self.revision, next_key)

    def _entries_at(self, at: Revision) -> dict[str, Entry]:
        entries = dict(self._entries)
        for event in reversed(self._events):
            if event.change.revision <= at:
                break
            if event.before is None:
                entries.pop(event.change.key, None)
            else:
                entries[event.change.key] = event.before
        return entries

    def apply(self, txn: Txn, operation: int, origin: Origin) -> Revision:
        """Apply the transaction, unless that was done before: then its outcome stands."""
        if operation not in self._done:
            try:
                self._done[operation] = self._apply(txn, origin)
            except WherryError as error:
                self._done[operation] = error
        outcome = self._done[operation]
        if isinstance(outcome, WherryError):
            raise type(outcome)(outcome.what, why=outcome.why, fix=outcome.fix)
        return outcome

    def _apply(self, txn: Txn, origin: Origin) -> Revision:
        found = {c.key: self._revisions_of(c.key) for c in txn.compares}
        if not all(holds(c, *found[c.key]) for c in txn.compares):
            raise conflict(txn, found)
        for write in txn.writes:
            if isinstance(write, Put) and write.lease is not None and write.lease not in self._leases:
                raise lease_conflict(write.lease)
        if not txn.writes:
            return self.revision
        self.revision = Revision(self.revision + 1)  # the client's own mark, at least, is put
        changes = tuple(change for write in txn.writes if (change := self._write(write)))
        began_s, call, writer, seen = origin.began_s, origin.call, origin.writer, origin.seen
        self._tell(Step(self.revision, changes, tuple(txn.compares), began_s, call, writer, seen))
        return self.revision

    def _revisions_of(self, key: str) -> tuple[Revision, Revision]:
        entry = self._entries.get(key)
        return (entry.create_revision, entry.mod_revision) if entry else NOWHERE

    def _write(self, write: Put | Delete) -> Change | None:
        before = self._entries.get(write.key)
        if isinstance(write, Delete):
            return self._remove(write.key) if before else None
        created = before.create_revision if before else self.revision
        entry = self._entries[write.key] = Entry(write.key, write.value, created, self.revision)
        self._attach(write.key, write.lease)
        return self._note(Change(write.key, entry, self.revision), before)

    def _remove(self, key: str) -> Change:
        before = self._entries.pop(key)
        self._attach(key, None)
        return self._note(Change(key, None, self.revision), before)

    def _note(self, change: Change, before: Entry | None) -> Change:
        self._events.append(_Event(change, before))
        self._revisions.append(change.revision)
        return change

    def _attach(self, key: str, lease: LeaseId | None) -> None:
        old = self._of_lease.pop(key, None)
        if old is not None and old in self._leases:
            self._leases[old].keys.pop(key, None)
        if lease is not None:
            self._of_lease[key] = lease
            self._leases[lease].keys[key] = None

    def _tell(self, step: Step) -> None:
        for observe in self.observers:
            observe(step)
        for channel in self.channels:
            channel.poke()

    def changes_after(self, position: Revision, prefix: str) -> list[Change]:
        return [
            event.change
            for event in self._events[bisect_right(self._revisions, position) :]
            if event.change.key.startswith(prefix)
        ]

    def compact(self, revision: Revision) -> None:
        if revision > self.revision:
            raise beyond(revision, self.revision)
        self.compacted = max(self.compacted, revision)
        for channel in list(self.channels):
            channel.poke()

    # Leases.

    def grant(self, ttl_s: float) -> LeaseId:
        self._granted += 1
        lease = LeaseId(7_000 + self._granted)
        self._leases[lease] = _Lease(ttl_s, _now_s() + ttl_s)
        later(ttl_s, self._expire, lease)
        return lease

    def renew(self, lease: LeaseId) -> float:
        """Return the time to live, 0 if the lease is gone."""
        found = self._leases.get(lease)
        if found is None:
            return 0.0
        found.expires_s = _now_s() + found.ttl_s
        return found.ttl_s

    def revoke(self, lease: LeaseId) -> None:
        found = self._leases.pop(lease, None)
        if found is not None and found.keys:
            self.revision = Revision(self.revision + 1)
            self._tell(Step(self.revision, tuple(self._remove(key) for key in list(found.keys)), (), None, None, ""))

    def leases(self) -> list[LeaseId]:
        return list(self._leases)

    def keys_of(self, lease: LeaseId) -> list[str]:
        return list(self._leases[lease].keys)

    def _expire(self, lease: LeaseId) -> None:
        found = self._leases.get(lease)
        if found is None:
            return
        if self.is_down:  # without a leader nothing expires, and the next one begins with full times
            found.expires_s = _now_s() + found.ttl_s
        left_s = found.expires_s - _now_s()
        if left_s > 1e-6:
            later(left_s, self._expire, lease)
        else:
            self.revoke(lease)


@dataclass(slots=True)
class Link:
    """What lies between one server and the store."""

    etcd: Etcd
    rng: random.Random
    most_delay_s: float = 0.004
    lag_s: float = 0.0  # of watches: a stale replica
    is_cut_to: bool = False  # requests don't arrive
    is_cut_from: bool = False  # replies and watched changes don't
    replies_to_lose: int = 0
    held: list[Callable[[], None]] = field(default_factory=list)

    @property
    def is_cut(self) -> bool:
        return self.is_cut_to or self.etcd.is_down

    @property
    def is_deaf(self) -> bool:
        return self.is_cut_from or self.etcd.is_down

    def delay_s(self) -> float:
        return self.rng.random() * self.most_delay_s

    def heal(self) -> None:
        self.is_cut_to = self.is_cut_from = False
        self.replies_to_lose = 0
        self.lag_s = 0.0
        self.wake()

    def wake(self) -> None:
        """Go on after a change of the link or of the store: what was held up arrives, and watches look again."""
        if not self.is_cut:
            held, self.held = self.held, []
            for arrive in held:
                later(self.delay_s(), arrive)
        for channel in list(self.etcd.channels):
            channel.poke()


class Store:
    """One server's client of the store, as EtcdStore is one."""

    def __init__(self, etcd: Etcd, link: Link, rng: random.Random, *, name: str = "") -> None:
        self._etcd, self._link, self._rng, self._name = etcd, link, rng, name
        self._channels: list[Channel] = []
        self._leases: list[Lease] = []
        self._is_closed = False
        self.seen: Callable[[], Revision | None] = lambda: None  # how far its server has followed the store

    async def get(self, key: str) -> Entry | None:
        return await self.call(lambda: self._etcd.get(key))

    async def list_prefix(
        self, prefix: str, *, at: Revision | None = None, start: str | None = None, limit: int = 500
    ) -> Page:
        return await self.call(lambda: self._etcd.list_prefix(prefix, at=at, start=start, limit=limit))

    async def commit(self, txn: Txn) -> Revision:
        check(txn)
        operation = self._etcd.new_operation()
        origin = Origin(self._name, _now_s(), operation, self.seen())
        await effect("commit", before=True)
        revision = await self.call(lambda: self._etcd.apply(txn, operation, origin))
        await effect("commit", before=False)
        return revision

    async def watch(self, prefix: str, *, after: Revision) -> AsyncIterator[Changes]:
        channel = Channel(self._etcd, self._link, prefix, after)
        self._etcd.channels.append(channel)
        self._channels.append(channel)
        channel.poke()
        try:
            while (item := await channel.next()) is not None:
                yield item
        finally:
            channel.end()
            self._channels.remove(channel)

    async def lease(self, *, ttl_s: float) -> "Lease":
        ttl_s = max(ttl_s, LEAST_TTL_S)
        sent_s = _now_s()
        lease = Lease(self, self._etcd, await self.call(lambda: self._etcd.grant(ttl_s)), ttl_s, sent_s)
        self._leases.append(lease)
        lease.renewing = asyncio.get_running_loop().create_task(lease.renew(), name=f"renew {lease.id}")
        return lease

    async def compact(self, revision: Revision) -> None:
        await self.call(lambda: self._etcd.compact(revision))

    async def close(self) -> None:
        self._is_closed = True
        for channel in list(self._channels):
            channel.end()
        for lease in self._leases:
            lease.let_go()

    async def call(self, apply: Callable[[], T], *, within_s: float = TOTAL_S, try_s: float = TRY_S) -> T:
        """Return what the store answers, tried again and again for that time."""
        ends_s = _now_s() + within_s
        tries = 0
        while True:
            if self._is_closed:
                raise UnavailableError("the store is closed")
            try:
                async with asyncio.timeout(max(0.01, min(try_s, ends_s - _now_s()))):
                    return await self._ask(apply)
            except TimeoutError:
                tries += 1
            if _now_s() + RETRY.first_s >= ends_s:
                raise UnavailableError(f"etcd did not answer in {within_s:g} s", why="the link is cut")
            await asyncio.sleep(RETRY.delay_s(tries, self._rng))

    def _ask(self, apply: Callable[[], T]) -> "asyncio.Future[T]":
        """Send one request. Whatever becomes of the asking process, it is on its way."""
        link = self._link
        reply: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def arrive() -> None:
            if link.is_cut:
                if link.rng.random() < LATE_SHARE:
                    link.held.append(arrive)
                return
            answer = carried_out(apply, reply)
            if not link.is_deaf and not self._loses_reply():
                later(link.delay_s(), answer)

        later(link.delay_s(), arrive)
        return reply

    def _loses_reply(self) -> bool:
        if self._link.replies_to_lose:
            self._link.replies_to_lose -= 1
            return True
        return False


class Channel:
    """One watch: what the store passes on to it, whole revisions in order, and what its reader hasn't taken yet."""

    def __init__(self, etcd: Etcd, link: Link, prefix: str, after: Revision) -> None:
        self._etcd, self._link, self._prefix, self._position = etcd, link, prefix, after
        self._items: list[Changes] = []
        self._error: WherryError | None = None
        self._has_ended = False
        self._is_scheduled = False
        self._moved = asyncio.Event()

    def poke(self) -> None:
        """Pass on what there is, in a moment."""
        if not self._is_scheduled and not self._has_ended and not self._link.is_deaf:
            self._is_scheduled = True
            later(self._link.delay_s() + self._link.lag_s, self._deliver)

    def _deliver(self) -> None:
        self._is_scheduled = False
        if self._link.is_deaf or self._has_ended or self._error:
            return  # the link's healing pokes again
        if self._position > self._etcd.revision:
            self._error = beyond(self._position, self._etcd.revision)
        elif self._position < self._etcd.compacted:
            self._error = compacted(self._position, self._etcd.compacted)
        elif changes := self._etcd.changes_after(self._position, self._prefix):
            self._position = changes[-1].revision
            self._items.append(Changes(tuple(changes), self._position))
        self._moved.set()

    async def next(self) -> Changes | None:
        """Return the next item, None at the end. Raises what ended the watch."""
        while not self._items:
            if self._error is not None:
                raise self._error
            if self._has_ended:
                return None
            self._moved.clear()
            await self._moved.wait()
        return self._items.pop(0)

    def end(self) -> None:
        self._has_ended = True
        if self in self._etcd.channels:
            self._etcd.channels.remove(self)
        self._moved.set()


class Lease:
    """Lost when the store says so, or when no renewal got through for its time to live."""

    def __init__(self, store: Store, etcd: Etcd, id_: LeaseId, ttl_s: float, sent_s: float) -> None:
        self._store, self._etcd, self._id, self._ttl_s = store, etcd, id_, ttl_s
        self._expires_s = sent_s + ttl_s
        self._lost = asyncio.Event()
        self._is_revoking = False
        self.renewing: asyncio.Task[None] | None = None

    @property
    def id(self) -> LeaseId:
        return self._id

    async def wait_lost(self) -> None:
        await self._lost.wait()

    async def revoke(self) -> None:
        self._is_revoking = True
        if not self._lost.is_set():
            await self._store.call(lambda: self._etcd.revoke(self._id))
            self._lost.set()

    def let_go(self) -> None:
        self._lost.set()

    async def renew(self) -> None:
        while True:
            await asyncio.sleep(self._ttl_s / 3)
            if self._is_revoking or self._lost.is_set():
                return
            sent_s = _now_s()
            try:
                left_s = await self._store.call(
                    lambda: self._etcd.renew(self._id),
                    within_s=self._expires_s - _now_s(),
                    try_s=min(TRY_S, self._ttl_s / 3),
                )
            except WherryError:
                break
            if left_s <= 0:
                break
            self._expires_s = sent_s + left_s
        if not self._is_revoking:
            self._lost.set()


def entries_of(etcd: Etcd, prefix: str) -> Iterable[Entry]:
    """Return the store's truth under a prefix, for those who judge."""
    return etcd.list_prefix(prefix, at=None, start=None, limit=1_000_000).entries


def _now_s() -> float:
    return asyncio.get_running_loop().time()
