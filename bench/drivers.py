"""How fast each driver starts 100 replicas, beside the engine's API alone; and how soon a crashed container runs again.

One host has two agents of one cluster: one with dockerd and one, of driver oci, without. They take turns in every
round, so that each has the same minutes of a shared machine. A run ends with the start of the last container, as the
engine (State.StartedAt) or the driver (its file) tells it.
"""

import asyncio
import os
import signal
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from agent.drivers.docker_codec import to_seconds
from bench.engine import Engine, engine_of, last_start_s
from bench.figures import Figure, at_least, at_most, reported
from bench.rig import Json, OneNode, is_ready, one_node, service, until_ready, wanted
from tests.lab.cluster import Daemon, NodeSize, agent_arguments, api_url
from tests.lab.waiting import wait_until

REPLICAS, SHORT_REPLICAS = 100, 30
ROUNDS, SHORT_ROUNDS = 4, 1
CRASHES, SHORT_CRASHES = 10, 3
CONCURRENCIES = (2, 4, 8, 16)
RAW_TARGET, OCI_TARGET, CRASH_TARGET_S = 1.15, 3.0, 0.3
ADOPTED, SHORT_ADOPTED, ADOPTED_TARGET_S = 200, 50, 3.0
DEADLINE_S = 180.0
SIZE = NodeSize(cpu="32000m", memory_mib=16384, pids=32768)  # room for the 100 at the default reservation
OCI_NODE = "n2"


async def measure(*, short: bool) -> list[Figure]:
    replicas = SHORT_REPLICAS if short else REPLICAS
    # How soon an agent is up again is the machine's affair: here nobody is to be called lost for it.
    async with (
        one_node(SIZE, lost_after="60s") as node,
        engine_of(node) as engine,
        _oci_agent(node) as (agent, folder),
    ):
        sides = _Sides(node, engine, folder, replicas)
        starts = await _starts(sides, SHORT_ROUNDS if short else ROUNDS)
        crashes = [f for name in ("docker", "oci") for f in await _crashes(node, name, short=short)]
        adoption = await _adoption(node, agent, folder, SHORT_ADOPTED if short else ADOPTED)
    return [*starts, *crashes, *adoption]


@asynccontextmanager
async def _oci_agent(node: OneNode) -> AsyncIterator[tuple[Daemon, Path]]:
    """Run a second agent on the host, and yield it and the folder of its driver."""
    data_dir = node.host.folder / "agent-oci"
    words = list(agent_arguments(node.host, SIZE, [api_url(node.host)]))
    for flag, value in {
        "--name": OCI_NODE,
        "--data-dir": str(data_dir),
        "--cgroup-parent": f"{node.host.work.path}/oci",
    }.items():
        words[words.index(flag) + 1] = value
    agent = Daemon(node.host, "agent-oci", (*words, "--driver", "oci"))
    agent.start()
    await wait_until(lambda: node.api.get(f"/v1/nodes/{OCI_NODE}"), DEADLINE_S, "the oci node is ready", is_ready)
    yield agent, data_dir / "oci"


class _Sides:
    """The ways to the same containers. Each returns the seconds until the last of them has started."""

    def __init__(self, node: OneNode, engine: Engine, oci_folder: Path, replicas: int) -> None:
        self._node, self._engine, self._containers = node, engine, oci_folder / "containers"
        self.replicas = replicas

    async def raw(self, concurrency: int) -> float:
        began_s = time.time()
        async with asyncio.timeout(DEADLINE_S):
            await self._engine.run(self.replicas, concurrency)
        taken_s = last_start_s(await self._engine.inspected(), self.replicas) - began_s
        await self._engine.remove_all()
        return taken_s

    async def docker(self) -> float:
        began_s = await self._applied("docker")
        taken_s = last_start_s(await self._engine.inspected(), self.replicas) - began_s
        await self._withdrawn("docker", self._engine.count)
        return taken_s

    async def oci(self) -> float:
        began_s = await self._applied("oci")
        started = [file.stat().st_mtime for file in self._containers.glob("*/started")]
        if len(started) != self.replicas:
            raise RuntimeError(f"{len(started)} of {self.replicas} containers run")
        await self._withdrawn("oci", self._count)
        return max(started) - began_s

    async def _count(self) -> int:
        return sum(not path.name.startswith(".") for path in self._containers.iterdir())

    async def _applied(self, driver: str) -> float:
        """Return when the service was applied, once all of it runs."""
        began_s = time.time()
        await self._node.api.apply(service(f"on-{driver}", self.replicas, driver=driver))
        await until_ready(self._node.api, f"on-{driver}", self.replicas, DEADLINE_S)
        return began_s

    async def _withdrawn(self, driver: str, count: Callable[[], Awaitable[int]]) -> None:
        await self._node.api.call("DELETE", f"/v1/workloads/default/service/on-{driver}")
        await wait_until(count, DEADLINE_S, "all containers are removed", lambda left: left == 0)


