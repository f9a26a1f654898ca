"""What the embedded store does when its process dies, its file is damaged or shared, and its disk is full."""

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from control_plane.store.protocol import ABSENT, CreatedAt, Put, Revision, Txn
from control_plane.store.sqlite import SqliteStore
from foundation.clock import SystemClock
from manifests.errors import StoreFullError, UnavailableError, WherryError

SOON_S = 30.0
ROOT = Path(__file__).parents[2]
VALUE = b"x" * 2_000

# Writes pairs of keys with several writers, and prints each key once its commit was acknowledged.
WRITING = """
import asyncio, sys
from control_plane.store.protocol import Put, Txn
from control_plane.store.sqlite import SqliteStore
from foundation.clock import SystemClock

async def write(store, writer):
    for number in range(1_000_000):
        key = f"/w/{writer}/{number}"
        revision = await store.commit(Txn((), (Put(key + "/a", b"x" * 500), Put(key + "/b", b"x" * 500))))
        print(key, revision, flush=True)

async def main():
    store = await SqliteStore.open(sys.argv[1], clock=SystemClock())
    async with asyncio.TaskGroup() as writers:
        for writer in range(8):
            writers.create_task(write(store, writer))

asyncio.run(main())
"""


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(path, clock=SystemClock())
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def writing_process(path: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITING, str(path), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.communicate()


async def read_acknowledged(process: asyncio.subprocess.Process, most: int) -> dict[str, int]:
    """Return the next acknowledged keys with their revisions; fewer only at the end of the output."""
    assert process.stdout is not None
    acknowledged: dict[str, int] = {}
    async with asyncio.timeout(SOON_S):
        while len(acknowledged) < most and (line := await process.stdout.readline()).endswith(b"\n"):
            key, revision = line.decode().split()
            acknowledged[key] = int(revision)
    return acknowledged


async def test_a_killed_process_loses_no_acknowledged_write_and_leaves_none_half_done(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    acknowledged: dict[str, int] = {}
    for attempt in range(3):
        async with writing_process(path) as process:
            run = await read_acknowledged(process, 200 + 311 * attempt)
            process.send_signal(signal.SIGKILL)
            run |= await read_acknowledged(process, 1_000_000)
        acknowledged |= run
        async with opened(path) as store:
            found: dict[str, Revision] = {}
            page = await store.list_prefix("/w/")
            entries = [*page.entries]
            while page.next_key is not None:
                page = await store.list_prefix("/w/", at=page.revision, start=page.next_key)
                entries += page.entries
            found = {entry.key: entry.mod_revision for entry in entries}
            for key, revision in run.items():
                assert found[f"{key}/a"] == found[f"{key}/b"] == revision
            halves = {key[:-2] for key in found}
            assert len(found) == 2 * len(halves)
            assert {f"{key}/a" for key in acknowledged} <= found.keys()


async def test_a_second_opener_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with writing_process(path) as process:
        await read_acknowledged(process, 1)
        with pytest.raises(UnavailableError, match=f"locked by process {process.pid} "):
            await SqliteStore.open(path, clock=SystemClock())
    async with opened(path):
        with pytest.raises(UnavailableError, match=f"locked by process {os.getpid()} "):
            await SqliteStore.open(path, clock=SystemClock())


async def filled(path: Path) -> None:
    async with opened(path) as store:
        for number in range(200):
            await store.commit(Txn((), (Put(f"/{number}", VALUE),)))


async def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await filled(path)
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + os.urandom(20_000) + whole[middle + 20_000 :])
    with pytest.raises(WherryError, match="corrupt"):
        await SqliteStore.open(path, clock=SystemClock())
    path.write_bytes(whole[:middle])
    with pytest.raises(WherryError, match="corrupt"):
        await SqliteStore.open(path, clock=SystemClock())
    path.write_bytes(b"this is no database, but long enough to be looked at " * 100)
    with pytest.raises(WherryError, match="corrupt"):
        await SqliteStore.open(path, clock=SystemClock())
    path.write_bytes(whole)
    async with opened(path) as store:
        assert await store.get("/199") is not None


async def test_a_foreign_or_newer_file_is_refused(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.db"
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE t (x)")
    connection.close()
    with pytest.raises(WherryError, match="not a store of Wherry"):
        await SqliteStore.open(foreign, clock=SystemClock())
    newer = tmp_path / "newer.db"
    await filled(newer)
    with sqlite3.connect(newer) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(WherryError, match="format is 99"):
        await SqliteStore.open(newer, clock=SystemClock())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 4 MB."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    mount = tmp_path / "disk"
    mount.mkdir()
    assert os.system(f"mount -t tmpfs -o size=4m wherry-test {mount}") == 0
    try:
        yield mount
    finally:
        assert os.system(f"umount {mount}") == 0


async def fill(store: SqliteStore, kept: dict[str, Revision]) -> None:
    """Write until that fails, and note what was acknowledged."""
    for number in range(1_000_000):
        key = f"/{number}"
        kept[key] = await store.commit(
            Txn((CreatedAt(key, ABSENT),), (Put(key, VALUE), Put("/n", str(number).encode())))
        )


@pytest.mark.hosts
async def test_a_full_disk_refuses_writes_whole_and_heals(small_disk: Path) -> None:
    path = small_disk / "store.db"
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(2_000_000))
    kept: dict[str, Revision] = {}
    async with opened(path) as store:
        with pytest.raises(StoreFullError, match="disk is full"):
            await fill(store, kept)
        failed = f"/{len(kept)}"
        assert await store.get(failed) is None
        counter = await store.get("/n")
        assert counter is not None
        assert int(counter.value) == len(kept) - 1
        ballast.unlink()
        kept[failed] = await store.commit(Txn((CreatedAt(failed, ABSENT),), (Put(failed, VALUE),)))
        assert kept[failed] == max(kept.values()) == len(kept) + 1
    async with opened(path) as store:
        for key, revision in kept.items():
            entry = await store.get(key)
            assert entry is not None
            assert entry.mod_revision == revision


async def test_secrets_in_the_file_are_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with opened(path) as store:
        await store.commit(Txn((), (Put("/a", b""),)))
        assert [entry.stat().st_mode & 0o077 for entry in os.scandir(tmp_path)] == [0] * 4
