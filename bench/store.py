"""How fast the two stores commit through the Store protocol: one write after the other, and many at once."""

import asyncio
import random
import statistics
import tempfile
import time
from pathlib import Path

from bench.figures import Figure, reported
from control_plane.store.open import open_store
from control_plane.store.protocol import Put, Store, Txn
from foundation.clock import SystemClock
from tests.etcd import etcd_cluster

AT_ONCE = 64
PUTS, SHORT_PUTS = 3000, 500
SEQUENTIAL, SHORT_SEQUENTIAL = 300, 100
VALUE = b"x" * 400  # about what an allocation takes


async def measure(*, short: bool) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="wherry-bench-") as folder:
        figures = await _measure("sqlite", f"sqlite:{Path(folder) / 'store.db'}", short=short)
    async with etcd_cluster() as cluster:
        return figures + await _measure("etcd, one member", "etcd:" + ",".join(cluster.endpoints), short=short)


async def _measure(name: str, url: str, *, short: bool) -> list[Figure]:
    store = await open_store(url, clock=SystemClock(), rng=random.Random(1))
    try:
        await _put_many(store, AT_ONCE)
        latencies = [await _latency_ms(store) for _ in range(SHORT_SEQUENTIAL if short else SEQUENTIAL)]
        puts = SHORT_PUTS if short else PUTS
        per_s = puts / await _put_many(store, puts)
    finally:
        await store.close()
    return [
        reported(f"{name}: puts, {AT_ONCE} at once", per_s, "/s"),
        reported(f"{name}: one put, median", statistics.median(latencies), "ms"),
        reported(f"{name}: one put, 99 of 100 within", statistics.quantiles(latencies, n=100)[98], "ms"),
    ]


async def _latency_ms(store: Store) -> float:
    began = time.perf_counter()
    await store.commit(Txn((), (Put("/bench/one", VALUE),)))
    return 1000 * (time.perf_counter() - began)


async def _put_many(store: Store, count: int) -> float:
    """Return the seconds that so many puts of different keys take, AT_ONCE under way at a time."""
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            await store.commit(Txn((), (Put(f"/bench/{number}", VALUE),)))

    began = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for worker in range(AT_ONCE):
            tasks.create_task(work(), name=f"put-{worker}")
    return time.perf_counter() - began
