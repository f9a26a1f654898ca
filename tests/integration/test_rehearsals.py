"""What a server foretells is what it then does; what it is asked about the past or a plan that has moved, it says."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.waiting import wait_until
from tests.scripted import ScriptedAgent, Served, connected, facts, manifest, served

WEB = "/v1/workloads/default/service/web"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Served]:
    """A server with three nodes of which no two are equally good for anything."""
    async with served(tmp_path / "server") as running:
        agents = [ScriptedAgent(running, facts(f"n{i}", memory=f"{600 + 200 * i}Mi")) for i in (1, 2, 3)]
        async with connected(running, *agents):
            yield running


async def asked(server: Served, *documents: dict[str, Any], **question: Any) -> dict[str, Any]:
    status, body = await server.call("POST", "/v1/rehearse", {"documents": list(documents), **question})
    assert status == 200, body
    return dict(body)


async def where(server: Served) -> list[tuple[str, int, str]]:
    return sorted((a["name"], a["index"], a["node"]) for a in await server.allocations() if a["desired"] == "run")


def foretold(answer: dict[str, Any]) -> list[tuple[str, int, str]]:
    return sorted((p["workload"].rpartition("/")[2], p["index"], p["node"]) for p in answer["placements"])


def planned(answer: dict[str, Any], *documents: dict[str, Any]) -> dict[str, Any]:
    parts = ("cluster", "generation", "revision", "at", "placements")
    return {"documents": list(documents), "plan": {part: answer[part] for part in parts}}


def web(replicas: int, **spec: Any) -> dict[str, Any]:
    return manifest(replicas=replicas, resources={"memory": "200Mi"}, **spec)


async def test_a_new_service_and_a_scale_go_where_it_was_foretold(server: Served) -> None:
    answer = await asked(server, web(3))
    assert [r["action"] for r in answer["results"]] == ["created"]
    assert await server.allocations() == []
    await server.apply(web(3))
    await server.until_state(WEB, "healthy")
    assert await where(server) == foretold(answer)
    before = await where(server)
    answer = await asked(server, web(6))
    await server.apply(web(6))
    await server.until_state(WEB, "healthy")
    assert await where(server) == sorted([*before, *foretold(answer)])


async def test_a_drain_goes_as_it_was_foretold(server: Served) -> None:
    await server.apply(web(3))
    await server.until_state(WEB, "healthy")
    node = (await where(server))[0][2]
    answer = await asked(server, drain=[node])
    assert {m["from"]["node"] for m in answer["moves"]} == {node}
    await server.call("POST", f"/v1/nodes/{node}/drain")
    await server.until_state(f"/v1/nodes/{node}", "drained")
    await server.until_state(WEB, "healthy")
    assert node not in {n for _, _, n in await where(server)}
    assert {m["to"]["node"] for m in answer["moves"]} <= {n for _, _, n in await where(server)}


async def test_what_no_longer_fits_is_told_with_the_room_that_is_left(server: Served) -> None:
    await server.apply(web(9))
    await server.until_state(WEB, "healthy")
    answer = await asked(server, lose=["n2", "n3"])
    assert not answer["fits"]
    (short,) = answer["blocked"]
    assert (short["name"], short["before"], short["noLongerFits"]) == ("web", 9, True)
    assert short["after"] + short["blocked"][0]["count"] == 9
    assert answer["room"]["nodes"] == 1
    assert (await server.get(WEB))["state"] == "healthy"
    assert (await asked(server, lose=["n2", "n3"], add=["2x2cpu/2Gi,zone=b"]))["fits"]


async def test_the_past_can_be_asked_and_what_is_not_there_is_said(server: Served) -> None:
    await server.apply(web(1))
    await server.until_state(WEB, "healthy")
    then = (await server.get("/v1/cluster"))["revision"]
    await server.apply(web(2))
    await server.until_state(WEB, "healthy")
    node = (await where(server))[0][2]
    assert len((await asked(server, lose=[node], atRevision=then))["moves"]) == 1
    for question, expected in (
        ({"lose": ["n9"]}, 404),
        ({"drain": ["zone=q"]}, 404),
        ({"add": ["many"]}, 400),
        ({"lost": ["n1"]}, 422),
        ({"atRevision": 10**9}, 422),
    ):
        status, body = await server.call("POST", "/v1/rehearse", question)
        assert 400 <= status < 500, (question, expected, body)


async def test_a_plan_is_carried_out_unless_what_it_rests_on_has_moved(server: Served) -> None:
    plan = planned(await asked(server, web(2)), web(2))
    await server.apply(manifest(name="other", replicas=0))  # which doesn't matter
    status, body = await server.call("POST", "/v1/apply", plan)
    assert status == 200, body
    await server.until_state(WEB, "healthy")
    assert await where(server) == foretold(plan["plan"]), "of equal nodes it is these"
    status, body = await server.call("POST", "/v1/apply", plan)
    assert status == 409
    assert "default/service/web is at revision" in body["detail"]


async def test_a_plan_is_refused_when_things_would_go_elsewhere(server: Served) -> None:
    answer = await asked(server, web(2))
    await server.call("POST", f"/v1/nodes/{answer['placements'][0]['node']}/cordon")
    status, body = await server.call("POST", "/v1/apply", planned(answer, web(2)))
    assert status == 409
    assert "default/service/web 0 would go to" in body["detail"]
    assert (await server.get("/v1/workloads"))["items"] == []


async def test_a_config_s_change_is_planned_with_those_that_use_it(server: Served) -> None:
    config = {"apiVersion": "wherry/v1", "kind": "Config", "metadata": {"name": "site"}, "spec": {"data": "one"}}
    use = web(1, configs=[{"name": "site", "path": "/etc/site"}])
    answer = await asked(server, config, use)
    assert answer["at"] == {"default/config/site": 0, "default/service/web": 0}
    assert (await server.call("POST", "/v1/apply", planned(answer, config, use)))[0] == 200
    await server.until_state(WEB, "healthy")
    changed = {**config, "spec": {"data": "two"}}
    answer = await asked(server, changed)
    assert [(r["kind"], r["name"], r["version"]) for r in answer["results"]] == [
        ("Config", "site", 2),
        ("Service", "web", 2),
    ]
    assert len(answer["moves"]) == 1

    async def status() -> int:
        return (await server.call("POST", "/v1/apply", planned(answer, changed)))[0]

    assert await wait_until(status, deadline_s=5, describe="the plan to be carried out", done=lambda s: s == 200)


async def proposed(server: Served, **aim: Any) -> dict[str, Any]:
    status, body = await server.call("POST", "/v1/rebalance", {"dryRun": True, **aim})
    assert status == 200, body
    return dict(body)


async def cordoned_but(server: Served, node: str) -> None:
    for name in ("n1", "n2", "n3"):
        status, _ = await server.call("POST", f"/v1/nodes/{name}/{'uncordon' if name == node else 'cordon'}")
        assert status == 200


async def started_on(server: Served, node: str, name: str, memory: str) -> None:
    await cordoned_but(server, node)
    await server.apply(manifest(name=name, replicas=1, resources={"memory": memory}))
    await server.until_state(f"/v1/workloads/default/service/{name}", "healthy")


async def opened(server: Served) -> None:
    for name in ("n1", "n2", "n3"):
        await server.call("POST", f"/v1/nodes/{name}/uncordon")


async def test_moves_that_free_nodes_are_proposed_and_nothing_is_done(server: Served) -> None:
    for node, name in (("n1", "one"), ("n2", "two"), ("n3", "three")):
        await started_on(server, node, name, "100Mi")
    await opened(server)
    before = await where(server)
    answer = await proposed(server)
    assert len(answer["moves"]) == len(answer["freed"]) == 2
    assert await where(server) == before
    assert {m["from"] for m in answer["moves"]} == set(answer["freed"])
    assert all(m["gain"] == 1 and m["why"] == f"frees {m['from']}" for m in answer["moves"])
    assert (await proposed(server, maxMoves=1))["hasMore"]


async def test_moves_that_make_room_are_proposed_for_what_is_blocked_alone(server: Served) -> None:
    """n1 has 800Mi, n2 1000Mi and n3 1200Mi."""
    for node, name, memory in (("n1", "one", "400Mi"), ("n2", "two", "500Mi"), ("n3", "three", "400Mi")):
        await started_on(server, node, name, memory)
    await opened(server)
    await server.apply(manifest(name="big", replicas=1, resources={"memory": "1000Mi"}))
    big = {"namespace": "default", "kind": "Service", "name": "big"}
    await server.until_state("/v1/workloads/default/service/big", "blocked")
    answer = await proposed(server, **{"for": big})
    assert [(m["name"], m["from"], m["why"]) for m in answer["moves"]] == [
        ("three", "n3", "makes room for service/big on n3")
    ]
    assert (answer["rooms"], answer["short"]) == (["n3"], 0)
    status, body = await server.call("POST", "/v1/rebalance", {"dryRun": True, "for": {**big, "name": "one"}})
    assert (status, "nothing of it is blocked" in body["detail"]) == (409, True)
    status, _ = await server.call("POST", "/v1/rebalance", {"dryRun": True, "for": {**big, "name": "none"}})
    assert status == 404
    assert (await server.call("POST", "/v1/rebalance", {}))[0] == 422
