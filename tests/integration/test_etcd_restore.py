"""An etcd that is taken back by its own tools, under a whole cluster: what runs goes on, whoever notices first.

Only Monday's records are left on Tuesday: of two replicas of four, without what was made since, and with what was
deleted since.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from agent.ownership import order_of
from control_plane import keys
from control_plane.records import ClusterRecord
from tests.lab.cluster import Cluster, Equipment, wherry_cluster
from tests.lab.faults import Containers, Stopwatch, converged, opened_store, owned_on, service
from tests.lab.marks import ON_A_CLUSTER
from tests.lab.waiting import EVERY_S, wait_until

pytestmark = [*ON_A_CLUSTER, pytest.mark.asyncio(loop_scope="module")]
LATE_S = 40.0  # an agent proves it in 5 s, and what is to be started then waits for 10 s
WRITES = 60  # many more than servers make when they start: else nobody could tell that the store went back
LOG_LINES = 60


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def whole() -> AsyncIterator[Cluster]:
    async with wherry_cluster(servers=2, nodes=2, equipment=Equipment(etcd_apart=True)) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def cluster(whole: Cluster) -> AsyncIterator[Cluster]:
    yield whole
    print(whole.net.log_tails(LOG_LINES))  # pytest shows it if the test failed


async def run(cluster: Cluster) -> Containers:
    return await owned_on([agent.host for agent in cluster.agents])


@asynccontextmanager
async def untouched(cluster: Cluster, before: Containers) -> AsyncIterator[None]:
    """See all the while that each of these containers runs on as it was."""

    async def look() -> None:
        while True:
            now = await run(cluster)
            assert before.items() <= now.items(), f"stopped or restarted: {dict(before.items() - now.items())}"
            await asyncio.sleep(EVERY_S)

    async with asyncio.TaskGroup() as tasks:
        looking = tasks.create_task(look(), name="untouched")
        yield
        looking.cancel()


async def kept(cluster: Cluster) -> Mapping[str, str]:
    """Return what nodes keep from before the restore, and where."""
    return {allocation: node["name"] for node in await cluster.api.items("/v1/nodes") for allocation in node["kept"]}


async def generation(cluster: Cluster) -> int:
    async with opened_store(cluster) as store:
        entry = await store.get(keys.CLUSTER)
    assert entry is not None
    return ClusterRecord.read(entry.value).generation


def names(allocations: Collection[str]) -> list[str]:
    return sorted(allocation.rpartition("-")[0] for allocation in allocations)


@pytest.mark.parametrize("are_running", [False, True], ids=["servers stopped meanwhile", "under running servers"])
async def test_what_runs_goes_on_when_etcd_is_taken_back(cluster: Cluster, are_running: bool) -> None:
    snapshot = cluster.net.folder / f"monday-{are_running}.db"
    await cluster.api.apply(service(replicas=2), service("deleted", replicas=1))
    await converged(cluster)
    await cluster.etcd.save(snapshot)
    for number in range(WRITES):
        await cluster.api.apply(service("probe", replicas=0, number=f"{number}"))
    await cluster.api.apply(service(replicas=4), service("made", replicas=1))
    await cluster.api.call("DELETE", "/v1/workloads/default/service/deleted")
    before, old = await converged(cluster), await generation(cluster)
    assert names(before) == ["made-0", "web-0", "web-1", "web-2", "web-3"]

    if not are_running:
        for server in cluster.servers:
            await server.stop()
    async with untouched(cluster, before):
        watch = Stopwatch()
        await cluster.etcd.restore(snapshot)
        if not are_running:
            for server in cluster.servers:
                server.start()
        await wait_until(lambda: kept(cluster), LATE_S, "what is new is kept", lambda found: len(found) == 3)
        watch.read("etcd taken back, until all that it doesn't know is kept")
        await wait_until(lambda: run(cluster), LATE_S, "what was deleted runs again", lambda found: len(found) == 6)
        watch.read("etcd taken back, until what it knows runs again")
        assert names(await kept(cluster)) == ["made-0", "web-2", "web-3"]
        await cluster.api.apply(service(replicas=4))
        await wait_until(lambda: kept(cluster), LATE_S, "web has its own again", lambda found: len(found) == 1)

    for node in set((await kept(cluster)).values()):
        await cluster.api.call("POST", f"/v1/nodes/{node}/release")
    after = await converged(cluster)
    assert names(after) == ["deleted-0", "web-0", "web-1", "web-2", "web-3"]
    assert {a: c for a, c in before.items() if a.startswith("web-")}.items() <= after.items()
    assert await generation(cluster) == old + 1
    assert {order_of(after[a].labels)[0] for a in after.keys() - before.keys()} == {old + 1}
