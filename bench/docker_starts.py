"""How long a container's create and start take through the driver, beside the same two calls without it.

Run as root: `python -m bench.docker_starts`. It starts a dockerd of its own and prints a table.
"""

import asyncio
import secrets
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp

from agent.driver import ContainerSpec, Limits
from agent.drivers.docker import DockerDriver
from agent.drivers.docker_codec import to_create_body
from agent.drivers.local_image import BUSYBOX_IMAGE
from tests.dockerd import dockerd

STARTS = 24
CONCURRENCY = (1, 4, 8)


def spec() -> ContainerSpec:
    limits = Limits(cpu_m=100, memory_bytes=32 << 20, pids=16)
    name = f"bench-{secrets.token_hex(6)}"
    return ContainerSpec(name, BUSYBOX_IMAGE, ("sleep", "1000"), (), {}, {"bench": "1"}, limits, host_network=True)


async def measure(start: Callable[[], Awaitable[None]], concurrency: int) -> tuple[float, float]:
    """Return starts a second, and the median of one's milliseconds."""
    times: list[float] = []

    async def worker(count: int) -> None:
        for _ in range(count):
            began_s = time.perf_counter()
            await start()
            times.append(time.perf_counter() - began_s)

    began_s = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for number in range(concurrency):
            tasks.create_task(worker(STARTS // concurrency), name=f"worker-{number}")
    return STARTS / (time.perf_counter() - began_s), 1000 * statistics.median(times)


async def clear(driver: DockerDriver) -> None:
    for container in await driver.list_containers({"bench": "1"}):
        await driver.remove(container.id)


async def main() -> None:
    async with dockerd(Path(tempfile.mkdtemp())) as daemon:
        driver = DockerDriver(daemon.socket, timeout_s=60)
        raw = aiohttp.ClientSession("http://docker", connector=aiohttp.UnixConnector(str(daemon.socket), limit=0))

        async def by_driver() -> None:
            await driver.start(await driver.create(spec()))

        async def by_hand() -> None:
            wanted = spec()
            path = "/v1.41/containers"
            async with raw.post(f"{path}/create", params={"name": wanted.name}, json=to_create_body(wanted)) as answer:
                container = (await answer.json())["Id"]
            async with raw.post(f"{path}/{container}/start") as answer:
                await answer.read()

        try:
            await measure(by_driver, 4)
            await clear(driver)
            for concurrency in CONCURRENCY:
                for name, start in (("raw", by_hand), ("driver", by_driver)):
                    rate, median_ms = await measure(start, concurrency)
                    print(f"{name:7} concurrency {concurrency}: {rate:5.1f} starts/s, median {median_ms:6.1f} ms")
                    await clear(driver)
            await overhead(driver, raw)
            await lists(driver)
        finally:
            await driver.close()
            await raw.close()


async def overhead(driver: DockerDriver, raw: aiohttp.ClientSession) -> None:
    """Print what the driver adds to one call, by the cheapest one."""
    container = await driver.create(spec())
    rounds = 300
    for name in ("raw", "driver"):
        began_s = time.perf_counter()
        for _ in range(rounds):
            if name == "driver":
                await driver.inspect(container)
            else:
                async with raw.get(f"/v1.41/containers/{container}/json") as answer:
                    await answer.json()
        print(f"{name:7} inspect: {1000 * (time.perf_counter() - began_s) / rounds:.2f} ms")
    await clear(driver)


async def lists(driver: DockerDriver) -> None:
    for _ in range(100):
        await driver.create(spec())
    began_s = time.perf_counter()
    found = await driver.list_containers({"bench": "1"})
    print(f"list of {len(found)}: {1000 * (time.perf_counter() - began_s):.0f} ms")


if __name__ == "__main__":
    asyncio.run(main())
