"""Nodes that die, freeze, fall silent or lose their engine: what is wanted runs on, is replaced, and is never doubled.

Every test compares with the engines themselves: the same container id, pid and start mean that nothing was touched.
"""

import os
import signal

import pytest

from tests.lab.cluster import Cluster
from tests.lab.faults import (
    REPLICAS,
    Stopwatch,
    converged,
    decided_since,
    hold_untouched,
    leader_of,
    node_of,
    on_node,
    owned,
    owned_on,
    revision_now,
)
from tests.lab.host import Direction
from tests.lab.marks import ON_A_CLUSTER
from tests.lab.waiting import hold_for, wait_until

pytestmark = [*ON_A_CLUSTER, pytest.mark.asyncio(loop_scope="module")]

REPLACED_S = 20.0  # for a machine with much else to do; `script/bench failover` holds it to 8 s
LATE_S = 20.0
HEADLESS_S = 40.0  # a lease of 5 s, an election, and all of the silence anew
TOLD_S = 35.0  # the engine is asked every 15 s at the latest, and has 10 s to answer


async def await_replaced(cluster: Cluster, *nodes: str, deadline_s: float = LATE_S) -> None:
    """Return when all replicas run on these nodes."""
    hosts = [cluster.host(node) for node in nodes]
    await wait_until(lambda: owned_on(hosts), deadline_s, f"all run on {nodes}", lambda c: len(c) == REPLICAS)


async def test_replicas_spread_over_all_hosts(cluster: Cluster) -> None:
    containers = await converged(cluster)
    assert len(containers) == REPLICAS
    assert sorted(node_of(container) for container in containers.values()) == ["n1", "n1", "n2", "n2", "n3", "n3"]


async def test_a_host_without_power_is_replaced_and_comes_back_clean(cluster: Cluster) -> None:
    before = await converged(cluster)
    watch = Stopwatch()
    await cluster.host("n2").kill()
    await await_replaced(cluster, "n1", "n3")
    assert watch.read("power cut, until all replicas run elsewhere") < REPLACED_S
    watch = Stopwatch()
    await cluster.reboot_node(2)
    after = await converged(cluster)
    watch.read("reboot, until the node is clean and ready")
    assert on_node(before, "n1", "n3").items() <= after.items()
    assert len(after) == REPLICAS
    assert await owned(cluster.host("n2")) == ()


async def test_a_host_that_dies_together_with_the_leader_is_replaced(cluster: Cluster) -> None:
    before, leader = await converged(cluster), await leader_of(cluster)
    watch = Stopwatch()
    await leader.kill()
    await cluster.host("n2").kill()
    await await_replaced(cluster, "n1", "n3", deadline_s=HEADLESS_S)
    watch.read("power cut and leader killed, until all replicas run elsewhere")
    leader.start()
    await cluster.reboot_node(2)
    after = await converged(cluster)
    assert on_node(before, "n1", "n3").items() <= after.items()
    assert len(after) == REPLICAS


@pytest.mark.parametrize("cut", ["both ways", *Direction])
async def test_a_silent_host_is_replaced_and_left_alone(cluster: Cluster, cut: str) -> None:
    before = await converged(cluster)
    cut_off, there = cluster.host("n3"), dict(on_node(before, "n3"))
    watch = Stopwatch()
    if isinstance(cut, Direction):
        await cut_off.partition_one_way(cut)
    else:
        await cut_off.partition()
    await await_replaced(cluster, "n1", "n2")
    watch.read(f"cut off ({cut}), until all replicas run elsewhere")
    await hold_for(lambda: owned_on([cut_off]), 3.0, "silence is not an order", lambda c: c == there)
    watch = Stopwatch()
    await cut_off.heal()
    after = await converged(cluster)
    watch.read(f"healed ({cut}), until nothing is doubled")
    assert on_node(before, "n1", "n2").items() <= after.items()
    assert len(after) == REPLICAS


async def test_a_short_silence_moves_nothing(cluster: Cluster) -> None:
    before, revision = await converged(cluster), await revision_now(cluster)
    await cluster.host("n1").partition()
    await hold_for(lambda: owned_on([cluster.host("n1")]), 2.0, "they run on", lambda c: c.items() <= before.items())
    await cluster.host("n1").heal()
    await hold_untouched(cluster, before, 5.0)
    assert await converged(cluster) == before
    assert await decided_since(cluster, revision) == []


@pytest.mark.parametrize("politely", [True, False], ids=["politely", "by kill -9"])
async def test_containers_outlive_their_engine(cluster: Cluster, politely: bool) -> None:
    before, revision = await converged(cluster), await revision_now(cluster)
    victim = next(iter(on_node(before, "n1")))
    dockerd = cluster.host("n1").dockerd
    await (dockerd.stop() if politely else dockerd.kill())
    os.kill(before[victim].pid, signal.SIGKILL)
    await dockerd.start()
    watch = Stopwatch()
    await wait_until(lambda: owned(cluster.host("n1")), LATE_S, "the ended one is healed", lambda c: len(c) == 2)
    watch.read("the engine is back, until what had ended meanwhile runs again")
    after = await converged(cluster)
    assert after.keys() == before.keys()
    assert {a for a in after if after[a] != before[a]} == {victim}
    assert await decided_since(cluster, revision) == []


async def test_containers_outlive_their_agent(cluster: Cluster) -> None:
    before, revision = await converged(cluster), await revision_now(cluster)
    await cluster.agent(2).kill()
    cluster.agent(2).start()
    await hold_untouched(cluster, before, 3.0)
    await cluster.agent(1).pause()
    await hold_untouched(cluster, before, 3.0)
    cluster.agent(1).resume()
    await hold_untouched(cluster, before, 3.0)
    assert await converged(cluster) == before
    assert await decided_since(cluster, revision) == []


async def test_an_agent_that_wakes_too_late_gives_way(cluster: Cluster) -> None:
    before = await converged(cluster)
    watch = Stopwatch()
    await cluster.agent(3).pause()
    await await_replaced(cluster, "n1", "n2")
    watch.read("agent frozen, until all replicas run elsewhere")
    assert (await owned_on([cluster.host("n3")])).items() == on_node(before, "n3").items()
    watch = Stopwatch()
    cluster.agent(3).resume()
    after = await converged(cluster)
    watch.read("agent awake, until nothing is doubled")
    assert on_node(before, "n1", "n2").items() <= after.items()


async def test_a_hung_engine_is_told_and_loses_nothing(cluster: Cluster) -> None:
    before, revision = await converged(cluster), await revision_now(cluster)
    watch = Stopwatch()
    await cluster.host("n1").pause("dockerd")
    node = await wait_until(
        lambda: cluster.api.get("/v1/nodes/n1"), TOLD_S, "the node says what is wrong", lambda n: n["message"]
    )
    watch.read(f"engine hung, until the node says so ({node['message']})")
    told = await wait_until(
        lambda: cluster.api.items("/v1/allocations?node=n1"),
        LATE_S,
        "its allocations say so",
        lambda items: all(item["message"] for item in items),
    )
    watch.read(f"engine hung, until its allocations say so ({told[0]['message']})")
    assert (node["state"], node["liveness"]) == ("troubled", "ready")
    watch = Stopwatch()
    await cluster.host("n1").resume("dockerd")
    await wait_until(lambda: cluster.api.get("/v1/nodes/n1"), LATE_S, "it is well", lambda n: n["state"] == "ready")
    watch.read("engine awake, until the node is well")
    assert await converged(cluster) == before
    assert await decided_since(cluster, revision) == []
