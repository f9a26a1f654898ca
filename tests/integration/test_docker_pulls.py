"""Pulls by the docker driver from a real registry: shared, refused, spoilt, stalled and cancelled."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from agent.driver import ImageError
from agent.drivers.docker import DockerDriver
from manifests.containers import PullPolicy
from tests.conformance.driver_lab import SUITE, ended, run, shell
from tests.dockerd import DockerdProcess, dockerd
from tests.registry import Registry, registry

pytestmark = pytest.mark.docker


@pytest_asyncio.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[DockerdProcess]:
    """A dockerd without any image: with busybox loaded it would have the layers already."""
    async with dockerd(tmp_path, bip=None, images=False) as made:
        yield made


@pytest_asyncio.fixture
async def served(daemon: DockerdProcess) -> AsyncIterator[Registry]:
    async with registry(daemon.netns) as made:
        yield made


@pytest_asyncio.fixture
async def driver(daemon: DockerdProcess) -> AsyncIterator[DockerDriver]:
    made = DockerDriver(daemon.socket, pull_idle_s=2.0)
    try:
        yield made
    finally:
        await made.close()


async def test_many_who_ask_at_once_share_one_pull(driver: DockerDriver, served: Registry) -> None:
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        for _ in range(8):
            tasks.create_task(driver.ensure_image(served.image, PullPolicy.ALWAYS))
    assert served.layers_sent == 1
    container = await run(driver, shell("exit 6", image=served.image, labels=SUITE))
    assert (await ended(driver, container)).exit_code == 6


async def test_an_image_that_is_there_is_not_pulled_unless_always(driver: DockerDriver, served: Registry) -> None:
    await driver.ensure_image(served.image, PullPolicy.IF_MISSING)
    served.open_blobs.clear()
    async with asyncio.timeout(5):
        await driver.ensure_image(served.image, PullPolicy.IF_MISSING)
        await driver.ensure_image(served.image, PullPolicy.NEVER)
        await driver.ensure_image(served.image, PullPolicy.ALWAYS)  # only asks for the manifest
    assert served.layers_sent == 1


async def test_a_tag_that_the_registry_lacks_is_named(driver: DockerDriver, served: Registry) -> None:
    with pytest.raises(ImageError, match="no such image") as caught:
        await driver.ensure_image(f"{served.address}/busybox:2", PullPolicy.IF_MISSING)
    assert "busybox:2" in caught.value.what


async def test_an_error_amid_the_progress_is_an_image_error(driver: DockerDriver, served: Registry) -> None:
    served.spoilt = True
    async with asyncio.timeout(60):
        with pytest.raises(ImageError, match="cannot pull image"):
            await driver.ensure_image(served.image, PullPolicy.IF_MISSING)
    served.spoilt = False
    await driver.ensure_image(served.image, PullPolicy.IF_MISSING)  # and the next try works


async def test_a_registry_that_stalls_is_given_up(driver: DockerDriver, served: Registry) -> None:
    served.open_blobs.clear()
    async with asyncio.timeout(20):
        with pytest.raises(ImageError, match="no progress for 2 s"):
            await driver.ensure_image(served.image, PullPolicy.IF_MISSING)


async def test_when_who_pulls_is_cancelled_another_takes_over(driver: DockerDriver, served: Registry) -> None:
    served.open_blobs.clear()
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        first = tasks.create_task(driver.ensure_image(served.image, PullPolicy.IF_MISSING))
        while not served.layers_asked:  # noqa: ASYNC110  # it is docker that asks
            await asyncio.sleep(0.02)
        second = tasks.create_task(driver.ensure_image(served.image, PullPolicy.IF_MISSING))
        await asyncio.sleep(0)
        first.cancel()
        served.open_blobs.set()
    assert first.cancelled()
    assert second.done()
    await driver.ensure_image(served.image, PullPolicy.NEVER)
