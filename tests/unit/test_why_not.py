"""What is asked of the scheduler when somebody asks why, on records in a store; and what the API shows of it."""

from typing import Any

import pytest

from control_plane import explain_views
from control_plane.controllers.standing import Standing
from control_plane.controllers.why_not import explain_allocation, explain_workload
from control_plane.store.protocol import Store
from manifests.explanations import Explanation
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


def why(cluster: Cluster, of: WorkloadRecord, node: str | None = None) -> Explanation:
    return explain_workload(cluster.state, Standing(cluster.state), of, node)


def told(explanation: Explanation) -> dict[str, list[str]]:
    return {n.node: [f.code.value for f in n.faults] for group in explanation.groups for n in group.nodes}


async def test_one_more_of_a_service_is_judged_beside_those_that_run(cluster: Cluster) -> None:
    web = named("web", replicas=2, placement={"maxPerNode": 1})
    await cluster.run(web, "n1")
    answer = why(cluster, web)
    assert answer.goal is not None
    assert answer.goal.node == "n2"
    assert told(answer) == {"n1": ["maxPerNode"]}
    assert answer.remedies == ()


async def test_what_others_say_of_the_workload_counts_too(cluster: Cluster) -> None:
    await cluster.run(named("noisy", placement={"apart": [{"service": "web"}]}), "n1")
    assert told(why(cluster, named("web"))) == {"n1": ["apart"]}


async def test_one_node_alone_can_be_asked_about(cluster: Cluster) -> None:
    await cluster.intend("n2", is_cordoned=True)
    answer = why(cluster, named("web"), "n2")
    assert told(answer) == {"n2": ["cordoned"]}
    assert [r.sentence() for r in answer.remedies] == ["fits n2 once it is uncordoned"]


async def test_of_a_daemon_the_nodes_that_have_none_are_told_of_and_each_counts(cluster: Cluster) -> None:
    logs = named("logs", "Daemon")
    await cluster.run(logs, "n1")
    await cluster.node("n3")
    await cluster.intend("n2", taints=("gpu:noSchedule",))
    answer = why(cluster, logs)
    assert (answer.fits, told(answer)) == (1, {"n2": ["taint"]})
    assert [r.sentence() for r in answer.remedies] == ["fits n2 if its taint gpu is tolerated"]
    await cluster.intend("n2", is_cordoned=True)
    assert why(cluster, logs).remedies == (), "no daemon is meant to be there now"


async def test_an_allocation_is_judged_as_if_it_werent_there(cluster: Cluster) -> None:
    web = named("web", placement={"maxPerNode": 1})
    a = await cluster.run(web, "n1")
    await cluster.intend("n2", is_cordoned=True)
    answer = explain_allocation(cluster.state, Standing(cluster.state), a)
    assert answer.goal is not None
    assert answer.goal.node == "n1"
    assert told(answer) == {"n2": ["cordoned"]}
    assert told(explain_allocation(cluster.state, Standing(cluster.state), a, "n2")) == {"n2": ["cordoned"]}


async def test_an_allocation_of_a_daemon_would_go_nowhere_else(cluster: Cluster) -> None:
    a = await cluster.run(named("logs", "Daemon"), "n2")
    answer = explain_allocation(cluster.state, Standing(cluster.state), a)
    assert answer.goal is not None
    assert answer.goal.node == "n2"
    assert (answer.fits, answer.groups) == (1, ())


async def test_one_of_a_workload_that_is_gone_says_so(cluster: Cluster) -> None:
    a = await cluster.run(named("web"), "n1")
    gone = a.model_copy(update={"workload": named("web").ref.model_copy(update={"uid": "another"})})
    assert "gone" in explain_allocation(cluster.state, Standing(cluster.state), gone).note


async def test_an_older_version_is_asked_for_as_it_is(cluster: Cluster) -> None:
    old = named("web", resources={"cpu": "1m"})
    a = await cluster.run(old, "n1")
    new = named("web", resources={"cpu": "900"}).model_copy(update={"version": 2, "generation": 2})
    await cluster.run(new, "n2", 1)
    assert explain_allocation(cluster.state, Standing(cluster.state), a).fits == 2
    assert why(cluster, new).fits == 0


async def test_asking_changes_nothing_and_the_answer_is_told_in_words(cluster: Cluster) -> None:
    big = named("web", resources={"memory": "900Gi"})
    a = await cluster.run(big, "n1")
    standing = Standing(cluster.state)
    first, again = (explain_workload(cluster.state, standing, big) for _ in range(2))
    assert first == again
    assert explain_allocation(cluster.state, standing, a) == explain_allocation(cluster.state, standing, a)
    view = explain_views.of_workload(cluster.state, big, first, 7, None)
    assert view["there"][0]["id"] == a.id
    assert view["groups"][0]["nodes"][0]["faults"][0]["sentence"].startswith("needs 900Gi memory, has ")
    assert view["remedies"][0]["ofTheWorkload"]
    assert view["remedies"][0]["sentence"].startswith("fits n2 if memory <= ")
    assert explain_views.of_workload(cluster.state, big, first, 7, "n2")["there"] == []
    assert explain_views.of_allocation(cluster.state, a, first, "n1")["askedNode"] == "n1"
