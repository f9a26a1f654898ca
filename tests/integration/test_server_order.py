"""A real server on each kind of store: workloads that start after others, and a cluster that is frozen."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from control_plane import keys
from control_plane.store.protocol import Put, Store, Txn
from manifests.allocations import Phase
from manifests.workloads import WORKLOAD, WorkloadRecord
from tests.lab.waiting import hold_for, wait_until
from tests.scripted import ScriptedAgent, Served, connected, facts, manifest, served

pytestmark = pytest.mark.each_store
WEB = "/v1/workloads/default/service/web"
MIGRATE = "/v1/workloads/default/job/migrate"
AFTER_MIGRATE: dict[str, Any] = {"startAfter": [{"job": "migrate"}], "update": {"minHealthyTime": "0s"}}


@pytest.fixture
async def server(tmp_path: Path, store: Store) -> AsyncIterator[Served]:
    async with served(tmp_path / "server", on=store) as running:
        yield running


async def test_a_service_starts_once_the_job_that_it_waits_for_has_succeeded(server: Served) -> None:
    await server.apply(manifest(replicas=1, **AFTER_MIGRATE), manifest("Job", "migrate"))
    web = await server.until_state(WEB, "waiting")
    assert "waits for job migrate, which is " in web["messages"][0]
    async with connected(server, ScriptedAgent(server, facts("n1"), answer=Phase.SUCCEEDED)):
        await server.until_state(MIGRATE, "complete")

        async def placed() -> set[str]:
            return {a["name"] for a in await server.allocations()}

        await wait_until(placed, 5, "web is placed at once", lambda names: "web" in names)


async def test_a_workload_says_what_is_the_matter_with_what_it_waits_for(server: Served) -> None:
    await server.apply(manifest(replicas=1, **AFTER_MIGRATE))
    web = await server.until_state(WEB, "waiting")
    assert web["messages"] == ["waits for job migrate, which doesn't exist"]
    async with connected(server, ScriptedAgent(server, facts("n1"), answer=Phase.FAILED)):
        await server.apply(manifest("Job", "migrate", retries=0))
        await server.until_state(MIGRATE, "failed")

        async def said() -> list[str]:
            return list((await server.get(WEB))["messages"])

        await wait_until(said, 5, "it says so", lambda m: m == ["waits for job migrate, which failed"])
        assert {a["name"] for a in await server.allocations()} == {"migrate"}


async def test_what_has_started_goes_on_when_what_it_waited_for_is_gone(server: Served) -> None:
    after: dict[str, Any] = {"startAfter": [{"service": "db"}], "update": {"minHealthyTime": "0s"}}
    async with connected(server, ScriptedAgent(server, facts("n1"))):
        await server.apply(manifest(replicas=1, **after), manifest(name="db", replicas=1))
        await server.until_state(WEB, "healthy", 20)
        await server.call("DELETE", "/v1/workloads/default/service/db")
        await server.apply(manifest(replicas=2, env={"A": "1"}, **after))

        async def updated() -> bool:
            web = await server.get(WEB)
            return (web["state"], web["counts"]["updated"]) == ("healthy", 2)

        await wait_until(updated, 20, "the new version runs", bool)


async def test_a_circle_is_refused_and_named(server: Served) -> None:
    await server.apply(manifest(name="db", replicas=1, startAfter=[{"service": "web"}]))
    web = manifest(replicas=1, startAfter=[{"job": "migrate"}])
    migrate = manifest("Job", "migrate", startAfter=[{"service": "db"}])
    status, body = await server.call("POST", "/v1/apply", {"documents": [web, migrate]})
    assert status == 422
    assert body["detail"] == (
        "service/web waits for job/migrate, which waits for service/db, which waits for service/web"
    )
    status, body = await server.call(
        "POST", "/v1/apply", {"documents": [manifest(name="me", startAfter=[{"service": "me"}])]}
    )
    assert (status, body["detail"]) == (422, "service/me waits for service/me")
    assert [w["name"] for w in (await server.get("/v1/workloads"))["items"]] == ["db"]


async def test_a_circle_that_came_about_otherwise_is_named_while_it_waits(server: Served) -> None:
    await server.apply(manifest(name="db", replicas=1, startAfter=[{"service": "web"}]))
    document = manifest(replicas=1, startAfter=[{"service": "db"}])
    record = WorkloadRecord(
        uid="u", version=1, generation=1, created_s=0.0, workload=WORKLOAD.validate_python(document)
    )
    await server.store.commit(Txn((), (Put(keys.WORKLOADS + "default/service/web", record.to_bytes()),)))
    web = await server.until_state(WEB, "waiting")
    assert web["messages"] == ["waits for ever, since service/web waits for service/db, which waits for service/web"]


async def test_a_frozen_cluster_says_what_it_would_do_and_does_nothing_until_unfrozen(server: Served) -> None:
    async with connected(server, ScriptedAgent(server, facts("n1"))):
        await server.apply(manifest(replicas=1))
        await server.until_state(WEB, "healthy", 20)
        status, cluster = await server.call("POST", "/v1/freeze", {"reason": "the rack is being moved"})
        assert status == 200
        assert "admin token" in cluster["frozen"]["by"]
        assert cluster["frozen"]["reason"] == "the rack is being moved"
        before = {a["id"] for a in await server.allocations()}
        await server.apply(manifest(replicas=3))

        async def said() -> list[str]:
            return list((await server.get(WEB))["messages"])

        await wait_until(said, 5, "it says so", lambda m: "the cluster is frozen: 2 to be placed" in " ".join(m))

        async def as_it_was() -> bool:
            return {a["id"] for a in await server.allocations()} == before

        await hold_for(as_it_was, 1, "nothing is placed")
        await server.call("POST", "/v1/unfreeze")
        web = await server.until_state(WEB, "healthy", 20)
        assert web["counts"]["ready"] == 3

        async def told() -> set[str]:
            events = (await server.get("/v1/events"))["items"]
            return {e["reason"] for e in events if e["subject"] == "cluster/freeze" and "admin" in e["by"]}

        await wait_until(told, 10, "both are told", lambda reasons: reasons == {"frozen", "unfrozen"})


async def test_nodes_are_watched_over_while_the_cluster_is_frozen(server: Served) -> None:
    silent = ScriptedAgent(server, facts("n1"))
    async with connected(server, silent, ScriptedAgent(server, facts("n2"))):
        await server.apply(manifest(replicas=2, placement={"maxPerNode": 1}))
        await server.until_state(WEB, "healthy", 20)
        await server.call("POST", "/v1/freeze", {})
        before = {(a["id"], a["desired"]) for a in await server.allocations()}
        silent.is_silent = True
        await server.until_state("/v1/nodes/n1", "lost")

        async def as_it_was() -> bool:
            return {(a["id"], a["desired"]) for a in await server.allocations()} == before

        await hold_for(as_it_was, 1, "nothing is replaced")


async def test_every_answer_warns_that_the_cluster_is_frozen(server: Served) -> None:
    await server.call("POST", "/v1/freeze", {"reason": 'a "quoted" word, and \N{SNOWMAN}'})
    async with server.http.get(server.url + "/v1/nodes", headers=server.admin) as answer:
        assert "the cluster is frozen since 20" in answer.headers["Warning"]
        assert ": a ?quoted? word, and ?" in answer.headers["Warning"]
    async with server.http.get(server.url + "/v1/health") as answer:
        assert "Warning" not in answer.headers
    await server.call("POST", "/v1/unfreeze")
    async with server.http.get(server.url + "/v1/nodes", headers=server.admin) as answer:
        assert "Warning" not in answer.headers


async def test_freezing_again_changes_the_reason_and_not_the_time(server: Served) -> None:
    _, first = await server.call("POST", "/v1/freeze", {"reason": "one"})
    _, second = await server.call("POST", "/v1/freeze", {"reason": "two"})
    assert second["frozen"] == {**first["frozen"], "reason": "two"}
    for body in ({"reason": 5}, {"why": "x"}, {"reason": "x" * 501}, {"reason": "\x1b[2J"}):
        assert (await server.call("POST", "/v1/freeze", body))[0] == 400


async def test_a_freeze_that_cannot_be_read_still_is_one_and_can_be_ended(server: Served) -> None:
    await server.store.commit(Txn((), (Put(keys.FREEZE, b"{garbage"),)))
    await server.apply(manifest(replicas=1))
    await server.until_state(WEB, "blocked")
    async with connected(server, ScriptedAgent(server, facts("n1"))):

        async def none() -> bool:
            return not await server.allocations()

        await hold_for(none, 1, "nothing is placed")
        assert (await server.get("/v1/cluster"))["frozen"]["reason"] == "the record of it can't be read"
        assert (await server.call("POST", "/v1/unfreeze"))[0] == 200
        await server.until_state(WEB, "healthy", 20)
