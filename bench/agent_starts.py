"""How fast an agent brings up host-network containers, beside raw create and start calls on the same dockerd.

    python -m bench.agent_starts [COUNT]

Also prints what an idle agent with ten containers takes: resident memory and CPU. Needs root and dockerd.
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

CONCURRENCIES = (4, 8, 16)
ROUNDS = 3
IDLE_S = 20.0
IDLE_CONTAINERS = 10
CPU_M = 100
MEMORY_BYTES = 16 * 2**20


async def raw_starts(daemon: DockerdProcess, count: int, concurrency: int) -> float:
    """Return how long create and start of that many take, so many at a time."""
    driver = DockerDriver(daemon.socket)
    gate = asyncio.Semaphore(concurrency)
    limits = Limits(cpu_m=CPU_M, memory_bytes=MEMORY_BYTES, pids=128)

    async def start(name: str) -> None:
        spec = ContainerSpec(name, IMAGE, tuple(SLEEP), (), {}, {}, limits, host_network=True)
        async with gate:
            await driver.start(await driver.create(spec))

    began_s = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for number in range(count):
            tasks.create_task(start(f"raw-{number}"), name=f"raw {number}")
    taken_s = time.monotonic() - began_s
    await daemon.remove_containers()
    await driver.close()
    return taken_s


async def agent_starts(daemon: DockerdProcess, count: int, *, then_idle: bool = False) -> float:
    """Return how long it takes from assignments to the server's having heard that all run."""
    amounts = {"cpu": f"{CPU_M}m", "memory": str(MEMORY_BYTES)}
    with tempfile.TemporaryDirectory() as folder:
        async with (
            ScriptedServer(heartbeat_s=1.0).serve() as server,
            agent_process(
                Path(folder) / "agent", daemon.socket, f"{daemon.cgroup_parent}/agent", server.url
            ) as process,
        ):
            await server.until_hello(1)
            wanted = [assigned(f"web-{n}-a", network="host", resources=amounts) for n in range(count)]
            cpu_before_s, frames, began_s = cpu_s(process.pid), server.frames, time.monotonic()
            await server.run(*wanted)
            await server.until(lambda: running(server) == count, within_s=120.0)
            taken_s = time.monotonic() - began_s
            print(f"  agent: {cpu_s(process.pid) - cpu_before_s:.2f} s of CPU, {server.frames - frames} frames")
            if then_idle:
                await show_idle(process.pid)
    await daemon.remove_containers()
    return taken_s


def running(server: ScriptedServer) -> int:
    return sum(status.phase is Phase.RUNNING for status in server.statuses.values())


async def show_idle(pid: int) -> None:
    await asyncio.sleep(2)
    before_s = cpu_s(pid)
    await asyncio.sleep(IDLE_S)
    percent = (cpu_s(pid) - before_s) / IDLE_S * 100
    print(f"idle with {IDLE_CONTAINERS} containers: {resident_mib(pid):.0f} MiB, {percent:.2f} % of a core")


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that the process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


async def main(count: int) -> None:
    async with dockerd(Path(tempfile.mkdtemp())) as daemon:
        with in_network_namespace(daemon.netns):
            for _ in range(ROUNDS):
                raw = {n: await raw_starts(daemon, count, n) for n in CONCURRENCIES}
                taken_s = await agent_starts(daemon, count)
                shown = ", ".join(f"{n} at a time {s:.2f} s" for n, s in raw.items())
                print(f"raw {shown}; agent {taken_s:.2f} s = {taken_s / min(raw.values()):.2f} of the best")
            await agent_starts(daemon, IDLE_CONTAINERS, then_idle=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 50))
