"""A real server on the embedded store: what its API and its sessions do. The agents here have no containers."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from control_plane import keys
from control_plane.store.protocol import Delete, Put, Txn
from manifests.allocations import Phase
from manifests.session import LOG_WINDOW_BYTES
from tests.lab.waiting import wait_still, wait_until
from tests.scripted import ScriptedAgent, Served, connected, facts, manifest, served

WEB = "/v1/workloads/default/service/web"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path / "server") as running:
        yield running


async def test_a_service_is_placed_run_and_reported_healthy(server: Served) -> None:
    async with connected(server, ScriptedAgent(server, facts("n1")), ScriptedAgent(server, facts("n2"))):
        results = await server.apply(manifest(replicas=3))
        assert results[0]["action"] == "created"
        web = await server.until_state(WEB, "healthy")
        assert web["counts"]["ready"] == 3
        placed = await server.allocations()
        assert {a["node"] for a in placed} == {"n1", "n2"}
        assert all("score" in a["whySentence"] for a in placed)


async def test_every_call_but_health_needs_a_token(server: Served) -> None:
    async with server.http.get(server.url + "/v1/health") as answer:
        assert answer.status == 200
    for path in (
        "/v1/nodes",
        "/v1/workloads",
        "/v1/allocations",
        "/v1/events",
        "/v1/watch",
        "/v1/cluster",
        "/v1/session",
    ):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic " + "x" * 30}):
            async with server.http.get(server.url + path, headers=headers) as answer:
                assert answer.status == 401, path
                assert answer.content_type == "application/problem+json"


async def test_a_join_token_opens_sessions_and_nothing_else(server: Served) -> None:
    for path in ("/v1/nodes", "/v1/workloads", "/v1/watch"):
        async with server.http.get(server.url + path, headers=server.join) as answer:
            assert answer.status == 403, path
    async with server.http.get(server.url + "/v1/session", headers=server.admin) as answer:
        assert answer.status == 403


async def test_an_unknown_route_is_a_problem_in_words(server: Served) -> None:
    status, body = await server.call("GET", "/v1/pods")
    assert (status, body["title"]) == (404, "there is no GET /v1/pods")


async def test_a_wrong_manifest_changes_nothing_and_every_fault_is_named(server: Served) -> None:
    revision = (await server.get("/v1/cluster"))["revision"]
    wrong = [manifest(name="good"), manifest(name="bad", replicas="three"), manifest(name="worse", replica=1)]
    status, body = await server.call("POST", "/v1/apply", {"documents": wrong})
    assert status == 422
    assert {(p["document"], p["path"]) for p in body["problems"]} == {(1, "spec.replicas"), (2, "spec.replica")}
    assert "replicas" in body["problems"][1]["message"]
    assert (await server.get("/v1/cluster"))["revision"] == revision
    assert (await server.get("/v1/workloads"))["items"] == []


async def test_a_dry_run_says_what_would_change_and_changes_nothing(server: Served) -> None:
    await server.apply(manifest(replicas=1))
    changed = manifest(replicas=2, env={"A": "1"})
    status, body = await server.call("POST", "/v1/apply", {"documents": [changed], "dryRun": True})
    assert status == 200
    result = body["results"][0]
    assert (result["action"], result["version"], result["makesVersion"]) == ("changed", 2, True)
    assert {"path": "spec.replicas", "old": 1, "new": 2} in result["changes"]
    assert (await server.get(WEB))["version"] == 1


async def test_the_same_apply_twice_changes_nothing(server: Served) -> None:
    await server.apply(manifest(replicas=1))
    web = await server.get(WEB)
    results = await server.apply(manifest(replicas=1))
    assert results[0]["action"] == "unchanged"
    assert (await server.get(WEB))["revision"] == web["revision"]


async def test_an_edit_of_an_old_revision_is_refused(server: Served) -> None:
    await server.apply(manifest(replicas=1))
    old = (await server.get(WEB))["revision"]
    await server.apply(manifest(replicas=2))
    status, body = await server.call("PUT", WEB, manifest(replicas=3), **{"If-Match": str(old)})
    assert status == 409
    assert str(old) in body["detail"]
    assert (await server.get(WEB))["counts"]["desired"] == 2


async def test_scaling_makes_no_new_version(server: Served) -> None:
    async with connected(server, ScriptedAgent(server, facts("n1"))):
        await server.apply(manifest(replicas=1))
        await server.until_state(WEB, "healthy")
        first = {a["id"] for a in await server.allocations()}
        await server.call("POST", WEB + "/scale", {"replicas": 3})
        web = await server.until_state(WEB, "healthy")
        assert (web["version"], web["counts"]["ready"]) == (1, 3)
        assert first < {a["id"] for a in await server.allocations()}


async def test_a_change_replaces_all_allocations_and_leaves_nothing_over(server: Served) -> None:
    async with connected(server, ScriptedAgent(server, facts("n1"))):
        await server.apply(manifest(replicas=3))
        await server.until_state(WEB, "healthy")
        first = {a["id"] for a in await server.allocations()}
        await server.apply(manifest(replicas=3, env={"A": "1"}))
        await server.until_state(WEB, "healthy")

        async def rest() -> list[dict[str, Any]]:
            return await server.allocations()

        left = await wait_until(rest, 10, "three are left", lambda found: len(found) == 3)
        assert first.isdisjoint(a["id"] for a in left)
        assert {a["version"] for a in left} == {2}


async def test_deleting_a_workload_leaves_nothing_but_events_in_the_store(server: Served) -> None:
    async with connected(server, ScriptedAgent(server, facts("n1"))):
        await server.apply(manifest(replicas=2))
        await server.until_state(WEB, "healthy")
        status, _ = await server.call("DELETE", WEB)
        assert status == 202

        async def left() -> list[str]:
            page = await server.store.list_prefix(keys.ROOT)
            return [e.key for e in page.entries if "web" in e.key and not e.key.startswith(keys.EVENTS)]

        await wait_until(left, 10, "nothing of it is left", lambda found: not found)
        assert (await server.call("DELETE", WEB))[0] == 404


async def test_a_full_cluster_says_what_is_short_and_where(server: Served) -> None:
    async with connected(server, ScriptedAgent(server, facts("n1", memory="1Gi"))):
        await server.apply(manifest(replicas=3, resources={"memory": "400Mi"}))
        await server.until_state(WEB, "blocked")

        async def ready() -> int:
            return int((await server.get(WEB))["counts"]["ready"])

        await wait_until(ready, 5, "the two that fit are ready", lambda count: count == 2)
        blocked = (await server.get(WEB))["blocked"][0]
        assert blocked["count"] == 1
        assert (blocked["rejections"][0]["node"], blocked["rejections"][0]["code"]) == ("n1", "memory")
        assert "400Mi" in blocked["sentence"]
        assert "224Mi" in blocked["sentence"]


async def test_what_was_blocked_is_placed_when_a_node_comes(server: Served) -> None:
    await server.apply(manifest(replicas=1))
    await server.until_state(WEB, "blocked")
    async with connected(server, ScriptedAgent(server, facts("n1"))):
        await server.until_state(WEB, "healthy")


async def test_failures_are_counted_also_while_the_next_try_is_blocked(server: Served) -> None:
    agent = ScriptedAgent(server, facts("n1"), answer=Phase.FAILED)

    async def tried() -> list[dict[str, Any]]:
        return [a for a in await server.allocations() if a["reschedules"] == 1]

    async with connected(server, agent):
        await server.call("POST", "/v1/nodes/n1/cordon")
        await server.apply(manifest(reschedule={"backoff": "300ms", "maxBackoff": "1h"}))
        await server.until_state(WEB, "blocked")
        await server.call("POST", "/v1/nodes/n1/uncordon")
        await wait_until(
            server.allocations, 5, "it has failed", lambda there: [a["phase"] for a in there] == ["failed"]
        )
        await server.call("POST", "/v1/nodes/n1/cordon")
        await server.until_state(WEB, "blocked")
        for _ in range(3):  # passes in between, in which it stays blocked
            await server.apply(manifest(name="other", replicas=0))
            await server.call("DELETE", "/v1/workloads/default/service/other")
        assert [a["desired"] for a in await server.allocations()] == ["run"]
        await server.call("POST", "/v1/nodes/n1/uncordon")
        (again,) = await wait_until(tried, 5, "it is tried again", bool)
        assert again["replaces"]


async def test_a_cordoned_node_gets_nothing_new_and_a_drained_one_is_emptied(server: Served) -> None:
    async with connected(server, ScriptedAgent(server, facts("n1"))):
        await server.apply(manifest(replicas=2))
        await server.until_state(WEB, "healthy")
        async with connected(server, ScriptedAgent(server, facts("n2"))):
            await server.call("POST", "/v1/nodes/n1/drain")
            await server.until_state("/v1/nodes/n1", "drained")
            await server.until_state(WEB, "healthy")
            assert {a["node"] for a in await server.allocations() if a["desired"] == "run"} == {"n2"}
            await server.call("POST", "/v1/nodes/n1/uncordon")
            assert (await server.get("/v1/nodes/n1"))["state"] == "ready"


async def test_a_silent_node_is_lost_and_its_work_runs_elsewhere(server: Served) -> None:
    silent = ScriptedAgent(server, facts("n1"))
    async with connected(server, silent):
        await server.apply(manifest(replicas=1))
        await server.until_state(WEB, "healthy")
        silent.is_silent = True
        async with connected(server, ScriptedAgent(server, facts("n2"))):
            await server.until_state("/v1/nodes/n1", "lost")

            async def moved() -> set[str]:
                return {a["node"] for a in await server.allocations() if a["desired"] == "run"}

            await wait_until(moved, 5, "it runs on n2", lambda nodes: nodes == {"n2"})


async def test_a_node_that_comes_back_in_time_keeps_its_work(server: Served) -> None:
    agent = ScriptedAgent(server, facts("n1"))
    async with connected(server, agent):
        await server.apply(manifest(replicas=2))
        await server.until_state(WEB, "healthy")
    before = {a["id"] for a in await server.allocations()}
    again = ScriptedAgent(server, facts("n1"), statuses=agent.statuses)
    async with connected(server, again):
        assert again.welcome is not None
        assert again.welcome.session == 2
        assert {a["id"] for a in await server.allocations()} == before
        await server.until_state(WEB, "healthy")


async def test_a_lost_node_that_comes_back_is_told_to_stop_what_was_replaced(server: Served) -> None:
    agent = ScriptedAgent(server, facts("n1"))
    async with connected(server, agent):
        await server.apply(manifest(replicas=1))
        await server.until_state(WEB, "healthy")
    await server.until_state("/v1/nodes/n1", "lost")
    async with connected(server, ScriptedAgent(server, facts("n2"))):
        await server.until_state(WEB, "healthy")
        again = ScriptedAgent(server, facts("n1"), statuses=agent.statuses)
        async with connected(server, again):

            async def left() -> set[str]:
                return {a["node"] for a in await server.allocations()}

            await wait_until(left, 5, "only the one on n2 is left", lambda nodes: nodes == {"n2"})


async def test_a_second_agent_of_the_same_name_is_refused_while_the_first_lives(server: Served) -> None:
    async with connected(server, ScriptedAgent(server, facts("n1", agent_id="first"))):
        twin = ScriptedAgent(server, facts("n1", agent_id="second"))
        async with connected(server, twin):
            assert twin.refused is not None
            assert "first" in twin.refused.why
            assert "second" in twin.refused.why


async def test_only_a_lost_node_can_be_deleted(server: Served) -> None:
    async with connected(server, ScriptedAgent(server, facts("n1"))):
        status, body = await server.call("DELETE", "/v1/nodes/n1")
        assert (status, body["detail"]) == (409, "its agent is connected")
    await server.until_state("/v1/nodes/n1", "lost")
    assert (await server.call("DELETE", "/v1/nodes/n1"))[0] == 204
    assert (await server.call("GET", "/v1/nodes/n1"))[0] == 404


async def test_a_job_runs_each_index_once(server: Served) -> None:
    async with connected(server, ScriptedAgent(server, facts("n1"), answer=Phase.SUCCEEDED)):
        await server.apply(manifest("Job", "sum", completions=4, parallelism=2))
        job = await server.until_state("/v1/workloads/default/job/sum", "complete")
        assert job["counts"]["succeeded"] == 4
        assert sorted(a["index"] for a in await server.allocations()) == [0, 1, 2, 3]


async def test_a_job_that_is_applied_cannot_be_changed(server: Served) -> None:
    await server.apply(manifest("Job", "sum"))
    status, body = await server.call("POST", "/v1/apply", {"documents": [manifest("Job", "sum", env={"A": "1"})]})
    assert status == 409
    assert "wherry delete job sum" in body["fix"]


async def test_logs_come_from_the_node_over_its_session(server: Served) -> None:
    agent = ScriptedAgent(server, facts("n1"))
    async with connected(server, agent):
        await server.apply(manifest(replicas=1))
        await server.until_state(WEB, "healthy")
        id_ = (await server.allocations())[0]["id"]
        async with server.http.get(f"{server.url}/v1/allocations/{id_}/logs?tail=5", headers=server.admin) as answer:
            assert await answer.read() == b"hello from the container\n"
        assert agent.opened_logs[0].tail == 5
    async with server.http.get(f"{server.url}/v1/allocations/{id_}/logs", headers=server.admin) as answer:
        assert answer.status == 503


async def test_a_watch_begins_with_all_there_is_and_goes_on(server: Served) -> None:
    async with connected(server, ScriptedAgent(server, facts("n1"))):
        await server.apply(manifest(replicas=1))
        lines = []
        async with server.http.get(server.url + "/v1/watch", headers=server.admin) as answer, asyncio.timeout(10):
            async for line in answer.content:
                change = json.loads(line)
                lines.append(change)
                if change["type"] == "synced":
                    await server.call("DELETE", WEB)
                if change["type"] == "event" and change["object"]["reason"] == "deleted":
                    break
        synced = next(i for i, c in enumerate(lines) if c["type"] == "synced")
        assert {"node", "workload"} <= {c["type"] for c in lines[:synced]}
        assert any(c["type"] == "workload" and c["action"] == "delete" for c in lines[synced:])


async def test_a_watch_resumes_after_a_revision(server: Served) -> None:
    revision = (await server.get("/v1/cluster"))["revision"]
    await server.apply(manifest(replicas=1))
    url = f"{server.url}/v1/watch?after={revision}&types=workload"
    async with server.http.get(url, headers=server.admin) as answer, asyncio.timeout(10):
        first = json.loads(await answer.content.readline())
    assert (first["type"], first["object"]["name"]) == ("workload", "web")
    async with server.http.get(f"{server.url}/v1/watch?after=0", headers=server.admin) as answer:
        assert answer.status == 410


async def test_nothing_is_written_while_nothing_happens(server: Served) -> None:
    async with connected(server, ScriptedAgent(server, facts("n1"))):
        await server.apply(manifest(replicas=2))
        await server.until_state(WEB, "healthy")

        async def revision() -> int:
            return int((await server.get("/v1/cluster"))["revision"])

        before = await wait_still(revision, 2.5, 15, "the last events are stored")
        with pytest.raises(AssertionError, match="not within"):
            await wait_until(revision, 3, "a write", lambda now: now != before)


async def test_a_poisoned_record_stops_nothing_else(server: Served) -> None:
    async with connected(server, ScriptedAgent(server, facts("n1"))):
        await server.store.commit(Txn((), (Put(keys.WORKLOADS + "default/service/bad", b"{garbage"),)))
        await server.store.commit(Txn((), (Put(keys.NODES + "n9", b'{"facts": 5}'),)))
        await server.apply(manifest(replicas=1))
        await server.until_state(WEB, "healthy")


async def test_a_record_that_cannot_be_read_stops_nothing_of_its_own(server: Served) -> None:
    async with connected(server, ScriptedAgent(server, facts("n1"))):
        await server.apply(manifest(replicas=2))
        await server.until_state(WEB, "healthy")
        before = {a["id"] for a in await server.allocations()}
        await server.store.commit(Txn((), (Put(keys.WORKLOADS + "default/service/web", b"{garbage"),)))
        await server.store.commit(Txn((), (Put(keys.NODES + "n1", b"{garbage"),)))
        await server.apply(manifest(name="other", replicas=0))
        await server.until_state("/v1/workloads/default/service/other", "healthy")
        assert {a["id"] for a in await server.allocations() if a["desired"] == "run"} == before
        status, body = await server.call("POST", "/v1/apply", {"documents": [manifest(replicas=1)]})
        assert status == 409
        assert "can't be read" in body["title"]
    again = ScriptedAgent(server, facts("n1"))
    async with connected(server, again):
        assert again.refused is None
        await server.until_state("/v1/nodes/n1", "ready")


async def test_two_servers_cannot_use_one_data_folder(server: Served) -> None:
    with pytest.raises(BaseException, match="lock") as raised:
        async with served(server.data_dir):
            pass
    assert raised.value


async def test_a_bad_query_is_refused_in_words(server: Served) -> None:
    for path in ("/v1/events?limit=x", "/v1/watch?types=pods", "/v1/watch?after=-1"):
        status, body = await server.call("GET", path)
        assert status == 400, path
        assert body["title"]


async def test_a_large_body_is_refused(server: Served) -> None:
    body = io.BytesIO(b'{"documents": ["' + b"x" * (4 * 2**20) + b'"]}')
    async with server.http.post(server.url + "/v1/apply", data=body, headers=server.admin) as answer:
        assert answer.status == 413
        assert (await answer.json(content_type=None))["status"] == 413


async def test_a_node_whose_containers_cannot_start_gets_nothing_and_says_why(server: Served) -> None:
    agent = ScriptedAgent(server, facts("n1"))
    async with connected(server, agent):
        await agent.report("dockerd doesn't answer")
        node = await server.until_state("/v1/nodes/n1", "troubled")
        assert node["message"] == "dockerd doesn't answer"
        await server.apply(manifest(replicas=1))
        web = await server.until_state(WEB, "blocked")
        assert "n1 can't start containers now" in web["blocked"][0]["sentence"]
        await agent.report("")
        await server.until_state(WEB, "healthy")


async def test_allocations_whose_records_cannot_be_read_are_named_and_not_withdrawn(server: Served) -> None:
    agent = ScriptedAgent(server, facts("n1"))
    async with connected(server, agent):
        await server.apply(manifest(replicas=2))
        await server.until_state(WEB, "healthy")
    first, second = (a["id"] for a in await server.allocations())
    damaged = Put(keys.ALLOCATIONS + f"n1/{first}", b"{garbage")
    await server.store.commit(Txn((), (damaged, Delete(keys.VERSIONS + "default/service/web/00000001"))))
    again = ScriptedAgent(server, facts("n1"), statuses=agent.statuses)
    async with connected(server, again):
        full = await wait_until(again.full_assignments, 5, "the full assignments come")
        assert full is not None
        assert {first, second} <= set(full.untold)
        assert not {first, second} & set(full.withdrawn)


async def test_a_reader_gets_the_whole_of_a_long_log_and_only_as_fast_as_it_reads(server: Served) -> None:
    agent = ScriptedAgent(server, facts("n1"), log_lines=200_000)
    async with connected(server, agent):
        await server.apply(manifest(replicas=1))
        await server.until_state(WEB, "healthy")
        id_ = (await server.allocations())[0]["id"]
        async with server.http.get(f"{server.url}/v1/allocations/{id_}/logs", headers=server.admin) as answer:
            text = await answer.read()
    assert text.splitlines() == [b"%d" % number for number in range(200_000)]
    assert agent.most_unread_bytes <= LOG_WINDOW_BYTES + 100
