"""How long a rolling update of 50 replicas takes, 10 at a time, beside the same batches straight on the engine's API.

The peer does for each batch what a new version needs, all ten at once: stop the old container, create the new one and
start it, and remove the old one. A run ends when the engine has started the last container (its State.StartedAt).
"""

import asyncio
import statistics
import time

from bench.engine import Engine, engine_of, last_start_s
from bench.figures import Figure, at_most, reported
from bench.rig import Json, OneNode, one_node, service, until_ready
from tests.lab.cluster import NodeSize
from tests.lab.waiting import wait_until

NAME, REPLICAS, BATCH = "rolling", 50, 10
ROUNDS, SHORT_ROUNDS = 5, 1
TARGET = 1.5
DEADLINE_S = 120.0
SIZE = NodeSize(cpu="16000m", memory_mib=8192, pids=16384)


async def measure(*, short: bool) -> list[Figure]:
    ours: list[float] = []
    raw: list[float] = []
    async with one_node(SIZE) as node, engine_of(node) as engine:
        for number in range(SHORT_ROUNDS if short else ROUNDS):
            raw.append(await _by_hand(engine))
            ours.append(await _by_wherry(node, engine, number))
    ratio = statistics.median(our_s / raw_s for our_s, raw_s in zip(ours, raw, strict=True))
    return [
        at_most(f"{REPLICAS} replicas updated, {BATCH} at a time, ratio to the engine alone", ratio, "x", TARGET),
        reported("updated by Wherry, from apply, median", statistics.median(ours), "s"),
        reported("updated on the engine's API alone, median", statistics.median(raw), "s"),
    ]


async def _by_hand(engine: Engine) -> float:
    """Return the seconds from the first call to the last new container's start."""
    await engine.run(REPLICAS, BATCH)
    old = [container["Id"] for container in await engine.inspected()]
    began_s = time.time()
    async with asyncio.timeout(DEADLINE_S):
        for first in range(0, REPLICAS, BATCH):
            async with asyncio.TaskGroup() as tasks:
                for number, container in enumerate(old[first : first + BATCH], start=first):
                    tasks.create_task(_replace(engine, container, number), name=f"replace-{number}")
    taken_s = last_start_s(await engine.inspected(), REPLICAS) - began_s
    await engine.remove_all()
    return taken_s


async def _replace(engine: Engine, container: str, number: int) -> None:
    await engine.call("POST", f"/containers/{container}/stop", t="0")
    await engine.start_one(number)
    await engine.call("DELETE", f"/containers/{container}")


async def _by_wherry(node: OneNode, engine: Engine, number: int) -> float:
    """Let one version run, and return the seconds from the apply of the next to the last start."""
    await node.api.apply(_version(number, "old"))
    await until_ready(node.api, NAME, REPLICAS)
    async with engine.counting_starts(REPLICAS) as all_started:
        began_s = time.time()
        await node.api.apply(_version(number, "new"))
        async with asyncio.timeout(DEADLINE_S):
            await all_started.wait()
    await wait_until(
        lambda: node.api.get(f"/v1/workloads/default/service/{NAME}"), DEADLINE_S, "it is updated", _is_updated
    )
    await wait_until(engine.count, DEADLINE_S, "the old ones are removed", lambda count: count == REPLICAS)
    taken_s = last_start_s(await engine.inspected(), REPLICAS) - began_s
    await node.api.call("DELETE", f"/v1/workloads/default/service/{NAME}")
    await wait_until(engine.count, DEADLINE_S, "all containers are removed", lambda count: count == 0)
    return taken_s


def _version(number: int, name: str) -> Json:
    update = {"maxSurge": 0, "maxUnavailable": BATCH, "minHealthyTime": "0s"}
    return service(NAME, REPLICAS, env={"VERSION": f"{number}-{name}"}, update=update)


def _is_updated(workload: Json) -> bool:
    return bool(workload["counts"]["updated"] == workload["counts"]["ready"] == REPLICAS)