async def _starts(sides: _Sides, rounds: int) -> list[Figure]:
    await sides.docker()  # warm up
    await sides.oci()
    tried = {concurrency: await sides.raw(concurrency) for concurrency in CONCURRENCIES}
    best = min(tried, key=tried.__getitem__)
    runs: dict[str, list[float]] = {"raw": [], "docker": [], "oci": []}
    for _ in range(rounds):
        runs["raw"].append(min(await sides.raw(best), await sides.raw(best)))
        runs["docker"].append(await sides.docker())
        runs["oci"].append(await sides.oci())
    count = sides.replicas
    rates = {name: count / statistics.median(taken) for name, taken in runs.items()}
    return [
        at_most(f"{count} by driver docker, ratio to the engine alone", _ratio(runs, "docker", "raw"), "x", RAW_TARGET),
        at_least(f"{count} by driver oci, times as fast as docker", _ratio(runs, "docker", "oci"), "x", OCI_TARGET),
        reported("engine alone, at its best", rates["raw"], "starts/s"),
        reported("driver docker", rates["docker"], "starts/s"),
        reported("driver oci", rates["oci"], "starts/s"),
        reported("best concurrency of the engine alone", best, "at once"),
    ]


def _ratio(runs: Mapping[str, list[float]], one: str, other: str) -> float:
    return statistics.median(a / b for a, b in zip(runs[one], runs[other], strict=True))


async def _crashes(node: OneNode, driver: str, *, short: bool) -> list[Figure]:
    """Crash each of some containers once, and return how long none of each ran, by what its agent tells."""
    count = SHORT_CRASHES if short else CRASHES
    name = f"crash-{driver}"
    await node.api.apply(service(name, count, driver=driver))
    await until_ready(node.api, name, count)
    downs = [await _down_s(node, allocation) for allocation in await wanted(node.api, name)]
    await node.api.call("DELETE", f"/v1/workloads/default/service/{name}")
    return [
        at_most(f"driver {driver}: crash to running again, max of {count}", max(downs), "s", CRASH_TARGET_S),
        reported(f"driver {driver}: crash to running again, median", statistics.median(downs), "s"),
    ]


async def _down_s(node: OneNode, allocation: str) -> float:
    before = await _allocation(node, allocation)
    os.kill(_main_pid(node, before["containerId"]), signal.SIGKILL)
    again = await wait_until(
        partial(_allocation, node, allocation),
        DEADLINE_S,
        f"{allocation} runs again",
        lambda a: a["phase"] == "running" and a["containerId"] != before["containerId"],
    )
    return to_seconds(again["startedAt"]) - to_seconds(again["lastEnding"]["finishedAt"])


def _main_pid(node: OneNode, container: str) -> int:
    """Return the container's first process, which its cgroup names, whatever the driver."""
    for procs in Path("/sys/fs/cgroup").glob(f"*/{node.host.work.path.strip('/')}/**/{container}/cgroup.procs"):
        if pids := procs.read_text().split():
            return int(pids[0])
    raise RuntimeError(f"no process of container {container} was found")


async def _allocation(node: OneNode, allocation: str) -> Json:
    found: Json = await node.api.get(f"/v1/allocations/{allocation}")
    return found


async def _adoption(node: OneNode, agent: Daemon, folder: Path, count: int) -> list[Figure]:
    """Kill the agent of driver oci, and a container: how soon does its successor run that again, and touch no other?"""
    await node.api.apply(service("adopted", count, driver="oci", resources={"cpu": "10m", "memory": "16Mi"}))
    await until_ready(node.api, "adopted", count, DEADLINE_S)
    before = _started(folder)
    victim = next(iter(await wanted(node.api, "adopted")))
    container = (await _allocation(node, victim))["containerId"]
    await agent.kill()
    os.kill(_main_pid(node, container), signal.SIGKILL)
    began_s = time.time()
    agent.start()

    async def new() -> list[float]:
        return [started_s for _, started_s in _started(folder) - before]

    (again_s,) = await wait_until(new, DEADLINE_S, "what ended meanwhile runs again")
    await until_ready(node.api, "adopted", count, DEADLINE_S)
    others = {one for one in before if one[0] != container}
    touched = len(others - _started(folder))
    await node.api.call("DELETE", "/v1/workloads/default/service/adopted")
    name = f"driver oci: a new agent has adopted {count}, and runs again what ended meanwhile"
    return [
        at_most(name, again_s - began_s, "s", ADOPTED_TARGET_S),
        at_most("driver oci: others that it touched", touched, "", 0),
    ]


def _started(folder: Path) -> set[tuple[str, float]]:
    return {(file.parent.name, file.stat().st_mtime) for file in folder.glob("containers/*/started")}
