"""What a dry run of a drain says, on records in a store."""

from typing import Any

import pytest

from control_plane import node_views
from control_plane.controllers.drain_plan import plan_drain
from control_plane.controllers.standing import Standing
from control_plane.store.protocol import Store
from manifests.allocations import Phase
from manifests.workloads import WorkloadRecord
from tests.builders import record, workload
from tests.unit.test_leaving import Cluster


@pytest.fixture
async def cluster(store: Store) -> Cluster:
    made = Cluster(store)
    for name in ("n1", "n2"):
        await made.node(name)
    return made


def named(name: str, kind: str = "Service", **spec: Any) -> WorkloadRecord:
    return record(kind, uid=name).model_copy(update={"workload": workload(kind, name, **spec)})


async def test_each_allocation_on_the_node_moves_stays_or_stops(cluster: Cluster) -> None:
    await cluster.run(named("web", replicas=2), "n1", 0)
    await cluster.run(named("web", replicas=2), "n2", 1)
    await cluster.run(named("pinned", placement={"constraints": ["node.name == n1"]}), "n1")
    await cluster.run(named("logs", "Daemon"), "n1")
    ended = await cluster.run(named("batch", "Job"), "n1")
    await cluster.end(ended, Phase.SUCCEEDED)
    plan = plan_drain(cluster.state, Standing(cluster.state), "n1")
    assert [(a.workload.name, p.node) for a, p in plan.moves] == [("web", "n2")]
    assert [a.workload.name for a, _ in plan.stays] == ["pinned"]
    assert [a.workload.name for a in plan.stops] == ["logs"]


async def test_nothing_moves_to_the_node_itself_and_what_leaves_it_counts_nowhere(cluster: Cluster) -> None:
    spread = named("web", replicas=2, placement={"maxPerNode": 1})
    await cluster.run(spread, "n1")
    assert [p.node for _, p in plan_drain(cluster.state, Standing(cluster.state), "n1").moves] == ["n2"]
    await cluster.run(spread, "n2", 1)
    plan = plan_drain(cluster.state, Standing(cluster.state), "n1")
    assert plan.moves == ()
    assert {r.node: r.code for r in plan.stays[0][1].blocked.rejections} == {"n1": "draining", "n2": "maxPerNode"}


async def test_asking_changes_nothing_and_the_answer_is_told_in_words(cluster: Cluster) -> None:
    await cluster.run(named("web"), "n1")
    await cluster.run(named("logs", "Daemon"), "n1")
    before = cluster.state.revision
    told = node_views.drain_plan(plan_drain(cluster.state, Standing(cluster.state), "n1"))
    assert told == node_views.drain_plan(plan_drain(cluster.state, Standing(cluster.state), "n1"))
    assert cluster.state.revision == before == told["revision"]
    assert "score" in told["moves"][0]["why"]
    assert "comes back with the node" in told["stops"][0]["why"]


async def test_an_empty_node_has_nothing_to_move(cluster: Cluster) -> None:
    plan = plan_drain(cluster.state, Standing(cluster.state), "n2")
    assert (plan.moves, plan.stays, plan.stops) == ((), (), ())
