"""Links between parts that all live: whoever loses one goes another way in time, and no container is touched."""

import pytest

from tests.lab.cluster import Cluster, Daemon
from tests.lab.faults import (
    REPLICAS,
    Stopwatch,
    converged,
    decided_since,
    hold_untouched,
    leader_of,
    on_node,
    owned_on,
    revision_now,
)
from tests.lab.marks import ON_A_CLUSTER
from tests.lab.waiting import wait_until

pytestmark = [*ON_A_CLUSTER, pytest.mark.asyncio(loop_scope="module")]

BOTH_REPLACED_S = 25.0
LATE_S = 30.0


async def server_of(cluster: Cluster, node: str) -> Daemon:
    """Return the server that holds the node's session."""
    holder = (await cluster.api.get(f"/v1/nodes/{node}"))["server"].rpartition("-")[0]
    return next(server for server in cluster.servers if server.host.name == holder)


async def test_a_node_that_can_not_reach_its_server_goes_to_another(cluster: Cluster) -> None:
    before, revision = await converged(cluster), await revision_now(cluster)
    old = await server_of(cluster, "n1")
    watch = Stopwatch()
    await cluster.net.cut("n1", old.host.name)
    await wait_until(
        lambda: server_of(cluster, "n1"), LATE_S, "another server has the node", lambda server: server is not old
    )
    watch.read("link between node and server cut, until another server has the node")
    await hold_untouched(cluster, before, 3.0)
    await cluster.net.mend("n1", old.host.name)
    assert await converged(cluster) == before
    assert await decided_since(cluster, revision) == []


async def test_a_server_that_can_not_reach_the_store_sends_its_nodes_elsewhere(cluster: Cluster) -> None:
    before, revision = await converged(cluster), await revision_now(cluster)
    old = await server_of(cluster, "n1")
    others = [server.host.name for server in cluster.servers if server is not old]
    watch = Stopwatch()
    for other in others:
        await cluster.net.cut(old.host.name, other)
    there = cluster.server_urls[cluster.servers.index(next(s for s in cluster.servers if s is not old))]
    await wait_until(
        lambda: cluster.api.get_from(there, "/v1/nodes"),
        LATE_S,
        "the other servers have all nodes",
        lambda nodes: all(not node["server"].startswith(old.host.name) for node in nodes["items"]),
    )
    watch.read("server cut off from the store, until others have its nodes")
    await hold_untouched(cluster, before, 6.0)
    for other in others:
        await cluster.net.mend(old.host.name, other)
    assert await converged(cluster) == before
    assert await decided_since(cluster, revision) == []


async def test_a_node_is_replaced_although_the_leader_dies_with_it(cluster: Cluster) -> None:
    before = await converged(cluster)
    leader = await leader_of(cluster)
    watch = Stopwatch()
    await leader.kill()
    await cluster.host("n2").kill()
    hosts = [cluster.host("n1"), cluster.host("n3")]
    await wait_until(lambda: owned_on(hosts), LATE_S, "all run elsewhere", lambda c: len(c) == REPLICAS)
    assert watch.read("leader killed and power cut, until all replicas run elsewhere") < BOTH_REPLACED_S
    leader.start()
    await cluster.reboot_node(2)
    after = await converged(cluster)
    assert on_node(before, "n1", "n3").items() <= after.items()
