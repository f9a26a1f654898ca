"""What every driver that can promises of commands to which somebody is attached."""

import asyncio
import os
import re
import signal

import pytest

from agent.driver import Attached, ContainerId, Driver, ExecSpec, SupportsAttach
from manifests.errors import WherryError
from tests.conformance.driver_lab import run, shell
from tests.conformance.test_driver import FOREVER
from tests.lab.waiting import wait_until

pytestmark = pytest.mark.docker
END_S = 30.0


def attaching(driver: Driver) -> SupportsAttach:
    assert isinstance(driver, SupportsAttach)
    return driver


async def everything(attached: Attached) -> tuple[bytes, bytes]:
    """Return all that it writes: on stdout, on stderr."""
    found = {"stdout": bytearray(), "stderr": bytearray()}
    async with asyncio.timeout(END_S):
        while (chunk := await attached.read()) is not None:
            found[chunk.stream] += chunk.data
    return bytes(found["stdout"]), bytes(found["stderr"])


async def ran(
    driver: Driver, container: ContainerId, script: str, given: bytes | None = None
) -> tuple[int, bytes, bytes]:
    spec = ExecSpec(("sh", "-c", script), has_input=given is not None)
    async with attaching(driver).attach_exec(container, spec) as attached, asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(everything(attached))
        if given is not None:
            for at in range(0, len(given), 40_000):
                await attached.write(given[at : at + 40_000])
            await attached.end_input()
        out, err = await reading
        return await attached.exit_code(), out, err


async def test_streams_are_apart_and_the_exit_code_is_told(driver: Driver) -> None:
    container = await run(driver, shell(FOREVER))
    assert await ran(driver, container, "echo out; echo err >&2; exit 7") == (7, b"out\n", b"err\n")
    assert (await ran(driver, container, "kill -KILL $$"))[0] == 128 + signal.SIGKILL


async def test_input_comes_whole_and_its_end_is_seen(driver: Driver) -> None:
    container = await run(driver, shell(FOREVER))
    data = os.urandom(1 << 20)
    assert await ran(driver, container, "cat", data) == (0, data, b"")


async def test_a_terminal_is_one_and_has_the_size_it_is_given(driver: Driver) -> None:
    container = await run(driver, shell(FOREVER, env={"OWN": "kept"}))
    # Docker takes the size only once the command runs.
    script = "until stty size | grep '33 91'; do sleep 0.02; done 2> /dev/null; echo $OWN; read line; stty size; tty"
    spec = ExecSpec(("sh", "-c", script), has_input=True, has_terminal=True, columns=91, rows=33)
    async with attaching(driver).attach_exec(container, spec) as attached, asyncio.timeout(END_S):
        seen = b""
        while b"kept" not in seen:
            chunk = await attached.read()
            assert chunk is not None
            seen += chunk.data
        await attached.resize(120, 40)
        await attached.write(b"\r")
        seen += (await everything(attached))[0]
        assert await attached.exit_code() == 0
    assert re.search(rb"33 91\s.*40 120\s.*/dev/", seen, re.DOTALL), seen


async def test_who_leaves_ends_the_command(driver: Driver) -> None:
    container = await run(driver, shell(FOREVER))
    async with attaching(driver).attach_exec(container, ExecSpec(("sh", "-c", "echo begun; sleep 7531"))) as attached:
        chunk = await attached.read()
        assert chunk is not None
        assert chunk.data == b"begun\n"

    async def left() -> bool:
        return b"sleep 7531" in (await ran(driver, container, "ps -o args | grep -v grep"))[1]

    await wait_until(left, END_S, "it is gone", lambda is_left: not is_left)


async def test_a_container_that_has_ended_takes_no_commands(driver: Driver) -> None:
    container = await driver.create(shell(FOREVER))
    with pytest.raises(WherryError):
        await ran(driver, container, "true")
