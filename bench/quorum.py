"""Two minutes without a majority of etcd: no container is touched, restarts in place go on, and all heals soon after.

Two of three members get SIGKILL. Meanwhile the main processes of some containers are killed, which their agents must
restart by themselves. What runs is told by the engines and the kernel.
"""

import asyncio
import os
import signal
import time
from collections.abc import Sequence

from agent.drivers.docker_codec import to_seconds
from bench.figures import Figure, at_most, reported
from bench.rig import service, until_ready
from tests.lab.cluster import Cluster, wherry_cluster
from tests.lab.faults import converged
from tests.lab.truth import Life, Truth
from tests.lab.waiting import wait_until

AWAY_S, SHORT_AWAY_S = 120.0, 20.0
CRASHES = 3
REPLICAS = 6
CONVERGED_S, RESTARTED_S = 30.0, 1.0
DEADLINE_S = 120.0


async def measure(*, short: bool) -> list[Figure]:
    away_s = SHORT_AWAY_S if short else AWAY_S
    async with wherry_cluster(servers=3, nodes=2) as cluster, asyncio.TaskGroup() as tasks:
        await cluster.api.apply(service("kept", REPLICAS))
        await until_ready(cluster.api, "kept", REPLICAS)
        truth = Truth([agent.host for agent in cluster.agents])
        following = tasks.create_task(truth.follow(), name="truth")
        await wait_until(lambda: _running(truth), DEADLINE_S, "all are seen", lambda lives: len(lives) == REPLICAS)
        victims = truth.lives[:CRASHES]
        crashed = {victim.container for victim in victims}
        downs = await _without_quorum(cluster, truth, victims, away_s)
        began_s = time.monotonic()
        await converged(cluster, DEADLINE_S)
        converged_s = time.monotonic() - began_s
        touched = [life for life in truth.lives if life.is_over and life.container not in crashed]
        following.cancel()
    return [
        at_most(f"{away_s:.0f} s without quorum: containers touched", len(touched), "", 0),
        at_most(f"crashed to running again meanwhile, slowest of {CRASHES}", max(downs), "s", RESTARTED_S),
        at_most("quorum back to converged", converged_s, "s", CONVERGED_S),
        reported("containers", REPLICAS, ""),
    ]


async def _without_quorum(cluster: Cluster, truth: Truth, victims: Sequence[Life], away_s: float) -> list[float]:
    """Kill two members for that time and some containers within it; return how long each of these was down."""
    down = cluster.etcd.members[1:]
    for member in down:
        await member.kill()
    began_s = time.monotonic()
    downs = []
    for number, victim in enumerate(victims, start=1):
        await asyncio.sleep(max(0.0, began_s + away_s * number / (len(victims) + 1) - time.monotonic()))
        downs.append(await _crash(truth, victim))
    await asyncio.sleep(max(0.0, began_s + away_s - time.monotonic()))
    for member in down:
        member.start()
    return downs


async def _crash(truth: Truth, victim: Life) -> float:
    """Kill the container's main process, and return the seconds until the next attempt runs."""
    os.kill(victim.pid, signal.SIGKILL)
    killed_s = time.time()

    async def next_attempts() -> list[Life]:
        return [life for life in truth.lives if life.allocation == victim.allocation and life.attempt > victim.attempt]

    found = await wait_until(next_attempts, DEADLINE_S, f"{victim.allocation} runs again")
    return to_seconds(found[0].started_at) - killed_s


async def _running(truth: Truth) -> list[Life]:
    return [life for life in truth.lives if not life.is_over]
