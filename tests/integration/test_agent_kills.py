"""An agent that is killed at random instants: nothing is restarted, nothing runs twice, nothing is left out."""

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from agent.drivers.docker import DockerDriver
from agent.ownership import ALLOCATION, ATTEMPT, NODE
from manifests.allocations import Phase
from manifests.session import Assigned
from tests.agents import agent_process, in_network_namespace
from tests.dockerd import dockerd
from tests.scripted_server import ScriptedServer, assigned

pytestmark = pytest.mark.docker
ROUNDS = 12
MOST_LIFE_S = 1.5  # from before the agent's first frame to after its starts are done


async def test_kills_at_any_instant_restart_and_repeat_nothing(tmp_path: Path) -> None:
    rng = random.Random(7)
    async with dockerd(tmp_path) as daemon:
        with in_network_namespace(daemon.netns):
            async with ScriptedServer().serve() as server:
                arguments = (tmp_path / "agent", daemon.socket, f"{daemon.cgroup_parent}/n1", server.url)
                for number in range(ROUNDS):
                    async with agent_process(*arguments):
                        await server.run(new(f"web-{number}-a"), new(f"job-{number}-a", kind="Job", command=["true"]))
                        await asyncio.sleep(rng.uniform(0.3, MOST_LIFE_S))
                async with agent_process(*arguments):
                    await server.until(lambda: all_are_done(server), what="all run or have succeeded")
                driver = DockerDriver(daemon.socket)
                found = await driver.list_containers({NODE: "n1"})
                await driver.close()
    made = sorted((container.labels[ALLOCATION], container.labels[ATTEMPT]) for container in found)
    assert made == sorted((f"{kind}-{n}-a", "1") for kind in ("web", "job") for n in range(ROUNDS))


def new(allocation: str, **spec: Any) -> Assigned:
    return assigned(allocation, network="host", resources={"cpu": "50m", "memory": "16Mi"}, **spec)


def all_are_done(server: ScriptedServer) -> bool:
    wanted = {"web": Phase.RUNNING, "job": Phase.SUCCEEDED}
    return len(server.statuses) == 2 * ROUNDS and all(
        status.phase is wanted[status.id[:3]] for status in server.statuses.values()
    )
