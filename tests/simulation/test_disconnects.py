"""onDisconnect on simulated clusters, with the real agents and servers: frozen, killed and cut off, by many seeds.

The judge checks at each start of a container that nothing under stopAfter runs twice in a slot (S3).
"""

import asyncio
import gc
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from manifests.allocations import Desired
from manifests.workloads import Workload
from tests.builders import workload
from tests.simulation.cluster import Cluster, ServerHost
from tests.simulation.judge import Judge
from tests.simulation.run import simulate
from tests.simulation.test_found import apply, settle
from tests.simulation.wishes import DEAF, FOREVER

SIZE: dict[str, Any] = {"resources": {"cpu": "200m", "memory": "64Mi"}}
ONCE: dict[str, Any] = {"onDisconnect": {"stopAfter": "6s"}, "stop": {"grace": "2s"}, **SIZE}
FAULTS = ("freeze agent", "kill agent", "cut", "hang manager", "kill leader", "freeze leader")


@pytest.fixture(autouse=True)
def _no_collection() -> Iterator[None]:
    """Keep the garbage collector from running finalizers, which are none of a history's events, in the midst of it."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def workloads() -> list[Workload]:
    return [
        workload(name="once", replicas=3, command=FOREVER, **ONCE),
        workload(name="deaf", replicas=2, command=DEAF, **ONCE),
        workload("Job", name="payout", completions=4, parallelism=2, command=("sh", "-c", "sleep 8; exit 0"), **ONCE),
        workload(name="sticky", replicas=3, command=FOREVER, onDisconnect={"keep": "original"}, **SIZE),
        workload(name="long", replicas=2, command=FOREVER, onDisconnect={"keep": "longestRunning"}, **SIZE),
        workload(name="patient", replicas=2, command=FOREVER, onDisconnect={"replaceAfter": "20s"}, **SIZE),
    ]


def leading(cluster: Cluster) -> ServerHost:
    """Return the leader, or any server while there is none."""
    servers = list(cluster.servers.values())
    return next((s for s in servers if s.core is not None and s.core.membership.is_leading), servers[0])


async def happen(cluster: Cluster, what: str, node_name: str, for_s: float) -> None:
    """Let one thing go wrong for so long."""
    node, leader = cluster.nodes[node_name], leading(cluster)
    cluster.note("fault", what, node_name, for_s)
    match what:
        case "freeze agent" if node.process is not None and not node.process.is_dead:
            node.process.freeze()
            await asyncio.sleep(for_s)
            node.process.thaw()
        case "kill agent" if node.process is not None:
            node.process.kill()
            await asyncio.sleep(for_s)
            cluster.start_agent(node)
        case "cut":
            for server in cluster.servers:
                cluster.network.cut(node_name, server)
                cluster.network.cut(server, node_name)
            await asyncio.sleep(for_s)
            cluster.network.heal_all()
        case "hang manager":
            node.runtime.is_hung = True
            await asyncio.sleep(for_s)
            node.runtime.come_back()
        case "kill leader" if leader.process is not None:
            leader.process.kill()
            await asyncio.sleep(2.0)
            cluster.start_server(leader)
        case "freeze leader" if leader.process is not None:
            leader.process.freeze()
            await asyncio.sleep(for_s)
            leader.process.thaw()


@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_frozen_killed_or_cut_off_nothing_runs_twice_and_one_survives(seed: int) -> None:
    rng = random.Random(seed)

    async def scenario(cluster: Cluster, judge: Judge) -> None:
        for one in workloads():
            await apply(cluster, one)
        await asyncio.sleep(3.0)
        for _ in range(3):
            await happen(cluster, rng.choice(FAULTS), rng.choice(sorted(cluster.nodes)), rng.uniform(2.0, 30.0))
            await asyncio.sleep(rng.uniform(0.0, 12.0))
        await asyncio.sleep(60.0)
        await settle(cluster)
        slots = Counter(
            (a.workload.name, a.index) for a in judge.records.allocations.values() if a.desired is Desired.RUN
        )
        assert set(slots.values()) == {1}
        running = Counter(judge.records.ever[one.allocation].workload.name for one in judge.running.running.values())
        assert running == {"once": 3, "deaf": 2, "sticky": 3, "long": 2, "patient": 2}

    simulate(scenario, seed=f"disconnects/{seed}", but=frozenset({"S10"}))


def test_a_frozen_agents_containers_are_ended_by_the_guard() -> None:
    async def scenario(cluster: Cluster, judge: Judge) -> None:
        await apply(cluster, workload(name="once", replicas=5, command=FOREVER, **ONCE))
        await asyncio.sleep(5.0)
        node = next(n for n in cluster.nodes.values() if any(b.is_running for b in n.runtime.boxes.values()))
        await happen(cluster, "freeze agent", node.name, 30.0)
        await settle(cluster)
        assert node.guard.killed

    simulate(scenario)


def test_a_node_that_is_back_before_replace_after_finds_all_as_it_was() -> None:
    async def scenario(cluster: Cluster, judge: Judge) -> None:
        await apply(cluster, workload(name="patient", replicas=5, command=FOREVER, onDisconnect={"replaceAfter": "1m"}))
        await asyncio.sleep(5.0)
        before = dict(judge.running.running)
        for name in cluster.nodes:
            await happen(cluster, "cut", name, 15.0)
        await settle(cluster)
        assert judge.running.running == before

    simulate(scenario)
