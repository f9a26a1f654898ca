"""A group of containers in the simulated cluster: the order of starts, an agent that dies, a sandbox that does."""

import asyncio

from agent.ownership import CONTAINER
from agent.tracked import SANDBOX
from manifests.allocations import Phase
from manifests.workloads import Workload
from tests.builders import workload
from tests.simulation.cluster import Cluster, NodeHost
from tests.simulation.judge import Judge
from tests.simulation.run import simulate
from tests.simulation.runtime import Box
from tests.simulation.test_found import apply, kill, settle
from tests.simulation.wishes import FOREVER


def a_group() -> Workload:
    size = {"resources": {"cpu": "50m", "memory": "16Mi"}}
    one = {"image": "wherry/busybox:1", **size}
    return workload(
        name="grouped",
        image="",
        command=[],
        containers=[
            {"name": "app", **one, "command": FOREVER},
            {"name": "log", **one, "command": FOREVER, "sidecar": True},
        ],
        initContainers=[{"name": "copy", **one, "command": ("sh", "-c", "sleep 0.2; exit 0")}],
    )


def boxes(node: NodeHost, allocation: str) -> dict[str, Box]:
    """Return the newest container of each name."""
    mine = [box for box in node.runtime.boxes.values() if box.labels.get("wherry.allocation") == allocation]
    return {box.labels[CONTAINER]: box for box in sorted(mine, key=lambda box: int(box.labels["wherry.attempt"]))}


def test_a_group_runs_through_the_end_of_its_agent_and_of_its_sandbox() -> None:
    async def scenario(cluster: Cluster, judge: Judge) -> None:
        await apply(cluster, a_group())
        await asyncio.sleep(10.0)
        (allocation,) = [a for a in judge.records.allocations.values() if a.workload.name == "grouped"]
        node = cluster.nodes[allocation.node]
        first = boxes(node, allocation.id)
        assert [name for name, box in sorted(first.items()) if box.is_running] == [SANDBOX, "app", "log"]
        assert first["copy"].exit_code == 0
        await kill(cluster, node)
        await asyncio.sleep(5.0)
        assert boxes(node, allocation.id) == first
        node.runtime.end(first[SANDBOX], 137, "crash")
        await asyncio.sleep(20.0)
        await settle(cluster)
        second = boxes(node, allocation.id)
        assert {box.spec.network_of for name, box in second.items() if name != SANDBOX} == {second[SANDBOX].id}
        assert judge.records.statuses[allocation.id].phase is Phase.RUNNING

    simulate(scenario)
