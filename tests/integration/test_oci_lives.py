"""What may befall containers of the oci driver: full logs, a killed shim, agents that end amid a start."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from agent.driver import ContainerState, PublishedPort, StartError
from agent.drivers import oci, oci_logs
from agent.drivers.oci import OciDriver
from agent.drivers.oci_folder import ContainerFolder
from tests.conformance.driver_lab import ended, look, run, runs, say, shell, tidied, until
from tests.conformance.test_driver import FOREVER, read, text
from tests.lab.cgroups import hierarchies
from tests.oci import OciRig, oci_rig

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]
LINES = 40_000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig() -> AsyncIterator[OciRig]:
    async with oci_rig() as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def driver(rig: OciRig) -> AsyncIterator[OciDriver]:
    made = rig.driver()
    async with tidied(made):
        yield made


def folder_of(rig: OciRig, container: str) -> ContainerFolder:
    return ContainerFolder.load(rig.folder / "oci" / "containers" / container, rig.folder / "oci" / "exits")


async def test_a_follower_loses_nothing_while_the_log_is_rotated(
    rig: OciRig, driver: OciDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oci_logs, "FILE_BYTES", 256 * 1024)
    monkeypatch.setattr(oci, "ROTATE_EVERY_S", 0.05)
    script = f"for i in $(seq 1 {LINES // 1000}); do seq $((i * 1000 - 999)) $((i * 1000)); sleep 0.05; done"
    container = await run(driver, shell(script))
    log = folder_of(rig, container).log
    async with asyncio.timeout(60):
        followed = await read(driver, container, follow=True)
    assert text(followed, "stdout") == "".join(f"{number}\n" for number in range(1, LINES + 1))
    assert len(oci_logs.files_of(log)) == oci_logs.FILES
    assert text(await read(driver, container, tail=3), "stdout").split() == [str(LINES - n) for n in (2, 1, 0)]


async def test_a_container_whose_shim_was_killed_is_killed_and_told_as_lost(rig: OciRig, driver: OciDriver) -> None:
    container = await run(driver, shell(FOREVER))
    pid = (await look(driver, container)).pid
    os.kill(int(folder_of(rig, container).shim_pid_file.read_text()), signal.SIGKILL)
    found = await ended(driver, container)
    assert found.exit_code == 255
    await until(lambda: not runs(pid))
    await driver.remove(container)


async def test_the_ports_of_what_ended_while_no_agent_ran_are_free_again(rig: OciRig) -> None:
    port = PublishedPort(container_port=80, host_port=18200, host_address="127.0.0.1")
    spec = shell("nc -ll -p 80 -e echo hello", host_network=False, ports=(port,))
    first = rig.driver()
    container = await run(first, spec)
    lives = await run(first, shell(FOREVER, host_network=False))
    pid, address = (await look(first, container)).pid, (await look(first, lives)).address
    await first.close()
    os.kill(pid, signal.SIGKILL)
    await until(lambda: not runs(pid))
    async with tidied(rig.driver()) as second:
        assert (await ended(second, container)).exit_code == 137
        again = await run(second, shell("nc -ll -p 80 -e echo again", host_network=False, ports=(port,)))
        await until(lambda: say(rig.netns, "127.0.0.1", 18200) == "again\n")
        assert (await look(second, again)).address != address
        assert (await look(second, lives)).state is ContainerState.RUNNING


async def test_a_start_that_was_broken_off_is_begun_anew(rig: OciRig, driver: OciDriver) -> None:
    """The runtime made the container and then the agent was killed: nobody let it run."""
    container = await driver.create(shell("echo once; exit 5"))
    await driver.start(container)
    await ended(driver, container)
    await driver.remove(container)
    other = await driver.create(shell("echo once; exit 5"))
    await asyncio.to_thread(half_started, rig, other)
    async with tidied(rig.driver()) as second:
        assert (await look(second, other)).state is ContainerState.CREATED
        await second.start(other)
        assert (await ended(second, other)).exit_code == 5
        assert text(await read(second, other), "stdout") == "once\n"


def half_started(rig: OciRig, container: str) -> None:
    """Leave behind what an agent does that dies between the two calls of the runtime."""
    folder = folder_of(rig, container)
    folder.pid_file.write_text("999999")
    folder.shim_pid_file.write_text("999999")
    (folder.path / "upper" / "left").write_text("x")


async def test_a_port_on_which_a_process_of_the_host_listens_is_taken(driver: OciDriver, rig: OciRig) -> None:
    holder = await run(driver, shell("nc -ll -p 18201 -e echo hello"))  # on the host's network
    await until(lambda: say(rig.netns, "127.0.0.1", 18201) == "hello\n")
    port = PublishedPort(container_port=80, host_port=18201, host_address="")
    refused = await driver.create(shell(FOREVER, host_network=False, ports=(port,)))
    with pytest.raises(StartError, match="port 18201 of any address is taken"):
        await driver.start(refused)
    assert (await look(driver, refused)).error
    await driver.remove(holder)


async def test_a_container_and_those_that_share_its_network_find_it_by_its_name(driver: OciDriver) -> None:
    holder = await run(driver, shell(FOREVER, host_network=False, hostname="web-0"))
    member = await run(driver, shell("cat /etc/hosts", host_network=False, network_of=holder))
    await ended(driver, member)
    line = f"{(await look(driver, holder)).address} web-0"
    assert line in text(await read(driver, member), "stdout").splitlines()
    assert line in (await driver.execute(holder, ["cat", "/etc/hosts"], timeout_s=10)).output.decode().splitlines()


async def test_nothing_is_left_of_what_is_removed(driver: OciDriver, rig: OciRig) -> None:
    container = await run(driver, shell(FOREVER, host_network=False))
    folder = folder_of(rig, container)
    await driver.remove(container)
    assert not folder.path.exists()
    assert not folder.exit_file.exists()
    assert list((rig.folder / "oci" / "state").glob(f"*/{container}")) == []
    assert not any((top / rig.id / container).exists() for top in hierarchies())
