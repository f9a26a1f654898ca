"""Ten thousand replicas at once on 2,000 simulated nodes, on etcd: how soon all are stored, or known to fit nowhere.

The peer is etcd alone: the same transactions once more, which compare as much and store as many bytes, one after the
other, with nothing else going on. What fits nowhere must cost next to nothing, and delay nobody.
"""

import asyncio
import base64
import os
import random
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import aiohttp

from bench.figures import Figure, at_most, below, reported
from bench.rig import revision_of, service
from bench.simulated import Counts, SimulatedAgents, simulated_agents
from control_plane import keys
from control_plane.store.open import open_store
from control_plane.store.protocol import ABSENT, ModifiedAt, Put, Txn
from foundation.clock import SystemClock
from tests.lab.cluster import Cluster, join_token_file, wherry_cluster
from tests.lab.waiting import wait_still, wait_until

AGENTS, SHORT_AGENTS = 2000, 400
REPLICAS, SHORT_REPLICAS = 10_000, 2_000
STORED_S, STORED_RATIO = 10.0, 1.5
BLOCKED_S, BLOCKED_MIB, BESIDE_S = 0.5, 5.0, 1.0
DEADLINE_S = 300.0
PROCESSES = 2
STILL_S = 4.0  # without a write


async def measure(*, short: bool) -> list[Figure]:
    count, replicas = (SHORT_AGENTS, SHORT_REPLICAS) if short else (AGENTS, REPLICAS)
    async with wherry_cluster(servers=1, nodes=0) as cluster:
        url, token = cluster.server_urls[0], join_token_file(cluster.net.folder)
        async with simulated_agents(url, token, count, processes=PROCESSES) as agents:
            await wait_until(agents.read_counts, DEADLINE_S, "all are registered", lambda c: c.registered == count)
            await wait_still(lambda: revision_of(cluster), STILL_S, DEADLINE_S, "nothing is written any more")
            blocked = await _blocked(cluster, replicas)
            return [*await _stored(cluster, agents, replicas), *blocked]


async def _stored(cluster: Cluster, agents: SimulatedAgents, replicas: int) -> list[Figure]:
    """Measure from the call of apply until etcd has the last allocation."""
    before, began_s = await _count(cluster, keys.ALLOCATIONS), time.monotonic()
    await cluster.api.apply(service("burst", replicas))
    wanted = before + replicas
    await wait_until(lambda: _count(cluster, keys.ALLOCATIONS), DEADLINE_S, "all are stored", lambda n: n >= wanted)
    stored_s = time.monotonic() - began_s
    await wait_until(agents.read_counts, DEADLINE_S, "all are acknowledged", lambda c: _all_run(c, replicas))
    running_s = time.monotonic() - began_s
    made = await _transactions(cluster)
    raw_s = await _bare(cluster, made)
    return [
        below(f"{replicas:,} replicas: until the last is stored", stored_s, "s", STORED_S),
        at_most("the same transactions, bare", stored_s / raw_s, "x", STORED_RATIO),
        reported("their number", len(made), ""),
        reported("their time, bare", raw_s, "s"),
        reported("bytes of an allocation, on average", sum(size for txn in made for _, size in txn) / replicas, ""),
        reported("until the last agent knows that it is stored that its replica runs", running_s, "s"),
    ]


def _all_run(counts: Counts, replicas: int) -> bool:
    return counts.acknowledged >= replicas


async def _blocked(cluster: Cluster, replicas: int) -> list[Figure]:
    """Measure a service that fits nowhere, and one replica of another that is applied right after it."""
    alone_s = await _one(cluster, "alone")
    before_mib, began_s = _rss_mib(cluster), time.monotonic()
    await cluster.api.apply(service("huge", replicas, resources={"cpu": "64"}))
    beside = asyncio.create_task(_one(cluster, "beside"))
    path = "/v1/workloads/default/service/huge"
    await wait_until(lambda: cluster.api.get(path), DEADLINE_S, "it is blocked", lambda w: _told(w) == replicas)
    known_s = time.monotonic() - began_s
    beside_s = await beside
    return [
        below(f"{replicas:,} replicas that fit nowhere: known, with reasons", known_s, "s", BLOCKED_S),
        at_most("more memory in the server then", _rss_mib(cluster) - before_mib, "MiB", BLOCKED_MIB),
        below("one replica of another service, applied right after it: placed", beside_s, "s", BESIDE_S),
        reported("the same when nothing else happens", alone_s, "s"),
    ]


def _told(workload: dict[str, Any]) -> int:
    return sum(int(blocked["count"]) for blocked in workload.get("blocked") or [])


async def _one(cluster: Cluster, name: str) -> float:
    """Return how long a service of one replica takes from apply until its allocation is there."""
    began_s = time.monotonic()
    await cluster.api.apply(service(name, 1))
    path = f"/v1/allocations?workload=service/{name}"
    await wait_until(lambda: cluster.api.items(path), DEADLINE_S, f"{name} is placed", bool)
    return time.monotonic() - began_s


async def _count(cluster: Cluster, prefix: str) -> int:
    return int((await _range(cluster, prefix, count_only=True)).get("count", 0))


async def _transactions(cluster: Cluster) -> list[list[tuple[str, int]]]:
    """Return what each transaction stored of allocations: their nodes, and their sizes in bytes."""
    stored: defaultdict[int, list[tuple[str, int]]] = defaultdict(list)
    for kv in (await _range(cluster, keys.ALLOCATIONS, count_only=False))["kvs"]:
        node = base64.b64decode(kv["key"]).decode().removeprefix(keys.ALLOCATIONS).split("/")[0]
        stored[int(kv["mod_revision"])].append((node, len(base64.b64decode(kv["value"]))))
    return list(stored.values())


async def _range(cluster: Cluster, prefix: str, *, count_only: bool) -> dict[str, Any]:
    """Ask etcd itself, by its JSON gateway."""
    ends = {"key": prefix, "range_end": prefix[:-1] + chr(ord(prefix[-1]) + 1)}
    body = {name: base64.b64encode(text.encode()).decode() for name, text in ends.items()} | {"count_only": count_only}
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session,
        session.post(f"{cluster.etcd.members[0].url}/v3/kv/range", json=body) as answer,
    ):
        found: dict[str, Any] = await answer.json()
        return found


async def _bare(cluster: Cluster, made: list[list[tuple[str, int]]]) -> float:
    """Return how long such transactions take, one after the other. Each compares two keys of each node it places on."""
    store = await open_store(f"etcd:{cluster.etcd.members[0].url}", clock=SystemClock(), rng=random.Random(1))
    try:
        began_s = time.monotonic()
        for number, placed in enumerate(made):
            of_nodes = dict.fromkeys(f"/bench/{kind}/{node}" for node, _ in placed for kind in ("intents", "nodes"))
            compares = tuple(ModifiedAt(key, ABSENT) for key in of_nodes)
            puts = (Put(f"/bench/{node}/{number}-{i}", b"x" * size) for i, (node, size) in enumerate(placed))
            await store.commit(Txn(compares, tuple(puts)))
        return time.monotonic() - began_s
    finally:
        await store.close()


def _rss_mib(cluster: Cluster) -> float:
    pages = Path(f"/proc/{cluster.server(1).process.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20
