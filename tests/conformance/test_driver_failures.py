"""What every Driver promises when its container manager dies, restarts or hangs."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from agent.driver import ContainerState, Driver
from agent.drivers.docker import DockerDriver
from agent.drivers.local_image import BUSYBOX_IMAGE
from manifests.containers import PullPolicy
from manifests.errors import UnavailableError
from tests.conformance.driver_lab import SUITE, DriverLab, Manager, ended, look, run, runs, shell, tidied, wait_for_end

pytestmark = pytest.mark.docker


@pytest.fixture
def manager(lab: DriverLab) -> Manager:
    if lab.manager is None:
        pytest.skip("this driver has no manager to break")
    return lab.manager


FOREVER = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done"


@pytest_asyncio.fixture
async def driver(lab: DriverLab) -> AsyncIterator[Driver]:
    """An impatient driver, whose containers are removed after the test, with a manager that runs again."""
    async with tidied(lab.driver(timeout_s=1.0)) as driver:
        yield driver


async def test_containers_outlive_the_manager_and_are_found_again(driver: Driver, manager: Manager) -> None:
    lives, ends = await run(driver, shell(FOREVER)), await run(driver, shell(FOREVER))
    async with asyncio.timeout(10):
        await anext(driver.logs(ends, follow=True, tail=None))  # its trap is set
    before = [await look(driver, lives), await look(driver, ends)]
    manager.kill()
    try:
        with pytest.raises(UnavailableError, match=r"no (docker|container runtime) at"):
            await driver.list_containers(SUITE)
        os.kill(before[1].pid, signal.SIGTERM)
        wait_for_end(before[1].pid)
        assert runs(before[0].pid)
    finally:
        manager.start()
    found = {container.id: container for container in await driver.list_containers(SUITE)}
    assert set(found) == {lives, ends}
    assert (found[lives].state, found[lives].pid) == (ContainerState.RUNNING, before[0].pid)
    assert (found[ends].state, found[ends].exit_code) == (ContainerState.EXITED, 7)


async def test_an_agent_that_restarts_finds_what_runs(driver: Driver, lab: DriverLab) -> None:
    container = await run(driver, shell(FOREVER))
    successor = lab.driver()
    try:
        assert [found.id for found in await successor.list_containers(SUITE)] == [container]
    finally:
        await successor.close()


async def test_events_and_followed_logs_end_when_the_manager_dies(driver: Driver, manager: Manager) -> None:
    container = await run(driver, shell(FOREVER))
    logs, events = driver.logs(container, follow=True, tail=None), driver.events({"suite": "conformance"})
    async with asyncio.timeout(10):
        await anext(logs)
        await run(driver, shell("exit 0"))
        await anext(events)  # both are connected
        manager.kill()
    try:
        for stream in (logs, events):
            async with asyncio.timeout(10):
                await drained(stream)
    finally:
        manager.start()


async def drained(stream: AsyncIterator[object]) -> None:
    """Return when the stream has ended, in the one way or the other that Driver allows."""
    try:
        async for _ in stream:
            pass
    except UnavailableError:
        return


async def test_a_manager_that_hangs_is_unavailable_in_time_and_works_again(driver: Driver, manager: Manager) -> None:
    container = await run(driver, shell(FOREVER))
    manager.pause()
    try:
        for call in (
            driver.info(),
            driver.inspect(container),
            driver.list_containers(SUITE),
            driver.create(shell(FOREVER)),
            driver.ensure_image(BUSYBOX_IMAGE, PullPolicy.ALWAYS),
            driver.stop(container, signal="SIGTERM", grace_s=1),
            driver.execute(container, ["true"], timeout_s=10),
            driver.remove(container),
        ):
            began_s = time.monotonic()
            with pytest.raises(UnavailableError, match="did not answer within"):
                await call
            assert time.monotonic() - began_s < 20
    finally:
        manager.resume()
    assert (await driver.info()).name
    other = await run(driver, shell(FOREVER))
    assert (await look(driver, other)).state is ContainerState.RUNNING


async def test_a_create_whose_answer_was_lost_is_adopted(driver: Driver, manager: Manager) -> None:
    spec = shell("exit 5")
    manager.pause()
    try:
        with pytest.raises(UnavailableError):
            await driver.create(spec)  # the request lies in the socket, and is done when the manager wakes
    finally:
        manager.resume()
    container = await driver.create(spec)
    assert [found.id for found in await driver.list_containers(SUITE)] == [container]
    await driver.start(container)
    assert (await ended(driver, container)).exit_code == 5


async def test_a_manager_that_is_not_there_says_where_it_was_sought(tmp_path: Path) -> None:
    driver = DockerDriver(tmp_path / "none.sock")
    try:
        with pytest.raises(UnavailableError, match=r"none\.sock"):
            await driver.info()
    finally:
        await driver.close()
