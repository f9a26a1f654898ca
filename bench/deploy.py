"""How long `apply` of 50 replicas takes until all run, beside the same 50 containers made straight by the engine's API.

Both make the same containers on the same engine, by turns. The engine alone is given its best concurrency. A run ends
when the engine has started the last container (its State.StartedAt), so neither side gains by what is counted as done.
"""

import asyncio
import statistics
import time
from dataclasses import dataclass

from bench.engine import Engine, engine_of, last_start_s
from bench.figures import Figure, at_most, reported
from bench.rig import OneNode, cpu_s, one_node, service, until_ready
from tests.lab.cluster import NodeSize
from tests.lab.waiting import wait_until

REPLICAS = 50
CONCURRENCIES = (1, 2, 4, 8, 16)
ROUNDS, SHORT_ROUNDS = 6, 2
TRIES = 2
TARGET = 1.2  # Swarm reaches 1.06
DEADLINE_S = 120.0
SIZE = NodeSize(cpu="16000m", memory_mib=8192, pids=16384)  # room for the 50 at the default reservation


@dataclass(frozen=True, slots=True)
class Run:
    """One deployment by Wherry: seconds from the call of apply to the last start, and until the server knew of all."""

    run_s: float
    seen_s: float


async def measure(*, short: bool) -> list[Figure]:
    async with one_node(SIZE) as node, engine_of(node) as engine:
        return await _measure(node, engine, SHORT_ROUNDS if short else ROUNDS)


async def _measure(node: OneNode, engine: Engine, rounds: int) -> list[Figure]:
    await _by_wherry(node, engine)  # warms up
    tried = await _tried(engine)
    one, other = sorted(tried, key=tried.__getitem__)[:2]  # which of them is best, only many runs tell
    ours: list[Run] = []
    raw: dict[int, list[float]] = {one: [], other: []}
    busy_s = _cpu_s(node)
    for _ in range(rounds):
        raw[one].append(await _by_hand(engine, one))
        ours.append(await _by_wherry(node, engine))
        raw[other].append(await _by_hand(engine, other))
        one, other = other, one
    busy_ms = 1000 * (_cpu_s(node) - busy_s) / (rounds * REPLICAS)
    best = max(raw, key=lambda c: _ratio([run.run_s for run in ours], raw[c]))
    ratio = _ratio([run.run_s for run in ours], raw[best])
    seen = _ratio([run.seen_s for run in ours], raw[best])
    return [
        at_most(f"{REPLICAS} replicas run, ratio to the engine alone", ratio, "x", TARGET),
        reported("the same, until the server has heard of all", seen, "x"),
        reported(f"{REPLICAS} replicas run, from apply, median", statistics.median(run.run_s for run in ours), "s"),
        *(reported(f"engine alone, {c} at once, median", statistics.median(raw[c]), "s") for c in sorted(raw)),
        reported("best concurrency of the engine alone", best, "at once"),
        reported("CPU of server and agent, a replica's life", busy_ms, "ms"),
        *(reported(f"tried first: engine alone, {c} at once", tried[c], "s") for c in CONCURRENCIES),
    ]


def _ratio(ours: list[float], raw: list[float]) -> float:
    """Return the median over the rounds: a shared machine is faster now and slower then, but less so within one."""
    return statistics.median(our_s / raw_s for our_s, raw_s in zip(ours, raw, strict=True))


async def _tried(engine: Engine) -> dict[int, float]:
    """Return the best time of each concurrency, tried by turns: what disturbs a run only ever makes it slower."""
    tries = [{c: await _by_hand(engine, c) for c in CONCURRENCIES} for _ in range(TRIES)]
    return {c: min(times[c] for times in tries) for c in CONCURRENCIES}


def _cpu_s(node: OneNode) -> float:
    return cpu_s(node.server.process.pid) + cpu_s(node.agent.process.pid)


async def _by_hand(engine: Engine, concurrency: int) -> float:
    """Return the seconds from the first call to the last container's start."""
    began_s = time.time()
    async with asyncio.timeout(DEADLINE_S):
        await engine.run(REPLICAS, concurrency)
    found = await engine.inspected()
    engine.check_same(found[0])
    taken_s = last_start_s(found, REPLICAS) - began_s
    await engine.remove_all()
    return taken_s


async def _by_wherry(node: OneNode, engine: Engine) -> Run:
    """Apply the service and delete it again."""
    async with engine.counting_starts(REPLICAS) as all_started:
        began_s = time.time()
        await node.api.apply(service("sleepers", REPLICAS))
        async with asyncio.timeout(DEADLINE_S):
            await all_started.wait()
        await until_ready(node.api, "sleepers", REPLICAS)
        seen_s = time.time() - began_s
    found = await engine.inspected()
    engine.check_same(found[0])
    taken_s = last_start_s(found, REPLICAS) - began_s
    await node.api.call("DELETE", "/v1/workloads/default/service/sleepers")
    await wait_until(engine.count, DEADLINE_S, "all containers are removed", lambda count: count == 0)
    return Run(taken_s, seen_s)
