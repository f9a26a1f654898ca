"""Corners of the embedded store which the conformance suite can't reach: its clock, its buffers, its marks."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

from control_plane.store.protocol import Change, Changes, Delete, Entry, Put, Revision, Store, Txn
from control_plane.store.sqlite import SqliteStore
from control_plane.store.sqlite_file import WAL_BYTES, open_reader
from control_plane.store.sqlite_watch import MARK_EVERY, MOST_BUFFERED, Hub
from foundation.clock import SystemClock
from tests.clocks import StepClock

SOON_S = 10.0


@asynccontextmanager
async def opened(path: Path, clock: StepClock | SystemClock) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(path, clock=clock)
    try:
        yield store
    finally:
        await store.close()


async def next_of(watch: AsyncIterator[Changes]) -> Changes:
    async with asyncio.timeout(SOON_S):
        return await anext(watch)


async def test_leases_of_an_earlier_run_expire_a_full_time_to_live_after_the_restart(tmp_path: Path) -> None:
    path, clock = tmp_path / "store.db", StepClock()
    async with opened(path, clock) as store:
        for name, ttl_s in (("long", 30.0), ("short", 10.0)):
            lease = await store.lease(ttl_s=ttl_s)
            begin = await store.commit(Txn((), (Put(f"/{name}", b"", lease.id),)))
        clock.advance(1_000)
    async with opened(path, clock) as store:
        watch = store.watch("/", after=begin)
        clock.advance(9.9)
        marker = await store.commit(Txn((), (Put("/marker", b""),)))
        assert (await next_of(watch)).changes[0].key == "/marker"
        clock.advance(0.2)
        assert (await next_of(watch)).changes == (Change("/short", None, Revision(marker + 1)),)
        clock.advance(20)
        assert (await next_of(watch)).changes == (Change("/long", None, Revision(marker + 2)),)
    async with opened(path, clock) as store:
        assert [entry.key for entry in (await store.list_prefix("/")).entries] == ["/marker"]


async def test_a_watch_of_a_quiet_prefix_gets_marks_of_progress(tmp_path: Path) -> None:
    async with opened(tmp_path / "store.db", SystemClock()) as store:
        watch = store.watch("/quiet/", after=Revision(1))
        async with asyncio.TaskGroup() as tasks:
            mark = tasks.create_task(next_of(watch), name="mark")
            for number in range(MARK_EVERY + 1):
                tasks.create_task(write(store, number), name="write")
        assert mark.result() == Changes((), mark.result().revision)
        assert mark.result().revision >= MARK_EVERY


async def write(store: Store, number: int) -> None:
    await store.commit(Txn((), (Put(f"/loud/{number}", b""),)))


async def test_compaction_leaves_one_row_for_each_key_that_exists(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with opened(path, SystemClock()) as store:
        for number in range(50):
            await store.commit(Txn((), (Put("/kept", str(number).encode()), Put(f"/{number}", b""))))
            await store.commit(Txn((), (Delete(f"/{number}"),)))
        last = await store.commit(Txn((), (Put("/last", b""),)))
        await store.compact(last)
        with closing(open_reader(path)) as connection:
            assert connection.execute("SELECT count(*) FROM log").fetchone() == (2,)


async def churn(store: Store, rounds: int) -> Revision:
    """Write the same few keys over and over, and return the last revision."""
    last = Revision(1)

    async def write_some(writer: int) -> None:
        nonlocal last
        for number in range(rounds):
            last = await store.commit(Txn((), (Put(f"/{writer}/{number % 8}", bytes(400)),)))

    async with asyncio.TaskGroup() as writers:
        for writer in range(64):
            writers.create_task(write_some(writer), name=f"write-{writer}")
    return last


async def test_a_file_that_is_compacted_stays_small_over_100_000_commits(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with opened(path, SystemClock()) as store:
        sizes = []
        for _ in range(10):
            last = await churn(store, 157)
            await store.compact(Revision(last - 10_000))
            sizes.append(path.stat().st_size)
        assert last > 100_000
        assert max(sizes) < 1.5 * sizes[1], sizes  # what is kept, and what comes until the next compaction
        assert (tmp_path / "store.db-wal").stat().st_size <= WAL_BYTES


async def test_a_file_that_once_was_large_gives_its_space_back(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with opened(path, SystemClock()) as store:
        last = await churn(store, 100)
        await store.compact(last)
        with closing(open_reader(path)) as connection:
            free, pages = (
                connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("freelist_count", "page_count")
            )
        assert free <= pages / 5 + 1
        assert pages < 200
        assert len((await store.list_prefix("/", limit=10_000)).entries) == 64 * 8


async def test_a_watch_that_does_not_read_holds_a_bounded_number_of_changes() -> None:
    hub = Hub(Revision(1))
    subscription = hub.subscribe("/")
    subscription.begin(hub.revision)
    for number in range(2, MOST_BUFFERED + 10):
        revision = Revision(number)
        hub.publish([Changes((Change("/a", Entry("/a", b"", revision, revision), revision),), revision)])
    assert await subscription.next() is None
    subscription.begin(hub.revision)
    hub.publish([Changes((Change("/a", None, Revision(9_999)),), Revision(9_999))])
    assert await subscription.next() == Changes((Change("/a", None, Revision(9_999)),), Revision(9_999))
