"""Settings of the cluster and of namespaces through a real API: what they change, and what they leave alone."""

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from control_plane.snapshots import read, restore, save
from control_plane.store.open import open_store
from foundation.clock import SystemClock
from tests.lab.waiting import hold_for, wait_still, wait_until
from tests.scripted import ScriptedAgent, Served, connected, facts, manifest, served

WEB, DB = "/v1/workloads/default/service/web", "/v1/workloads/default/service/db"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path / "server") as running:
        yield running


def cluster(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "wherry/v1", "kind": "Cluster", "metadata": {"name": "cluster"}, "spec": spec}


def namespace(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "wherry/v1", "kind": "Namespace", "metadata": {"name": name}, "spec": spec}


def web(replicas: int, **spec: Any) -> dict[str, Any]:
    return manifest(name="web", replicas=replicas, priority=20, resources={"cpu": "500m"}, **spec)


def db(**spec: Any) -> dict[str, Any]:
    return manifest(name="db", priority=80, resources={"cpu": "1"}, **spec)


async def where(server: Served) -> dict[str, str]:
    return {a["id"]: a["node"] for a in await server.allocations() if a["desired"] == "run"}


async def evicted(server: Served) -> list[str]:
    return [a["id"] for a in await server.allocations() if "makes room" in (a["stopReason"] or "")]


async def test_the_cluster_s_policy_holds_from_the_next_placement_on_and_makes_no_version(server: Served) -> None:
    async with connected(server, *(ScriptedAgent(server, facts(name)) for name in ("n1", "n2", "n3"))):
        for name in ("a", "b"):
            await server.apply(manifest(name=name))
            await server.until_state(f"/v1/workloads/default/service/{name}", "healthy")

        async def read() -> tuple[dict[str, str], object]:
            return await where(server), (await server.get("/v1/workloads"))["items"]

        before, _ = state = await wait_still(read, 0.5, 10.0, "their rollouts are over")
        assert len(set(before.values())) == 1, "they are packed"
        (result,) = await server.apply(cluster(policy="spread"))
        assert (result["action"], result["makesVersion"]) == ("created", False)

        async def is_as_before() -> bool:
            return await read() == state

        await hold_for(is_as_before, 0.7, "nothing moves, and nothing is at a new version")
        for name in ("c", "d"):
            await server.apply(manifest(name=name))
            await server.until_state(f"/v1/workloads/default/service/{name}", "healthy")
        assert len(set((await where(server)).values())) == 3, "the next ones are spread"
        told = await server.get("/v1/workloads/default/service/c/explain")
        assert told["rules"] == {
            "policy": "spread",
            "policyOf": "cluster",
            "preempts": True,
            "preemptsOf": "default",
        }
        assert "emptiness" in told["there"][0]["sentence"]
        await server.apply(manifest(name="e", placement={"policy": "pack"}))
        told = await server.get("/v1/workloads/default/service/e/explain")
        assert (told["rules"]["policy"], told["rules"]["policyOf"]) == ("pack", "workload")


async def test_a_plan_says_what_another_policy_changes_for_what_is_new(server: Served) -> None:
    async with connected(server, *(ScriptedAgent(server, facts(name)) for name in ("n1", "n2"))):
        await server.apply(manifest(name="a"))
        await server.until_state("/v1/workloads/default/service/a", "healthy")
        (there,) = (await where(server)).values()

        async def goes_to(*documents: dict[str, Any]) -> tuple[dict[str, Any], str]:
            _, answer = await server.call("POST", "/v1/rehearse", {"documents": list(documents)})
            assert answer["moves"] == []
            return answer, answer["placements"][0]["node"]

        _, packed = await goes_to(manifest(name="b"))
        answer, spread = await goes_to(manifest(name="b"), cluster(policy="spread"))
        assert (packed == there, spread == there) == (True, False)
        assert answer["at"]["-/cluster/cluster"] == 0
        parts = {part: answer[part] for part in ("cluster", "generation", "revision", "at", "placements")}
        await server.apply(cluster(policy="spread"))
        late = {"documents": [manifest(name="b"), cluster(policy="spread")], "plan": parts}
        status, body = await server.call("POST", "/v1/apply", late)
        assert status == 409
        assert "-/cluster/cluster is at revision" in body["detail"]


