"""The guard process by itself, on real processes in real cgroups: whom it kills, whom never, and when it ends."""

import asyncio
import fcntl
import os
import secrets
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from agent import guard
from agent.guard_process import FOLDER, GuardProcess
from agent.leash import Lease
from tests.lab.waiting import hold_for, wait_until

CGROUPS = next(p for p in (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup")) if p.exists())
pytestmark = pytest.mark.skipif(not os.access(CGROUPS, os.W_OK) or os.getuid() != 0, reason="needs to make cgroups")


@contextmanager
def in_cgroup(name: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a process in a cgroup of that name, as a container's would be."""
    folder = CGROUPS / f"wherry-test-{secrets.token_hex(4)}"
    (folder / name).mkdir(parents=True)
    process = subprocess.Popen(["sleep", "1000"])
    try:
        (folder / name / "cgroup.procs").write_text(str(process.pid))
        yield process
    finally:
        process.kill()
        process.wait()
        (folder / name).rmdir()
        folder.rmdir()


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[GuardProcess]:
    made = GuardProcess(tmp_path)
    yield made
    await made.keep([], guard.boot_s())
    if (tmp_path / FOLDER / guard.LOCK).exists():
        await until_it_ended(tmp_path)


async def until_it_ended(data_dir: Path) -> None:
    async def is_free() -> bool:
        with (data_dir / FOLDER / guard.LOCK).open("a") as lock, suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return True
        return False

    await wait_until(is_free, guard.IDLE_S + 10, "the guard has ended")


def new_id() -> str:
    return secrets.token_hex(32)


async def test_it_kills_what_is_overdue_and_nothing_else(process: GuardProcess) -> None:
    overdue, in_time, unknown = new_id(), new_id(), new_id()
    with in_cgroup(overdue) as first, in_cgroup(in_time) as second, in_cgroup(unknown) as third:
        await process.keep([Lease(overdue, "a", 0.5), Lease(in_time, "b", 60.0)], guard.boot_s())
        assert await asyncio.to_thread(first.wait, 10) == -9
        assert (second.poll(), third.poll()) == (None, None)


async def test_it_says_what_it_killed(process: GuardProcess, tmp_path: Path) -> None:
    async def said() -> str:
        return await asyncio.to_thread((tmp_path / FOLDER / guard.LOG).read_text)

    container = new_id()
    with in_cgroup(container) as held:
        await process.keep([Lease(container, "a", 0.0)], guard.boot_s())
        await wait_until(said, 10, "the log names both", lambda text: container in text and str(held.pid) in text)


async def test_it_kills_what_a_systemd_scope_holds(process: GuardProcess) -> None:
    container = new_id()
    with in_cgroup(f"docker-{container}.scope") as held:
        await process.keep([Lease(container, "a", 0.1)], guard.boot_s())
        assert await asyncio.to_thread(held.wait, 10) == -9


async def test_word_puts_the_kill_off_and_silence_brings_it(process: GuardProcess) -> None:
    container = new_id()
    with in_cgroup(container) as held:
        await process.keep([Lease(container, "a", 1.0)], guard.boot_s())
        for _ in range(10):
            await process.hear(guard.boot_s())
            await asyncio.sleep(0.2)
        assert held.poll() is None
        assert await asyncio.to_thread(held.wait, 10) == -9


async def test_what_comes_up_after_its_time_is_killed_as_well(process: GuardProcess) -> None:
    container = new_id()
    await process.keep([Lease(container, "a", 60.0)], guard.boot_s() - 100)
    with in_cgroup(container) as late:
        assert await asyncio.to_thread(late.wait, 10) == -9


async def test_it_ends_when_it_has_nothing_to_guard(process: GuardProcess, tmp_path: Path) -> None:
    await process.keep([Lease(new_id(), "a", 60.0)], guard.boot_s())
    assert process._is_alive()
    await process.keep([], guard.boot_s())
    await until_it_ended(tmp_path)


async def test_a_guard_that_was_killed_is_replaced_and_there_is_one_at_a_time(process: GuardProcess) -> None:
    async def guards() -> list[int]:
        return await asyncio.to_thread(guards_of, process._folder)

    leases = [Lease(new_id(), "a", 60.0)]
    await process.keep(leases, guard.boot_s())
    first = await wait_until(guards, 10, "one guard", lambda found: len(found) == 1)
    await process.keep(leases, guard.boot_s())
    assert await guards() == first
    os.kill(first[0], 9)
    await wait_until(guards, 10, "no guard", lambda found: not found)
    await process.keep(leases, guard.boot_s())
    await wait_until(guards, 10, "one guard again", lambda found: len(found) == 1)


def guards_of(folder: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
            if guard.__file__.encode() in words and str(folder).encode() in words:
                found.append(int(entry.name))
    return found


async def test_leases_of_another_boot_and_ids_that_are_none_are_ignored(process: GuardProcess, tmp_path: Path) -> None:
    container = new_id()
    with in_cgroup(container) as held, in_cgroup("sh") as short:
        await process.keep([Lease("sh", "b", 0.0), Lease("", "c", 0.0)], guard.boot_s())
        leases = tmp_path / FOLDER / guard.LEASES
        assert guard.read_leases(str(leases.parent)) == {}
        leases.write_text(f'{{"boot": "another", "leases": [{{"container": "{container}", "silent_s": 0.0}}]}}')
        assert guard.read_leases(str(leases.parent)) == {}

        async def alive() -> tuple[object, object]:
            return held.poll(), short.poll()

        await hold_for(alive, 1.0, "both live", lambda found: found == (None, None))


def test_a_number_that_passed_to_another_process_is_not_killed() -> None:
    bystander = subprocess.Popen(["sleep", "1000"])
    try:
        assert not guard._kill_one(bystander.pid, guard._pattern([new_id()]))
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


async def test_the_next_agent_finds_what_is_guarded_and_when_a_server_was_heard(process: GuardProcess) -> None:
    running, gone = new_id(), new_id()
    with in_cgroup(running):
        await process.keep([Lease(running, "a", 60.0), Lease(gone, "b", 60.0)], guard.boot_s())
        heard_s = round(guard.boot_s(), 6)
        await process.hear(heard_s)
        assert process.load() == (heard_s, (Lease(running, "a", 60.0),))


@pytest.mark.parametrize("text", ["", "12.0", "12.0 13.0", "x x", "12.0 12."])
def test_a_half_written_time_is_no_time(text: str, tmp_path: Path) -> None:
    (tmp_path / guard.HEARD).write_text(text)
    assert guard.read_heard(str(tmp_path)) is None
