"""New, empty stores for tests: SQLite files, and real etcds, each of which ends with the block that wanted it."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from control_plane.store.open import open_store
from control_plane.store.protocol import Store
from foundation.clock import SystemClock
from tests.etcd import etcd_cluster

KINDS = ("sqlite", pytest.param("etcd", marks=pytest.mark.etcd))


@asynccontextmanager
async def store_url(kind: str, folder: Path) -> AsyncIterator[str]:
    """Say where there is an empty store of that kind; an SQLite file is in the folder."""
    if kind == "etcd":
        async with etcd_cluster() as cluster:
            yield f"etcd:{','.join(cluster.endpoints)}"
    else:
        yield f"sqlite:{folder / 'store.db'}"


@asynccontextmanager
async def opened_store(kind: str, folder: Path) -> AsyncIterator[Store]:
    """Open an empty store of that kind."""
    async with store_url(kind, folder) as url:
        store = await open_store(url, clock=SystemClock(), rng=random.Random(1))
        try:
            yield store
        finally:
            await store.close()
