"""What it costs to know what a container uses: the agent's reading of its cgroup, and the engine's own statistics."""

import asyncio
import statistics
import time
from pathlib import Path

from agent.kernel import Cgroup, Kernel, cgroup_of
from agent.life import Life, first_seen, with_reading
from agent.usage import read_usage
from bench.engine import Engine, engine_of
from bench.figures import Figure, at_most, reported
from bench.rig import OneNode, cpu_s, one_node
from tests.lab.cluster import NodeSize

CONTAINERS, SHORT_CONTAINERS = 20, 5
PASSES, SHORT_PASSES = 100, 20
ENGINE_PASSES, SHORT_ENGINE_PASSES = 10, 3
TARGET_MS = 0.3


async def measure(*, short: bool) -> list[Figure]:
    """Read the same containers both ways, one way after the other."""
    count = SHORT_CONTAINERS if short else CONTAINERS
    async with one_node(NodeSize()) as node, engine_of(node) as engine:
        await engine.run(count, 4)
        found = {str(c["Id"]): int(c["State"]["Pid"]) for c in await engine.inspected()}
        try:
            ours = await asyncio.to_thread(_read_all, found, SHORT_PASSES if short else PASSES)
            theirs_cpu, theirs_wall = await _ask_all(
                node, engine, list(found), SHORT_ENGINE_PASSES if short else ENGINE_PASSES
            )
        finally:
            await engine.remove_all()
    return [
        at_most(f"cpu to read one of {count} containers, median pass", ours, "ms", TARGET_MS),
        reported("docker stats of one container (one-shot): the engine's cpu", theirs_cpu, "ms"),
        reported("docker stats of one container (one-shot): time", theirs_wall, "ms"),
        reported("the engine's cpu by the agent's", theirs_cpu / ours if ours else 0.0, "x"),
    ]


def _read_all(pids: dict[str, int], passes: int) -> float:
    """Return the cpu time of this thread for one container, in ms: the median of the passes over all."""
    cgroups: list[Cgroup] = []
    for container, pid in pids.items():
        cgroup = cgroup_of(Kernel(), pid, container)
        if cgroup is None or read_usage(cgroup, 0.0) is None:
            raise RuntimeError(f"the cgroup of {container} can't be read")
        cgroups.append(cgroup)
    lives: list[Life | None] = [None] * len(cgroups)
    costs = []
    for _ in range(passes):
        before = time.thread_time()
        for at, cgroup in enumerate(cgroups):
            reading, life = read_usage(cgroup, time.monotonic()), lives[at]
            assert reading is not None
            lives[at] = (
                first_seen(reading, attempt=1, wall_s=0.0) if life is None else with_reading(life, reading, attempt=1)
            )
        costs.append((time.thread_time() - before) / len(cgroups) * 1000)
    return statistics.median(costs)


async def _ask_all(node: OneNode, engine: Engine, containers: list[str], passes: int) -> tuple[float, float]:
    """Return the engine's cpu time, and the time that passed, for one container, in ms."""
    pids = _engine_pids(node)
    before, began_s = sum(map(cpu_s, pids)), time.monotonic()
    for _ in range(passes):
        async with asyncio.TaskGroup() as tasks:
            for container in containers:
                path = f"/containers/{container}/stats?stream=false&one-shot=true"
                tasks.create_task(engine.call("GET", path), name=f"stats {container[:12]}")
    asked = passes * len(containers)
    return (sum(map(cpu_s, pids)) - before) / asked * 1000, (time.monotonic() - began_s) / asked * 1000


def _engine_pids(node: OneNode) -> list[int]:
    """Return dockerd, and the containerd that it asks in turn."""
    dockerd = node.host.dockerd.process.pid
    children = Path(f"/proc/{dockerd}/task").glob("*/children")
    return [dockerd, *(int(pid) for file in children for pid in file.read_text().split())]