@pytest.mark.parametrize("said", [cluster(preempts=False), namespace("default", preempts=False)])
async def test_nothing_is_evicted_where_settings_forbid_it_until_they_go(server: Served, said: dict[str, Any]) -> None:
    async with connected(server, ScriptedAgent(server, facts("n1"))):
        await server.apply(web(4))
        await server.until_state(WEB, "healthy")
        await server.apply(said, db())
        await server.until_state(DB, "blocked")

        async def none() -> bool:
            return await evicted(server) == []

        await hold_for(none, 0.7, "nothing is evicted")
        told = await server.get(f"{DB}/explain")
        assert (told["rules"]["preempts"], told["rules"]["preemptsOf"]) == (False, said["kind"].lower())
        (room,) = told["rooms"]
        assert len(room["evicted"]) == 2
        assert room["sentence"].endswith(f"which isn't done: preempts is false (the {said['kind'].lower()}'s)")
        path = "/v1/cluster/settings" if said["kind"] == "Cluster" else "/v1/namespaces/default"
        assert (await server.call("DELETE", path))[0] == 200
        await server.until_state(DB, "healthy")
        assert (await server.get(WEB))["counts"]["running"] == 2
        assert (await server.call("DELETE", path))[0] == 404


async def test_namespaces_are_those_that_hold_something_or_have_settings(server: Served) -> None:
    await server.apply(manifest(replicas=0), namespace("batch", preempts=False))
    items = (await server.get("/v1/namespaces"))["items"]
    assert [(n["name"], n["workloads"], n["preempts"], n["hasSettings"]) for n in items] == [
        ("batch", 0, False, True),
        ("default", 1, True, False),
    ]
    assert (await server.get("/v1/namespaces/batch"))["manifest"] == namespace(
        "batch", preempts=False, isolation="baseline"
    ) | {"metadata": {"name": "batch", "labels": {}}}
    assert (await server.call("GET", "/v1/namespaces/nowhere"))[0] == 404
    assert (await server.get("/v1/cluster"))["settings"]["policy"] == "pack"
    (again,) = await server.apply(namespace("batch", preempts=False))
    assert again["action"] == "unchanged"
    (changed,) = await server.apply(namespace("batch"))
    assert changed["changes"] == [{"path": "spec.preempts", "old": False, "new": True}]


async def test_who_changed_settings_is_told_as_an_event(server: Served) -> None:
    await server.apply(cluster(policy="spread"))
    await server.call("DELETE", "/v1/cluster/settings")

    async def told() -> list[tuple[str, str]]:
        events = (await server.get("/v1/events?for=cluster/cluster"))["items"]
        return [(e["reason"], e["message"]) for e in events]

    expected = [
        ("changed", 'policy is "spread", preempts is true'),
        ("deleted", "deleted: the defaults hold again"),
    ]
    await wait_until(told, 5, "both are told", lambda found: found == expected)


async def test_settings_are_part_of_a_snapshot(server: Served, tmp_path: Path) -> None:
    await server.apply(cluster(policy="spread"), namespace("batch", preempts=False))
    lines = [line async for line in save(server.store, SystemClock())]
    copy = await open_store(f"sqlite:{tmp_path / 'copy.db'}", clock=SystemClock(), rng=random.Random(1))
    try:
        await restore(copy, read(lines, "copy"), SystemClock(), replace=False)
        page = await copy.list_prefix("/wherry/desired/settings/")
    finally:
        await copy.close()
    assert [entry.key.rpartition("settings/")[2] for entry in page.entries] == ["cluster/cluster", "namespace/batch"]
