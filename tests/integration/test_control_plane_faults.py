"""Servers and store members that die, freeze or lose each other: someone leads again, and no container is touched.

Containers are compared with the engines themselves: the same id, pid and start mean that nothing was touched.
"""

from collections.abc import Sequence
from functools import partial

import pytest

from tests.lab.api import Answer
from tests.lab.cluster import Cluster
from tests.lab.etcd import EtcdMember
from tests.lab.faults import (
    Stopwatch,
    converged,
    decided_since,
    hold_untouched,
    leader_of,
    owned_on,
    revision_now,
    service,
)
from tests.lab.marks import ON_A_CLUSTER
from tests.lab.waiting import hold_for, wait_still, wait_until

pytestmark = [*ON_A_CLUSTER, pytest.mark.asyncio(loop_scope="module")]

LED_S = 15.0  # for a machine with much else to do: the old lease alone takes 5 s
LED_POLITELY_S = 4.0  # less than a lease takes to expire
WRITTEN_S = 15.0
LATE_S = 30.0
ANSWER_S = 25.0  # a server tries for 15 s to reach the store before it says that it can't


async def write(cluster: Cluster, mark: str) -> bool:
    """Change something that moves no container; True once it is done."""
    await cluster.api.apply(service("probe", replicas=0, mark=mark))
    return True


async def ready_nodes(cluster: Cluster, server: str) -> int:
    """Return how many nodes that server holds itself."""
    own = (await cluster.api.get_from(server, "/v1/cluster"))["server"]
    nodes = (await cluster.api.get_from(server, "/v1/nodes"))["items"]
    return sum(node["server"].startswith(own) and node["state"] == "ready" for node in nodes)


async def test_another_server_leads_when_the_leader_is_killed(cluster: Cluster) -> None:
    before, revision = await converged(cluster), await revision_now(cluster)
    old = await leader_of(cluster)
    watch = Stopwatch()
    await old.kill()
    await leader_of(cluster, but=old, deadline_s=LATE_S)
    assert watch.read("leader killed, until another leads") < LED_S
    await cluster.api.apply(service("more", replicas=1))
    await wait_until(
        lambda: owned_on([agent.host for agent in cluster.agents]), LATE_S, "one more runs", lambda c: len(c) == 7
    )
    watch.read("leader killed, until a service applied to the new one runs")
    await cluster.api.call("DELETE", "/v1/workloads/default/service/more")
    old.start()
    assert await converged(cluster) == before
    assert all("/more-" in key for key in await decided_since(cluster, revision))


async def test_servers_restarted_one_after_the_other_touch_nothing(cluster: Cluster) -> None:
    before, revision = await converged(cluster), await revision_now(cluster)
    for server in cluster.servers:
        was_leading = await leader_of(cluster) is server
        watch = Stopwatch()
        assert await server.stop() == 0
        watch.read(f"server stopped politely{', the leader' * was_leading}")
        await leader_of(cluster, but=server, deadline_s=LED_POLITELY_S)
        server.start()
        url = cluster.server_urls[cluster.servers.index(server)]
        await wait_until(partial(cluster.api.get_from, url, "/v1/health"), LATE_S, "it is back")
    await hold_untouched(cluster, before, 3.0)
    assert await converged(cluster) == before
    assert await decided_since(cluster, revision) == []


async def test_a_leader_that_froze_steps_down_and_judges_nobody(cluster: Cluster) -> None:
    before, revision = await converged(cluster), await revision_now(cluster)
    old = await leader_of(cluster)
    watch = Stopwatch()
    await old.pause()
    new = await leader_of(cluster, but=old, deadline_s=LATE_S)
    assert watch.read("leader frozen, until another leads") < LED_S
    await hold_untouched(cluster, before, 8.0)
    watch = Stopwatch()
    old.resume()
    url = cluster.server_urls[cluster.servers.index(old)]
    await wait_until(
        lambda: cluster.api.get_from(url, "/v1/cluster"), LATE_S, "it follows", lambda c: c["leader"] == new.host.name
    )
    watch.read("leader awake, until it says who leads instead")
    await hold_untouched(cluster, before, 5.0)
    assert await leader_of(cluster) is new
    assert await converged(cluster) == before
    assert await decided_since(cluster, revision) == []


async def test_containers_outlive_all_servers(cluster: Cluster) -> None:
    before, revision = await converged(cluster), await revision_now(cluster)
    for server in cluster.servers:
        await server.kill()
    await cluster.agent(1).restart()
    await hold_untouched(cluster, before, 8.0)
    watch = Stopwatch()
    cluster.server(2).start()
    url = cluster.server_urls[1]
    await wait_until(lambda: ready_nodes(cluster, url), LATE_S, "the one server has all nodes", lambda n: n == 3)
    watch.read("one of three dead servers started again, until it has all nodes")
    await hold_untouched(cluster, before, 5.0)
    cluster.server(1).start()
    cluster.server(3).start()
    assert await converged(cluster) == before
    assert await decided_since(cluster, revision) == []


async def test_writes_go_on_when_the_leader_of_etcd_is_killed(cluster: Cluster) -> None:
    before, revision = await converged(cluster), await revision_now(cluster)
    member = await cluster.etcd.leader()
    watch = Stopwatch()
    await member.kill()
    await wait_until(lambda: write(cluster, "killed"), LATE_S, "a write is done")
    assert watch.read("leader of etcd killed, until a write is done") < WRITTEN_S
    await hold_untouched(cluster, before, 6.0)
    member.start()
    assert await converged(cluster) == before
    assert await decided_since(cluster, revision) == []


async def test_without_a_majority_of_etcd_nothing_moves_and_errors_say_so(cluster: Cluster) -> None:
    before, revision = await converged(cluster), await revision_now(cluster)
    down: Sequence[EtcdMember] = cluster.etcd.members[1:]
    for member in down:
        await member.kill()
    await hold_untouched(cluster, before, 2.0)
    await cluster.agent(2).restart()
    watch = Stopwatch()
    refused = await apply_to(cluster, cluster.server_urls[0])
    watch.read(f"no majority, until a write is refused with {refused.status}: {refused.body}")
    assert refused.status == 503
    assert "etcd" in refused.body["title"]
    assert refused.body["fix"]
    read = await cluster.api.ask(cluster.server_urls[0], "GET", "/v1/allocations")
    assert read.is_ok
    assert "out of date" in read.warning
    watch = Stopwatch()
    for member in down:
        member.start()
    await wait_until(lambda: write(cluster, "majority"), LATE_S, "a write is done")
    watch.read("majority is back, until a write is done")
    await hold_untouched(cluster, before, 6.0)
    assert await converged(cluster) == before
    assert await decided_since(cluster, revision) == []


async def apply_to(cluster: Cluster, server: str) -> Answer:
    body = {"documents": [service("probe", replicas=0, mark="never")], "dryRun": False}
    return await cluster.api.ask(server, "POST", "/v1/apply", body, within_s=ANSWER_S)


async def test_an_idle_cluster_writes_nothing(cluster: Cluster) -> None:
    await converged(cluster)
    revision = await wait_still(lambda: revision_now(cluster), 3.0, LATE_S, "the last events are stored")
    await hold_for(lambda: revision_now(cluster), 10.0, "the revision stands still", lambda now: now == revision)
