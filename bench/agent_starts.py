"""How fast an agent brings up host-network containers, beside raw create and start calls on the same dockerd.

    python -m bench.agent_starts [COUNT]

Also prints what an idle agent with those containers takes: resident memory and CPU. Needs root and dockerd.
"""

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

from agent.driver import ContainerSpec, Limits
from agent.drivers.docker import DockerDriver
from manifests.allocations import Phase
from tests.agents import agent_process, in_network_namespace
from tests.dockerd import DockerdProcess, dockerd
from tests.scripted_server import IMAGE, SLEEP, ScriptedServer, assigned

CONCURRENCIES = (4, 6, 8)
IDLE_S = 30.0
IDLE_CONTAINERS = 10


async def raw_starts(daemon: DockerdProcess, count: int, concurrency: int) -> float:
    """Return how long create and start of that many take, so many at a time."""
    driver = DockerDriver(daemon.socket)
    gate = asyncio.Semaphore(concurrency)

    async def start(number: int) -> None:
        async with gate:
            limits = Limits(cpu_m=20, memory_bytes=16 * 2**20, pids=16)
            spec = ContainerSpec(
                f"raw-{number}",
                IMAGE,
                tuple(SLEEP),
                (),
                {},
                {},
                limits,
                host_network=True,
                cgroup_parent=daemon.cgroup_parent,
            )
            await driver.start(await driver.create(spec))

    began_s = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for number in range(count):
            tasks.create_task(start(number), name=f"raw {number}")
    taken_s = time.monotonic() - began_s
    await daemon.remove_containers()
    await driver.close()
    return taken_s


async def agent_starts(daemon: DockerdProcess, count: int) -> tuple[float, int]:
    """Return how long it takes from assignments to all running, and how many frames the server got meanwhile."""
    async with ScriptedServer(heartbeat_s=1.0).serve() as server:
        with tempfile.TemporaryDirectory() as folder:
            data_dir = Path(folder) / "agent"
            async with agent_process(data_dir, daemon.socket, f"{daemon.cgroup_parent}/agent", server.url) as process:
                await server.until_hello(1)
                wanted = [
                    assigned(
                        f"web-{n}-a",
                        network="host",
                        resources={"cpu": "20m", "memory": "16Mi", "pids": 16},
                        restart={"policy": "never"},
                    )
                    for n in range(count)
                ]
                cpu_s, frames = cpu_of(process.pid), server.frames
                began_s = time.monotonic()
                await server.run(*wanted)
                await server.until(
                    lambda: sum(s.phase is Phase.RUNNING for s in server.statuses.values()) == count, within_s=120
                )
                taken_s = time.monotonic() - began_s
                print(
                    f"  agent's own CPU meanwhile: {cpu_of(process.pid) - cpu_s:.2f} s, frames: {server.frames - frames}"
                )
                if count == IDLE_CONTAINERS:
                    await show_idle(process.pid)
        await daemon.remove_containers()
        return taken_s, server.frames - frames


async def show_idle(pid: int) -> None:
    await asyncio.sleep(2)
    before_s = cpu_of(pid)
    await asyncio.sleep(IDLE_S)
    percent = (cpu_of(pid) - before_s) / IDLE_S * 100
    rss = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    print(
        f"idle with {IDLE_CONTAINERS} containers: {int(rss.split()[1]) / 1024:.0f} MiB resident, {percent:.2f} % of a core"
    )


def cpu_of(pid: int) -> float:
    """Return the CPU seconds that the process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def main(count: int) -> None:
    async with dockerd(Path(tempfile.mkdtemp())) as daemon:
        with in_network_namespace(daemon.netns):
            for round_ in range(2):
                raw = {n: await raw_starts(daemon, count, n) for n in CONCURRENCIES}
                best = min(raw, key=lambda n: raw[n])
                taken_s, _ = await agent_starts(daemon, count)
                shown = ", ".join(f"{n} at a time {s:.2f} s" for n, s in raw.items())
                print(f"round {round_}: raw {shown}; agent {taken_s:.2f} s = {taken_s / raw[best]:.2f} x the best")
            await agent_starts(daemon, IDLE_CONTAINERS)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 50))
