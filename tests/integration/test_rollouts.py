"""Rollouts and configs through a real server's API and its agents' sessions. The agents here have no containers."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from control_plane import keys
from control_plane.store.protocol import Delete, Put, Txn
from manifests.allocations import AllocationStatus, Desired, Health, Phase
from manifests.session import Assigned
from tests.lab.waiting import hold_for, wait_until
from tests.scripted import ScriptedAgent, Served, connected, facts, manifest, served

WEB = "/v1/workloads/default/service/web"
FAST = {"minHealthyTime": "0s"}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path / "server") as running:
        yield running


@dataclass
class PickyAgent(ScriptedAgent):
    """An agent on which what has one of these values in its variable A never gets ready."""

    sick: set[str] = field(default_factory=set)

    def _status(self, assigned: Assigned, before: AllocationStatus | None) -> AllocationStatus:
        status = super()._status(assigned, before)
        is_sick = assigned.workload.spec.env.get("A") in self.sick and status.phase is Phase.RUNNING
        return status.model_copy(update={"health": Health.UNHEALTHY}) if is_sick else status


def web(version: str, **spec: Any) -> dict[str, Any]:
    return manifest(**{"replicas": 2, "env": {"A": version}, "update": FAST, **spec})


def site(data: str, name: str = "site") -> dict[str, Any]:
    return {"apiVersion": "wherry/v1", "kind": "Config", "metadata": {"name": name}, "spec": {"data": data}}


async def wanted(server: Served) -> list[dict[str, Any]]:
    items = await server.allocations()
    return [a for a in items if a["desired"] == "run"]


async def versions(server: Served) -> list[int]:
    return sorted(a["version"] for a in await wanted(server))


def contents(agent: ScriptedAgent) -> list[dict[str, str]]:
    """Return the configs of each allocation that the agent is to run."""
    return [a.configs for a in agent.assigned.values() if a.allocation.desired is Desired.RUN]


async def until_rollout(server: Served, state: str, **also: object) -> dict[str, Any]:
    """Wait until the rollout of `web` is in that state, and return its view."""

    async def read() -> dict[str, Any]:
        return dict((await server.get(WEB))["rollout"])

    def holds(rollout: dict[str, Any]) -> bool:
        return rollout["state"] == state and all(rollout[name] == value for name, value in also.items())

    return await wait_until(read, deadline_s=15, describe=f"the rollout to be {state} {also}", done=holds)


async def act(server: Served, action: str, body: object = None) -> dict[str, Any]:
    status, answer = await server.call("POST", f"{WEB}/rollout/{action}", body)
    assert status == 200, answer
    return dict(answer)


async def test_a_version_that_never_gets_ready_is_reverted_and_the_record_stays(server: Served) -> None:
    async with connected(server, PickyAgent(server, facts("n1"), sick={"bad"})):
        await server.apply(web("good"))
        await until_rollout(server, "complete")
        await server.apply(web("bad", update={**FAST, "progressDeadline": "1s"}))

        rollout = await until_rollout(server, "reverted")

        assert (rollout["version"], rollout["target"], rollout["healthyVersion"]) == (2, 1, 1)
        assert "version 2 made no progress for 1s: 0 of 2 available" in rollout["message"]
        assert await versions(server) == [1, 1]
        shown = await server.get(WEB)
        assert (shown["version"], shown["manifest"]["spec"]["env"]) == (2, {"A": "bad"})
        assert shown["state"] == "healthy"
        assert rollout["message"] in shown["messages"]


async def test_without_auto_revert_it_fails_and_the_old_goes_on_serving(server: Served) -> None:
    async with connected(server, PickyAgent(server, facts("n1"), sick={"bad"})):
        await server.apply(web("good"))
        await until_rollout(server, "complete")
        await server.apply(web("bad", update={**FAST, "progressDeadline": "1s", "autoRevert": False}))

        await until_rollout(server, "failed")

        assert await versions(server) == [1, 1, 2]
        assert (await server.get(WEB))["state"] == "failed"
        await act(server, "undo")
        await until_rollout(server, "complete", target=3)
        assert await versions(server) == [3, 3]


def large(version: str, memory: str) -> dict[str, Any]:
    """Fills a node of 1Gi with two of 400Mi; one goes before the next one comes."""
    update = {**FAST, "maxSurge": 0, "maxUnavailable": 1, "progressDeadline": "1s"}
    return web(version, resources={"memory": memory}, update=update)


async def test_a_rollout_outlasts_a_full_cluster_and_goes_on_once_there_is_room(server: Served) -> None:
    async with connected(server, ScriptedAgent(server, facts("n1"))):
        await server.apply(large("one", "400Mi"))
        await until_rollout(server, "complete")
        first = manifest(name="db", priority=80, preempts=False, resources={"memory": "400Mi"})
        await server.apply(first)  # takes what the first of the old ones leaves
        await server.until_state("/v1/workloads/default/service/db", "blocked")
        await server.apply(large("two", "400Mi"))
        await server.until_state(WEB, "blocked")

        async def goes_on() -> bool:
            return (await server.get(WEB))["rollout"]["state"] == "progressing" and await versions(server) == [1, 1]

        await wait_until(lambda: versions(server), 5, "db has its place", lambda found: found == [1, 1])
        await hold_for(goes_on, 2.5, "it waits for room, and isn't called failed")
        await server.call("DELETE", "/v1/workloads/default/service/db")
        await until_rollout(server, "complete", target=2)


async def test_what_asks_for_more_than_there_is_room_for_turns_back_if_the_old_needs_less(server: Served) -> None:
    async with connected(server, ScriptedAgent(server, facts("n1"))):
        await server.apply(large("one", "400Mi"))
        await until_rollout(server, "complete")
        await server.apply(large("two", "700Mi"))
        rollout = await until_rollout(server, "reverted", target=1)
        assert "lacks memory (700Mi needed" in rollout["message"]
        await wait_until(lambda: versions(server), 5, "all of the old is back", lambda found: found == [1, 1])


async def test_with_a_fixed_port_on_one_node_the_old_stops_first_at_once(server: Served) -> None:
    fixed = {"replicas": 1, "ports": [{"container": 80, "publish": 8080}]}
    async with connected(server, ScriptedAgent(server, facts("n1"))):
        await server.apply(web("one", **fixed))
        await until_rollout(server, "complete")
        await server.apply(web("two", **fixed))

        rollout = await until_rollout(server, "complete", target=2)

        assert rollout["stopFirst"] is True
        assert await versions(server) == [2]
        await server.apply(web("three", **{**fixed, "ports": []}))
        assert (await until_rollout(server, "complete", target=3))["stopFirst"] is False


async def test_a_daemon_goes_from_node_to_node_and_back_when_it_fails(server: Served) -> None:
    agents = [PickyAgent(server, facts(f"n{i}"), sick={"bad"}) for i in range(3)]
    watcher = "/v1/workloads/default/daemon/watcher"
    update = {"minHealthyTime": "0s", "progressDeadline": "1s"}

    async def rollout() -> dict[str, Any]:
        return dict((await server.get(watcher))["rollout"])

    async with connected(server, *agents):
        await server.apply(manifest("Daemon", "watcher", env={"A": "good"}, update=update))
        await wait_until(rollout, 10, "it is everywhere", lambda r: r["state"] == "complete")
        await server.apply(manifest("Daemon", "watcher", env={"A": "bad"}, update=update))
        reverted = await wait_until(rollout, 15, "it is reverted", lambda r: r["state"] == "reverted")
        assert reverted["message"].startswith("version 2 made no progress for 1s: 0 of 3 available")
        assert await versions(server) == [1, 1, 1]


async def test_canaries_wait_beside_all_of_the_old_until_promoted(server: Served) -> None:
    async with connected(server, ScriptedAgent(server, facts("n1"))):
        await server.apply(web("one"))
        await until_rollout(server, "complete")
        await server.apply(web("two", update={**FAST, "canary": 1}))

        rollout = await until_rollout(server, "waiting")

        assert (rollout["updated"], rollout["ready"], rollout["old"]) == (1, 1, 2)
        assert rollout["message"] == "1 canary of version 2 waits to be promoted"
        await act(server, "promote")
        await until_rollout(server, "complete")
        assert await versions(server) == [2, 2]


async def test_a_paused_rollout_goes_on_once_it_is_resumed(server: Served) -> None:
    async with connected(server, ScriptedAgent(server, facts("n1"))):
        await server.apply(web("one"))
        await until_rollout(server, "complete")
        await act(server, "pause")
        await server.apply(web("two"))
        assert (await until_rollout(server, "paused"))["paused"] is True
        assert await versions(server) == [1, 1]
        assert (await act(server, "pause"))["action"] == "unchanged"

        await act(server, "resume")

        await until_rollout(server, "complete", target=2)


async def test_undo_copies_a_kept_version_and_leaves_replicas_as_they_are(server: Served) -> None:
    async with connected(server, ScriptedAgent(server, facts("n1"))):
        await server.apply(web("one"))
        await until_rollout(server, "complete")
        await server.apply(web("two", replicas=3))
        await until_rollout(server, "complete", target=2)

        result = await act(server, "undo", {"version": 1})

        assert result["version"] == 3
        assert result["changes"] == [{"path": "spec.env.A", "old": "two", "new": "one"}]
        await until_rollout(server, "complete", target=3)
        assert (await server.get(WEB))["manifest"]["spec"]["replicas"] == 3
        history = (await server.get(f"{WEB}/versions"))["items"]
        assert [(v["version"], v["cause"], v["wasHealthy"]) for v in history] == [
            (3, "undo to version 1", True),
            (2, "its spec changed", True),
            (1, "created", True),
        ]
        assert {"path": "spec.env.A", "old": "one", "new": "two"} in history[1]["changes"]


async def test_undo_to_what_is_not_kept_says_what_is(server: Served) -> None:
    await server.apply(web("one"))
    status, body = await server.call("POST", f"{WEB}/rollout/undo", {"version": 7})
    assert (status, body["detail"]) == (404, "the kept ones are 1")
    assert (await server.call("POST", f"{WEB}/rollout/undo"))[0] == 404
    assert (await server.call("POST", f"{WEB}/rollout/undo", {"version": 1}))[0] == 409
    assert (await server.call("POST", f"{WEB}/rollout/undo", {"to": 1}))[0] == 400
    assert (await server.call("POST", f"{WEB}/rollout/stop"))[0] == 404
    assert (await server.call("POST", f"{WEB}/rollout/promote"))[0] == 409


async def test_a_restart_replaces_everything_and_changes_nothing_else(server: Served) -> None:
    async with connected(server, ScriptedAgent(server, facts("n1"))):
        await server.apply(web("one"))
        await until_rollout(server, "complete")
        before = {a["id"] for a in await wanted(server)}

        await act(server, "restart")

        await until_rollout(server, "complete", target=2)
        assert before.isdisjoint(a["id"] for a in await wanted(server))
        newest = (await server.get(f"{WEB}/versions"))["items"][0]
        assert (newest["cause"], newest["changes"]) == ("restart", [])


async def test_a_job_has_no_rollouts(server: Served) -> None:
    await server.apply(manifest("Job", "sum"))
    status, body = await server.call("POST", "/v1/workloads/default/job/sum/rollout/restart")
    assert (status, body["title"]) == (422, "a job has no rollouts")


async def test_a_config_reaches_the_agent_and_its_change_renews_what_uses_it(server: Served) -> None:
    agent = ScriptedAgent(server, facts("n1"))
    async with connected(server, agent):
        uses = {"configs": [{"name": "site", "path": "/etc/site.conf"}]}
        results = await server.apply(web("one", **uses), site("first"))
        assert [(r["kind"], r["action"], r["version"]) for r in results] == [
            ("Service", "created", 1),
            ("Config", "created", 1),
        ]
        await until_rollout(server, "complete")
        assert contents(agent) == [{"site": "first"}] * 2

        results = await server.apply(site("second"))

        assert [(r["kind"], r["name"], r["action"], r["version"]) for r in results] == [
            ("Config", "site", "changed", 2),
            ("Service", "web", "changed", 2),
        ]
        assert results[1]["changes"] == [{"path": "configs.site", "old": 1, "new": 2}]
        await until_rollout(server, "complete", target=2)
        assert contents(agent) == [{"site": "second"}] * 2
        newest = (await server.get(f"{WEB}/versions"))["items"][0]
        assert (newest["cause"], newest["configs"]) == ("config site changed to version 2", {"site": 2})
        assert (await server.apply(site("second")))[0]["action"] == "unchanged"
        await act(server, "undo")
        await until_rollout(server, "complete", target=3)
        assert contents(agent) == [{"site": "first"}] * 2


async def test_a_workload_that_names_an_unknown_config_is_refused_by_name(server: Served) -> None:
    uses = {"configs": [{"name": "nope", "env": "SITE"}]}
    body = {"documents": [site("x"), web("one", **uses)]}
    status, answer = await server.call("POST", "/v1/apply", body)
    assert status == 422
    assert answer["problems"] == [
        {
            "document": 1,
            "path": "spec.configs[0].name",
            "message": "there is no config 'nope' in namespace default: apply it before, or with it",
        }
    ]
    assert (await server.get("/v1/configs"))["items"] == []


async def test_a_config_in_use_cannot_be_deleted_and_its_users_are_named(server: Served) -> None:
    await server.apply(site("x"), web("one", configs=[{"name": "site", "env": "SITE"}]))
    status, body = await server.call("DELETE", "/v1/configs/default/site")
    assert (status, body["detail"]) == (409, "it is used by service/web")
    assert (await server.get("/v1/configs/default/site"))["users"] == ["service/web"]
    await server.call("DELETE", WEB)
    assert (await server.call("DELETE", "/v1/configs/default/site"))[0] == 200
    assert (await server.call("GET", "/v1/configs/default/site"))[0] == 404


async def test_a_dry_run_tells_whom_a_config_would_renew(server: Served) -> None:
    await server.apply(site("x"), web("one", configs=[{"name": "site", "env": "SITE"}]))
    status, body = await server.call("POST", "/v1/apply", {"documents": [site("y")], "dryRun": True})
    assert status == 200
    assert [(r["name"], r["version"]) for r in body["results"]] == [("site", 2), ("web", 2)]
    assert (await server.get(WEB))["version"] == 1


async def test_a_config_that_too_many_use_is_refused_in_words(server: Served) -> None:
    await server.apply(site("x"))
    uses: dict[str, Any] = {"configs": [{"name": "site", "env": "SITE"}], "replicas": 0}
    for batch in (range(40), range(40, 70)):
        await server.apply(*(manifest(name=f"web{i}", **uses) for i in batch))
    status, body = await server.call("POST", "/v1/apply", {"documents": [site("y")]})
    assert status == 422
    assert "70 workloads use config site" in body["detail"]
    assert (await server.get("/v1/configs/default/site"))["version"] == 1


async def test_a_change_of_a_config_misses_nobody_who_begins_to_use_it_meanwhile(server: Served) -> None:
    await server.apply(site("0"))
    uses: dict[str, Any] = {"configs": [{"name": "site", "env": "SITE"}], "replicas": 0}
    async with asyncio.TaskGroup() as tasks:
        for number in range(8):
            tasks.create_task(server.apply(manifest(name=f"web{number}", **uses)), name=f"apply-{number}")
        for number in range(1, 4):
            tasks.create_task(server.apply(site(str(number))), name=f"change-{number}")

    present = (await server.get("/v1/configs/default/site"))["version"]
    for number in range(8):
        newest = (await server.get(f"/v1/workloads/default/service/web{number}/versions"))["items"][0]
        assert newest["configs"] == {"site": present}


async def test_contents_that_nothing_names_are_collected(server: Served) -> None:
    await server.apply(site("0"), web("one", replicas=0, configs=[{"name": "site", "env": "SITE"}]))
    for number in range(1, 13):
        await server.apply(site(str(number)))

    async def kept() -> list[int]:
        return list((await server.get("/v1/configs/default/site"))["keptVersions"])

    left = await wait_until(kept, 15, "the oldest contents go", lambda found: found[0] > 1)
    named = {v["configs"]["site"] for v in (await server.get(f"{WEB}/versions"))["items"]}
    assert named <= set(left)
    assert 13 in left


async def test_an_allocation_whose_content_is_missing_is_untold_and_not_withdrawn(server: Served) -> None:
    agent = ScriptedAgent(server, facts("n1"))
    async with connected(server, agent):
        await server.apply(site("x"), web("one", replicas=1, configs=[{"name": "site", "env": "SITE"}]))
        await until_rollout(server, "complete")
    id_ = (await wanted(server))[0]["id"]
    await server.store.commit(Txn((), (Delete(keys.CONFIG_VERSIONS + "default/site/00000001"),)))
    again = ScriptedAgent(server, facts("n1"), statuses=agent.statuses)
    async with connected(server, again):
        full = await wait_until(again.full_assignments, 5, "the full assignments come")
        assert full is not None
        assert full.untold == (id_,)
        assert full.withdrawn == ()


async def test_configs_are_listed_and_watched(server: Served) -> None:
    await server.apply(site("x"), site("y", name="other"))
    listed = await server.get("/v1/configs?namespace=default")
    assert [c["name"] for c in listed["items"]] == ["other", "site"]
    url = f"{server.url}/v1/watch?types=config"
    async with server.http.get(url, headers=server.admin) as answer:
        changes = [json.loads(await answer.content.readline()) for _ in range(3)]
        await server.call("DELETE", "/v1/configs/default/site")
        gone = json.loads(await answer.content.readline())
    assert [c["object"]["name"] for c in changes[:2]] == ["other", "site"]
    assert (gone["action"], gone["object"]["name"]) == ("delete", "site")


async def test_once_a_rollout_is_over_nothing_is_written(server: Served) -> None:
    async with connected(server, ScriptedAgent(server, facts("n1"))):
        await server.apply(web("one"))
        await until_rollout(server, "complete")
        await server.apply(web("two"))
        await until_rollout(server, "complete", target=2)

        async def revision() -> int:
            return int((await server.get("/v1/cluster"))["revision"])

        before = await wait_until(revision, 10, "a revision")
        with pytest.raises(AssertionError, match="not within"):
            await wait_until(revision, 4, "more than the end's own writes", lambda now: now > before + 10)


async def test_a_rollout_record_that_cannot_be_read_stops_nothing(server: Served) -> None:
    async with connected(server, ScriptedAgent(server, facts("n1"))):
        await server.apply(web("one"))
        await until_rollout(server, "complete")
        before = {a["id"] for a in await wanted(server)}
        await server.store.commit(Txn((), (Put(keys.VERSIONS + "default/service/web/00000001", b"{garbage"),)))
        await server.apply(manifest(name="other", replicas=0))
        await server.until_state("/v1/workloads/default/service/other", "healthy")
        assert {a["id"] for a in await wanted(server)} == before


async def test_a_new_leader_goes_on_where_the_old_one_was(tmp_path: Path) -> None:
    async with served(tmp_path / "server") as first:
        agent = ScriptedAgent(first, facts("n1"))
        async with connected(first, agent):
            await first.apply(web("one"))
            await until_rollout(first, "complete")
            await first.apply(web("two", update={**FAST, "canary": 1}))
            await until_rollout(first, "waiting")
            before = {a["id"] for a in await wanted(first)}
    async with served(tmp_path / "server") as second:
        again = ScriptedAgent(second, facts("n1"), statuses=agent.statuses)
        async with connected(second, again):
            await until_rollout(second, "waiting", healthyVersion=1)
            assert {a["id"] for a in await wanted(second)} == before
            await act(second, "promote")
            await until_rollout(second, "complete", target=2)
