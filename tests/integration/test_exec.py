"""`wherry exec` as people use it: against a real server, agent and container manager, with pipes and with terminals."""

import asyncio
import fcntl
import os
import re
import signal
import struct
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import pytest_asyncio

from tests.lab.waiting import wait_until
from tests.oci import runtimes_here
from tests.streams_world import World, oci_streams_world, service, streams_world

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["docker", *(f"oci-{r}" for r in runtimes_here())])
async def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("exec")
    kind, _, runtime = request.param.partition("-")
    async with streams_world(folder) if kind == "docker" else oci_streams_world(folder, runtime) as world:
        yield world


@pytest_asyncio.fixture(loop_scope="module")
async def allocation(world: World) -> str:
    (allocation,) = await world.run(service("box"))
    return allocation


class Terminal:
    """A terminal with `wherry` in it, as a person would see it."""

    def __init__(self, ours: int) -> None:
        self.ours, self.seen = ours, ""

    def type(self, text: str) -> None:
        os.write(self.ours, text.encode())

    def size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    async def shows(self, pattern: str) -> str:
        def look() -> str:
            with suppress(BlockingIOError, OSError):
                self.seen += os.read(self.ours, 65536).decode(errors="replace")
            return self.seen

        async def read() -> str:
            return look()

        return await wait_until(read, 30, f"the terminal shows {pattern}", lambda s: bool(re.search(pattern, s)))


@asynccontextmanager
async def in_terminal(world: World, *words: str) -> AsyncIterator[tuple[Terminal, asyncio.subprocess.Process]]:
    ours, theirs = os.openpty()
    terminal = Terminal(ours)
    terminal.size(91, 33)
    before = termios.tcgetattr(theirs)
    process = await world.start(*words, stdin=theirs, stdout=theirs, stderr=theirs)
    os.set_blocking(ours, False)
    try:
        yield terminal, process
        await asyncio.wait_for(process.wait(), 20)
        assert termios.tcgetattr(theirs) == before, "the terminal was not restored"
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        os.close(theirs)
        os.close(ours)


async def test_output_errors_and_exit_codes_come_back_apart(world: World, allocation: str) -> None:
    ended = await world.wherry("exec", allocation, "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (ended.code, ended.out, ended.err) == (7, b"out\n", "err\n")
    assert (await world.wherry("exec", allocation, "--", "sh", "-c", "kill -TERM $$")).code == 128 + signal.SIGTERM
    missing = await world.wherry("exec", allocation, "--", "nothing-of-that-name")
    assert missing.code != 0
    assert "nothing-of-that-name" in missing.err + missing.out.decode()


async def test_a_megabyte_goes_through_a_pipe_and_back_unchanged(world: World, allocation: str) -> None:
    data = os.urandom(3 << 20)
    ended = await world.wherry("exec", "-i", allocation, "--", "cat", given=data)
    assert ended.code == 0, ended.err
    assert ended.out == data
    saved = await world.wherry("exec", allocation, "-i", "--", "sh", "-c", "cat > /x; wc -c < /x", given=data)
    assert saved.out.strip() == str(len(data)).encode()


async def test_a_shell_in_a_terminal_resizes_is_interrupted_and_leaves_the_terminal_as_it_was(
    world: World, allocation: str
) -> None:
    async with in_terminal(world, "exec", "-it", allocation, "--", "sh") as (terminal, process):
        await terminal.shows(r"# ")
        terminal.type("stty size; test -t 0 && echo is-a-ter''minal\r")
        await terminal.shows(r"33 91\s")
        await terminal.shows("is-a-terminal")
        terminal.size(120, 40)
        process.send_signal(signal.SIGWINCH)
        for _ in range(50):
            terminal.type("stty size\r")
            with suppress(AssertionError, TimeoutError):
                async with asyncio.timeout(0.4):
                    await terminal.shows("40 120")
                    break
        assert "40 120" in terminal.seen
        terminal.type("sleep 1000\r")
        await terminal.shows("sleep 1000")
        await asyncio.sleep(0.3)
        terminal.type("\x03")
        terminal.type("echo interrupted=$?\r")
        await terminal.shows("interrupted=130")
        terminal.type("exit 5\r")
        assert await asyncio.wait_for(process.wait(), 20) == 5


async def test_a_terminal_is_restored_when_the_command_is_told_to_end_and_what_ran_is_gone(
    world: World, allocation: str
) -> None:
    async with in_terminal(world, "exec", "-it", allocation, "--", "sh", "-c", "echo begun; exec sleep 4321") as (
        terminal,
        process,
    ):
        await terminal.shows("begun")
        process.terminate()
    await gone(world, allocation, "sleep 4321")


async def test_ctrl_c_without_a_terminal_ends_what_ran_inside(world: World, allocation: str) -> None:
    process = await world.start("exec", allocation, "--", "sh", "-c", "echo begun; sleep 8765 & wait")
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 20) == b"begun\n"
    process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(process.wait(), 20) == 130
    await gone(world, allocation, "sleep 8765")


async def gone(world: World, allocation: str, command: str) -> None:
    async def left() -> bool:
        return command.encode() in (await world.wherry("exec", allocation, "--", "ps", "-o", "args")).out

    await wait_until(left, 20, f"{command} is gone", lambda is_left: not is_left)


async def test_who_ran_what_is_told_as_an_event(world: World, allocation: str) -> None:
    await world.wherry("exec", allocation, "--", "echo", "looking around")

    async def told() -> list[dict[str, object]]:
        found = (await world.client.list("events"))["items"]
        return [e for e in found if e["reason"] == "exec" and "looking around" in str(e["message"])]

    (event,) = await wait_until(told, 20, "it is told", bool)
    assert event["by"].startswith("admin token")  # type: ignore[attr-defined]  # text
    assert allocation in str(event["message"])


async def test_what_cannot_be_entered_says_why(world: World, allocation: str) -> None:
    unknown = await world.wherry("exec", "box-0-none", "--", "true")
    assert unknown.code == 3
    assert "there is no allocation box-0-none" in unknown.err
    container = await world.wherry("exec", allocation, "-c", "other", "--", "true")
    assert container.code == 3
    assert "no container other" in container.err
    nothing = await world.wherry("exec", allocation)
    assert nothing.code == 2
    assert "two dashes" in nothing.err
    await world.client.apply([service("short", "exit 0", restart={"policy": "onFailure"})])

    async def short() -> list[dict[str, object]]:
        return list((await world.client.list("allocations", name="short"))["items"])

    (ended,) = await wait_until(
        short, 30, "it has ended", lambda a: bool(a) and a[0]["phase"] in ("succeeded", "backoff", "failed")
    )
    refused = await world.wherry("exec", str(ended["id"]), "--", "true")
    assert refused.code != 0
    assert "doesn't run" in refused.err or "has ended" in refused.err
    await world.client.delete("default", "service", "short")
