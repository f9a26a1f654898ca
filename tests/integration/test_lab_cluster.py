"""A whole cluster in the lab: three servers on three etcd members, three nodes, all of them the real command line."""

from tests.lab.cluster import NodeSize, wherry_cluster
from tests.lab.dockerd import containers
from tests.lab.marks import ON_A_CLUSTER

pytestmark = [*ON_A_CLUSTER]


async def test_a_cluster_comes_up_and_its_nodes_survive_a_server_and_an_agent() -> None:
    async with wherry_cluster(sizes={"n2": NodeSize(labels={"disk": "ssd"})}) as cluster:
        assert (await cluster.api.get("/v1/nodes/n2"))["labels"]["disk"] == "ssd"
        await cluster.server(1).kill()
        await cluster.agent(2).restart()
        await cluster.await_nodes_ready()
        assert await containers(cluster.host("n1")) == ()
