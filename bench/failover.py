"""How soon the work of a node that fell silent runs elsewhere; and that an agent's own restart moves nothing.

A node is cut off first and killed then, so that no goodbye of its kernel reaches the server. Ends are the engines' own
times, so that watching doesn't add to them.
"""

import asyncio
import statistics
import time
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from bench.figures import Figure, at_most, reported
from bench.rig import Json, inspect, service, state_time_s, until_ready, wanted
from tests.lab.cluster import Cluster, wherry_cluster
from tests.lab.dockerd import running
from tests.lab.waiting import wait_until

NAME, REPLICAS = "moving", 6
ROUNDS, SHORT_ROUNDS = 6, 2
RESTARTS, SHORT_RESTARTS = 3, 1
TARGET_S = 8.0
DEADLINE_S = 60.0
DOWN_S = 1.5  # from an agent's kill to its restart
SURELY_S = 8.0  # then until a node that was wrongly called lost would show


@dataclass(frozen=True, slots=True)
class Round:
    """The seconds of one failover, by phase."""

    lost_s: float
    placed_s: float
    running_s: float

    @property
    def total_s(self) -> float:
        return self.lost_s + self.placed_s + self.running_s


async def measure(*, short: bool) -> list[Figure]:
    async with wherry_cluster(servers=1, nodes=3) as cluster:
        await cluster.api.apply(service(NAME, REPLICAS, placement={"spread": ["node.name"]}))
        await until_ready(cluster.api, NAME, REPLICAS)
        moved, restarted = 0, 0
        for number in range(SHORT_RESTARTS if short else RESTARTS):
            more_moved, more_restarted = await _restart_agent(cluster, number % 3 + 1)
            moved, restarted = moved + more_moved, restarted + more_restarted
        rounds = [await _fail_over(cluster) for _ in range(SHORT_ROUNDS if short else ROUNDS)]
    return [
        at_most(f"silence to running elsewhere, max of {len(rounds)}", max(r.total_s for r in rounds), "s", TARGET_S),
        reported("silence to running elsewhere, median", statistics.median(r.total_s for r in rounds), "s"),
        *_phase("silence to lost", [r.lost_s for r in rounds]),
        *_phase("lost to placed", [r.placed_s for r in rounds]),
        *_phase("placed to running", [r.running_s for r in rounds]),
        at_most("agent killed and back: allocations moved", moved, "", 0),
        at_most("agent killed and back: containers restarted", restarted, "", 0),
    ]


def _phase(name: str, seconds: list[float]) -> list[Figure]:
    return [reported(f"{name}, median", statistics.median(seconds), "s"), reported(f"{name}, max", max(seconds), "s")]


async def _fail_over(cluster: Cluster) -> Round:
    """Lose the node with the most allocations, and return how long the phases took; then bring it back."""
    before = await wanted(cluster.api, NAME)
    nodes = [a["node"] for a in before.values()]
    victim = max(set(nodes), key=lambda node: (nodes.count(node), node))
    host = cluster.host(victim)
    silent_at = time.time()
    await host.partition()
    await host.kill()
    node = await wait_until(
        partial(cluster.api.get, f"/v1/nodes/{victim}"), DEADLINE_S, f"{victim} is lost", lambda n: n["state"] == "lost"
    )
    await until_ready(cluster.api, NAME, REPLICAS)
    found = await wanted(cluster.api, NAME)
    new = [a for id_, a in found.items() if id_ not in before]
    if len(new) != nodes.count(victim) or any(a["node"] == victim for a in new):
        raise RuntimeError(f"not what {victim} held was replaced: {[a['id'] for a in new]}")
    lost_at = _seconds(node["changedAt"])
    placed_at = max(_seconds(a["createdAt"]) for a in new)
    running_at = max([await _started_at(cluster, a) for a in new])
    await host.heal()
    await cluster.reboot_node(int(victim.removeprefix("n")))
    await cluster.await_nodes_ready()
    return Round(lost_at - silent_at, placed_at - lost_at, running_at - placed_at)


async def _started_at(cluster: Cluster, allocation: Json) -> float:
    return state_time_s(await inspect(cluster.host(allocation["node"]), allocation["containerId"]), "StartedAt")


async def _restart_agent(cluster: Cluster, number: int) -> tuple[int, int]:
    """Kill -9 an agent and start it again soon; return how many allocations moved and how many containers restarted."""
    allocations, containers = await wanted(cluster.api, NAME), await _containers(cluster)
    agent = cluster.agent(number)
    began = time.monotonic()
    await agent.kill()
    await asyncio.sleep(DOWN_S - (time.monotonic() - began))
    agent.start()
    await asyncio.sleep(SURELY_S)
    await cluster.await_nodes_ready()
    moved = len(allocations.keys() - (await wanted(cluster.api, NAME)).keys())
    return moved, len(containers - await _containers(cluster))


async def _containers(cluster: Cluster) -> set[tuple[str, int, str]]:
    """Return what runs, by what changes when a container is restarted or replaced."""
    found = [c for agent in cluster.agents for c in await running(agent.host)]
    return {(c.id, c.pid, c.started_at) for c in found}


def _seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp.replace("Z", "+00:00")).timestamp()
