"""The embedded store: one SQLite file, for `wherry dev` and clusters with one server. Needs no daemon and no grpcio.

Writes go through one thread with group commit (sqlite_writer), reads through two threads with connections of their own,
watches are fed in memory (sqlite_watch). A second process can't open it. Idle, it does nothing at all.
"""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

from control_plane.store.background import Background
from control_plane.store.health import MemberHealth
from control_plane.store.protocol import Changes, Entry, LeaseId, Page, Revision, Txn
from control_plane.store.sqlite_file import file_bytes, open_reader, open_writer, take_lock, translated
from control_plane.store.sqlite_log import Log, read_changes, read_entry, read_leases, read_page
from control_plane.store.sqlite_watch import Ended, Hub
from control_plane.store.sqlite_writer import Writer
from control_plane.store.transactions import check
from foundation.clock import Clock
from foundation.logs import Log as Logger
from manifests.errors import UnavailableError

READERS = 2
READ_TIMEOUT_S = 15.0
EXPIRY_RETRY_S = 1.0

Result = TypeVar("Result")
logger = Logger(__name__)


class SqliteStore:
    """Implements the Store protocol over one file. Open it with `await SqliteStore.open(path, clock=clock)`."""

    def __init__(self, path: Path, clock: Clock, lock: int, log: Log, background: Background) -> None:
        self._path = path
        self._clock = clock
        self._lock = lock
        self._connection = log.connection
        self._background = background
        self._hub = Hub(log.revision)
        self._writer = Writer(path, log, self._hub.publish)
        self._leases: set[SqliteLease] = set()
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")
        self._readers: SimpleQueue[sqlite3.Connection] = SimpleQueue()
        self._is_closed = False

    @classmethod
    async def open(cls, path: Path | str, *, clock: Clock) -> "SqliteStore":
        """Open the store, or make it. Leases of an earlier run get their full time to live once more.

        Raises UnavailableError if another process has it, WherryError if it is corrupt or not a store.
        """
        path = Path(path)
        lock = take_lock(path)
        connection: sqlite3.Connection | None = None
        try:
            connection = await asyncio.to_thread(open_writer, path)
            leases, log = read_leases(connection), Log(connection)
            self = cls(path, clock, lock, log, await Background.open("store"))
        except BaseException:
            if connection is not None:
                connection.close()
            os.close(lock)
            raise
        for _ in range(READERS):
            self._readers.put(open_reader(path))
        if leases:
            self._background.start(self._expire(leases, clock.now_s()), name="expire-leases")
        return self

    async def get(self, key: str) -> Entry | None:
        return await self._read(lambda connection: read_entry(connection, key))

    async def list_prefix(
        self, prefix: str, *, at: Revision | None = None, start: str | None = None, limit: int = 500
    ) -> Page:
        return await self._read(lambda connection: read_page(connection, prefix, at=at, start=start, limit=limit))

    async def commit(self, txn: Txn) -> Revision:
        check(txn)
        return await self._writer.run(lambda log: log.apply(txn))

    async def watch(self, prefix: str, *, after: Revision) -> AsyncIterator[Changes]:
        """Replay from the log, then follow the commits; go back to the log whenever the buffer overflowed."""
        subscription = self._hub.subscribe(prefix)
        position = after
        try:
            while True:
                subscription.begin(self._hub.revision)
                is_replaying = True
                while is_replaying:
                    replay = await self._read(partial(read_changes, prefix=prefix, after=position))
                    position, is_replaying = replay.changes.revision, replay.more
                    if replay.changes.changes:
                        yield replay.changes
                while (live := await subscription.next()) is not None:
                    if live.revision > position:
                        position = live.revision
                        yield live
        except Ended:
            return
        finally:
            self._hub.unsubscribe(subscription)

    async def lease(self, *, ttl_s: float) -> "SqliteLease":
        """Grant a lease. Its holder lives in this process, as the store does, so it needs no renewal to be kept."""
        lease = SqliteLease(self, await self._writer.run(lambda log: log.grant(ttl_s)))
        self._leases.add(lease)
        return lease

    async def compact(self, revision: Revision) -> None:
        await self._writer.run(lambda log: log.begin_compaction(revision))
        start: int | None = 0
        while start is not None:  # in steps, so that other writes get between them
            start = await self._writer.run(partial(Log.compact, revision=revision, start=start))
        while await self._writer.run(Log.shrink):
            pass

    async def members(self) -> tuple[MemberHealth, ...]:
        """Return how the file is: its size with the log beside it, and whether it can be read."""
        why = ""
        try:
            await self._read(lambda connection: connection.execute("SELECT 1").fetchone())
        except UnavailableError as error:
            why = error.sentence()
        size = await asyncio.to_thread(file_bytes, self._path)
        return (MemberHealth(str(self._path), f"SQLite {sqlite3.sqlite_version}", True, size, why),)

    async def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._hub.end()
        for lease in tuple(self._leases):
            lease.let_go()
        async with AsyncExitStack() as stack:  # each step is made whatever becomes of the ones before it
            stack.callback(os.close, self._lock)
            stack.push_async_callback(asyncio.to_thread, self._connection.close)  # checkpoints, as only one may
            stack.callback(self._close_readers)
            stack.push_async_callback(asyncio.to_thread, self._threads.shutdown)
            stack.push_async_callback(self._writer.stop)
            await self._background.close()

    async def revoke(self, lease: "SqliteLease") -> None:
        """For the lease itself: delete it and its keys."""
        self._leases.discard(lease)
        await self._writer.run(lambda log: log.revoke(lease.id))

    def _close_readers(self) -> None:
        while not self._readers.empty():
            self._readers.get_nowait().close()

    async def _read(self, read: Callable[[sqlite3.Connection], Result]) -> Result:
        if self._is_closed:
            raise UnavailableError("the store is closed")
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                return await asyncio.get_running_loop().run_in_executor(self._threads, self._read_in_thread, read)
        except TimeoutError as error:
            raise UnavailableError(f"the store {self._path} did not answer in {READ_TIMEOUT_S:g} s") from error

    def _read_in_thread(self, read: Callable[[sqlite3.Connection], Result]) -> Result:
        connection = self._readers.get()
        try:
            return read(connection)
        except sqlite3.Error as error:
            raise translated(error, self._path) from error
        finally:
            self._readers.put(connection)

    async def _expire(self, leases: Sequence[tuple[LeaseId, float]], begun_s: float) -> None:
        """Let the leases of an earlier run expire, each after its time to live, and then end."""
        for lease, ttl_s in sorted(leases, key=lambda one: one[1]):
            await self._clock.sleep(max(0.0, begun_s + ttl_s - self._clock.now_s()))
            while not await self._expire_one(lease):
                await self._clock.sleep(EXPIRY_RETRY_S)

    async def _expire_one(self, lease: LeaseId) -> bool:
        try:
            await self._writer.run(lambda log: log.revoke(lease))
        except UnavailableError as error:
            logger.warning("lease could not be expired", lease=lease, why=error)
            return False
        return True


class SqliteLease:
    """A lease whose holder is this process: it lasts until it is revoked, or a full time to live after a restart."""

    def __init__(self, store: SqliteStore, id_: LeaseId) -> None:
        self._store = store
        self._id = id_
        self._gone = asyncio.Event()

    @property
    def id(self) -> LeaseId:
        return self._id

    async def wait_lost(self) -> None:
        await self._gone.wait()

    async def revoke(self) -> None:
        if not self._gone.is_set():
            await self._store.revoke(self)
            self._gone.set()

    def let_go(self) -> None:
        """Stop keeping it: the store closes."""
        self._gone.set()
