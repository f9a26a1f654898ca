"""An agent is killed by SIGKILL at random instants, over and over: no container may notice.

Every second time it is killed again before it has come up, so that the kills fall into its start and its first look at
the engine too. What runs is asked of the engine, and of the kernel, by process id.
"""

import asyncio
import random
from typing import TypeAlias

from bench.figures import Figure, at_most, reported
from bench.rig import OneNode, one_node, service, until_ready, wanted
from tests.lab.cluster import NodeSize
from tests.lab.dockerd import running
from tests.lab.waiting import wait_until

CONTAINERS = 10
KILLS, SHORT_KILLS = 50, 10
STARTING_S = 1.2  # an agent that was started so long ago may not be up yet
RUNNING_S = 1.5
DEADLINE_S = 30.0
SIZE = NodeSize(cpu="16000m")
Container: TypeAlias = tuple[str, int, str]


async def measure(*, short: bool) -> list[Figure]:
    kills, rng = SHORT_KILLS if short else KILLS, random.Random(1)
    # How soon an agent is up again is the machine's affair: here nobody is to be called lost for it.
    async with one_node(SIZE, lost_after="60s") as node:
        await node.api.apply(service("kept", CONTAINERS))
        await until_ready(node.api, "kept", CONTAINERS)
        before, ids = await _containers(node), set(await wanted(node.api, "kept"))
        touched: set[Container] = set()
        started_at = 0
        for number in range(kills):
            if number % 2 == 0:
                await _until_up(node, started_at)
            await asyncio.sleep(rng.uniform(0, RUNNING_S if number % 2 == 0 else STARTING_S))
            started_at = _log_bytes(node)
            await node.agent.restart()
            touched |= before ^ await _containers(node)
        await _until_up(node, started_at)
        touched |= before ^ await _containers(node)
        found = await wanted(node.api, "kept")
    adopted = {a["containerId"] for a in found.values() if a["phase"] == "running"} & {id_ for id_, _, _ in before}
    return [
        at_most(f"agent killed {kills} times: containers touched", len(touched), "", 0),
        at_most("containers not adopted", CONTAINERS - len(adopted), "", 0),
        at_most("restarts counted", sum(a["restarts"] for a in found.values()), "", 0),
        at_most("allocations moved", len(ids ^ found.keys()), "", 0),
        reported("containers", CONTAINERS, ""),
    ]


async def _until_up(node: OneNode, started_at: int) -> None:
    """Return once the agent that was started when its log was so long has a session."""

    async def has_session() -> bool:
        with node.agent.process.log.open("rb") as log:
            log.seek(started_at)
            return b"session opened" in log.read()

    await wait_until(has_session, DEADLINE_S, "the agent has a session")


def _log_bytes(node: OneNode) -> int:
    return node.agent.process.log.stat().st_size


async def _containers(node: OneNode) -> set[Container]:
    """Return what runs, by what changes when a container is restarted or replaced."""
    return {(c.id, c.pid, c.started_at) for c in await running(node.host)}
