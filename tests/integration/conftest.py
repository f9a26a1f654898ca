"""One cluster for all the tests of a module that break it: each begins with a whole one, and mends what is broken."""

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.lab.cluster import Cluster, wherry_cluster
from tests.lab.faults import mend, spread_out

LOG_LINES = 60


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_cluster() -> AsyncIterator[Cluster]:
    async with wherry_cluster() as cluster:
        yield cluster


@pytest_asyncio.fixture(loop_scope="module")
async def cluster(shared_cluster: Cluster) -> AsyncIterator[Cluster]:
    """Three servers and three nodes with six replicas of `web` on them, all well."""
    await mend(shared_cluster)
    await spread_out(shared_cluster)
    yield shared_cluster
    print(shared_cluster.net.log_tails(LOG_LINES))  # pytest shows it if the test failed
