"""gVisor by the oci driver: a container whose system calls are answered by a kernel of its own."""

import shutil
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from agent.driver import SANDBOX_IMAGE, ContainerSpec, Limits, StartError
from agent.drivers.oci import OciDriver
from manifests.containers import PullPolicy
from manifests.errors import TimedOutError
from tests.conformance.driver_lab import MIB, ended, look, run, say, shell, tidied, until
from tests.conformance.test_driver import read, text
from tests.oci import OciRig, oci_rig

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]
ITS_KERNEL = "4.4.0"  # what it says that it is
LIMITS = Limits(cpu_m=1000, memory_bytes=192 * MIB, pids=512)  # its own kernel counts, with some 30 MiB


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig() -> AsyncIterator[OciRig]:
    if shutil.which("runsc") is None:
        pytest.skip("there is no runsc on this machine")
    async with oci_rig() as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def driver(rig: OciRig) -> AsyncIterator[OciDriver]:
    made = rig.driver()
    async with tidied(made):
        yield made


def boxed(script: str, **changes: object) -> ContainerSpec:
    return shell(script, runtime="runsc", limits=LIMITS, **changes)


async def test_it_runs_on_a_kernel_of_its_own_and_has_an_exit_code(driver: OciDriver) -> None:
    container = await run(driver, boxed("cat /proc/version; exit 3"))
    assert (await ended(driver, container)).exit_code == 3
    assert ITS_KERNEL in text(await read(driver, container), "stdout")


async def test_it_has_an_address_and_takes_commands_and_signals(driver: OciDriver, rig: OciRig) -> None:
    script = "nc -ll -p 80 -e echo hello & trap 'exit 7' TERM; while :; do sleep 0.1; done"
    container = await run(driver, boxed(script, host_network=False))
    address = (await look(driver, container)).address
    await until(lambda: say(rig.netns, address, 80) == "hello\n")
    result = await driver.execute(container, ["sh", "-c", "cat /proc/version; exit 4"], timeout_s=20)
    assert result.exit_code == 4
    assert ITS_KERNEL.encode() in result.output
    with pytest.raises(TimedOutError):
        await driver.execute(container, ["sleep", "4242"], timeout_s=1)
    assert b"4242" not in (await driver.execute(container, ["ps"], timeout_s=20)).output
    await driver.stop(container, signal="SIGTERM", grace_s=10)
    assert (await look(driver, container)).exit_code == 7


async def test_a_group_shares_its_network_though_each_has_a_kernel_of_its_own(driver: OciDriver) -> None:
    await driver.ensure_image(SANDBOX_IMAGE, PullPolicy.NEVER)
    sandbox = await run(driver, shell("", command=(), image=SANDBOX_IMAGE, host_network=False))
    await run(driver, boxed("nc -ll -p 80 -e echo hello", host_network=False, network_of=sandbox))
    ask = "until nc -w 1 127.0.0.1 80; do sleep 0.1; done"
    client = await run(driver, boxed(ask, host_network=False, network_of=sandbox))
    assert (await ended(driver, client)).exit_code == 0
    assert text(await read(driver, client), "stdout") == "hello\n"


async def test_a_runtime_that_is_not_there_is_named(driver: OciDriver) -> None:
    with pytest.raises(StartError, match="no runtime kata"):
        await driver.create(shell("true", runtime="kata"))
