"""This server among the others: its lease, its record, and whether it leads.

One lease carries both the server's record and, when it leads, the leader key. A lost lease ends leading at once, but is
only a hint that anything is wrong: the server takes a new one and goes on. What makes a deposed leader harmless is the
fence: the create revision of its leader key, compared in each of its writes.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from control_plane import keys
from control_plane.records import LeaderRecord, ServerRecord
from control_plane.state import ClusterState
from control_plane.store.protocol import ABSENT, CreatedAt, Lease, Put, Store, Txn
from foundation.backoff import Backoff
from foundation.clock import Clock
from foundation.logs import Log
from foundation.tasks import TaskGroup
from manifests.errors import ConflictError, UnavailableError, WherryError

log = Log(__name__)

LEASE_TTL_S = 5.0
RETRY = Backoff(0.2, 2.0)
CHECK_RECORD_S = 0.5

Lead: TypeAlias = Callable[[CreatedAt], Awaitable[None]]  # leads under that fence until cancelled


class Membership:
    """Keeps the server's lease and record, campaigns, and runs `lead` while it is the leader."""

    def __init__(
        self, store: Store, state: ClusterState, server: ServerRecord, clock: Clock, rng: random.Random
    ) -> None:
        self._store, self._state, self._server, self._clock, self._rng = store, state, server, clock, rng
        self._failures = 0
        self._holds_lease = asyncio.Event()
        self.is_leading = False
        self.failure: WherryError | None = None  # why there is no lease, if the store said why

    @property
    def has_lease(self) -> bool:
        """Say whether this server holds a lease: without one it may be cut off from the store."""
        return self._holds_lease.is_set()

    async def wait_for_lease(self) -> None:
        await self._holds_lease.wait()

    async def run(self, lead: Lead) -> None:
        """Take part until cancelled, then give the lease up, so that others needn't wait for it to expire."""
        while True:
            try:
                await self._one_lease(lead)
            except* (UnavailableError, ConflictError) as group:  # a conflict: a new lease was gone before its first use
                self._failures += 1
                self.failure = next((e for e in group.exceptions if isinstance(e, WherryError)), None)
                if self._failures == 1:
                    why = str(group.exceptions[0]).splitlines()[0]
                    log.warning("the store can't be reached", server=self._server.name, why=why)
            await self._clock.sleep(RETRY.delay_s(self._failures, self._rng))

    async def _one_lease(self, lead: Lead) -> None:
        lease = await self._store.lease(ttl_s=LEASE_TTL_S)
        try:
            record = Put(keys.SERVERS + self._server.id, self._server.to_bytes(), lease.id)
            await self._store.commit(Txn((), (record,)))
            if self._failures:
                log.info("the store answered again", server=self._server.name)
            self._failures, self.failure = 0, None
            self._holds_lease.set()
            await _until_lost(lease, self._campaign(lease, lead), self._keep_record(record))
            log.warning("the lease was lost", server=self._server.name)
        finally:
            self._holds_lease.clear()
            await _bounded(lease.revoke)

    async def _keep_record(self, record: Put) -> None:
        """Put the record back whenever it is gone although the lease is held, until cancelled.

        So it is when a put of an earlier lease came late, and took the record along as that lease ended. A server
        without a record is called gone, and its nodes silent. Raises UnavailableError if this lease can't mend that.
        """
        while True:
            await self._clock.sleep(CHECK_RECORD_S)
            if self._server.id in self._state.servers:
                continue
            try:
                if await self._store.get(record.key) is None:
                    log.warning("this server's record was gone", server=self._server.name)
                    await self._store.commit(Txn((CreatedAt(record.key, ABSENT),), (record,)))
            except ConflictError as error:
                raise UnavailableError("the lease is not what it seems", why=error.what) from error
            except UnavailableError:
                continue  # the lease tells soon whether the store is lost

    async def _campaign(self, lease: Lease, lead: Lead) -> None:
        while True:
            fence = await self._elected(lease)
            if fence is not None:
                log.info("took the lead", server=self._server.name, revision=fence.revision)
                self.is_leading = True
                try:
                    await lead(fence)
                finally:
                    self.is_leading = False
                    log.info("gave the lead up", server=self._server.name, revision=fence.revision)
            await self._leader_changed()

    async def _elected(self, lease: Lease) -> CreatedAt | None:
        if self._state.leader.get("") is not None:
            return None
        put = Put(keys.LEADER, LeaderRecord(server=self._server.id).to_bytes(), lease.id)
        try:
            revision = await self._store.commit(Txn((CreatedAt(keys.LEADER, ABSENT),), (put,)))
        except ConflictError:
            return None
        await self._state.wait_for(revision)
        return CreatedAt(keys.LEADER, revision)

    async def _leader_changed(self) -> None:
        """Wait until there may be no leader: the key went, or a lost word of it is likely by now."""
        changed = asyncio.Event()
        unsubscribe = self._state.subscribe(
            lambda batch: changed.set() if any(c.table == "leader" for c in batch.changes) else None
        )
        try:
            if self._state.leader.get("") is not None:
                await changed.wait()
            else:
                await self._clock.sleep(0.1)
        finally:
            unsubscribe()


async def _until_lost(lease: Lease, *works: Awaitable[None]) -> None:
    """Run the works until the lease is lost, then cancel them; if one fails, that failure goes on."""

    async def watch_lease() -> None:
        await lease.wait_lost()
        raise _LeaseLostError

    async def do(work: Awaitable[None]) -> None:
        await work

    try:
        async with TaskGroup() as tasks:
            tasks.create_task(watch_lease(), name="watch-lease")
            for work in works:
                tasks.create_task(do(work), name="on-lease")
    except* _LeaseLostError:
        pass


class _LeaseLostError(Exception):
    """Ends the group of tasks that live on the lease."""


async def _bounded(clean_up: Callable[[], Awaitable[None]]) -> None:
    """Call it once there is a bound to its time: what is ended in between leaves no coroutine that nobody awaits."""
    try:
        async with asyncio.timeout(2.0):
            await clean_up()
    except (TimeoutError, UnavailableError):
        log.debug("the lease was left to expire")
