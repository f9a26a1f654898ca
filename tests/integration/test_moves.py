"""Moves that somebody ordered: made one by one by the rules of rollouts while they matter, or taken back."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from control_plane.store.protocol import Store
from tests.lab.waiting import wait_until
from tests.scripted import ScriptedAgent, Served, connected, facts, manifest, served

pytestmark = pytest.mark.each_store
NODES = ("n1", "n2", "n3")


@pytest.fixture
async def server(tmp_path: Path, store: Store) -> AsyncIterator[Served]:
    async with served(tmp_path / "server", on=store) as running:
        agents = [ScriptedAgent(running, facts(name, memory="1000Mi")) for name in NODES]
        async with connected(running, *agents):
            yield running


def path_of(name: str) -> str:
    return f"/v1/workloads/default/service/{name}"


async def open_only(server: Served, *nodes: str) -> None:
    for name in NODES:
        await server.call("POST", f"/v1/nodes/{name}/{'uncordon' if name in nodes else 'cordon'}")


async def started_on(server: Served, node: str, name: str, **spec: Any) -> None:
    await open_only(server, node)
    await server.apply(manifest(name=name, **{"replicas": 1, "resources": {"memory": "100Mi"}, **spec}))
    await server.until_state(path_of(name), "healthy")


async def where(server: Served, name: str) -> list[str]:
    return sorted(a["node"] for a in await server.allocations() if a["desired"] == "run" and a["name"] == name)


async def proposed(server: Served, **aim: Any) -> dict[str, Any]:
    status, body = await server.call("POST", "/v1/rebalance", {"dryRun": True, **aim})
    assert status == 200, body
    return dict(body)


async def order(server: Served, proposal: dict[str, Any]) -> tuple[int, Any]:
    parts = ("allocation", "from", "to", "why")
    moves = [{part: move[part] for part in parts} for move in proposal["moves"]]
    return await server.call("POST", "/v1/moves", {"revision": proposal["revision"], "moves": moves})


async def moves_left(server: Served) -> list[dict[str, Any]]:
    return list((await server.get("/v1/moves"))["items"])


async def until_moved(server: Served) -> None:
    async def none_left() -> bool:
        return not await moves_left(server)

    await wait_until(none_left, 20, "all moves are done")


async def events(server: Served, name: str) -> str:
    return "\n".join(e["message"] for e in (await server.get(f"/v1/events?for=service/{name}"))["items"])


async def test_moves_are_made_as_they_were_proposed_and_then_there_are_none(server: Served) -> None:
    for node, name in zip(NODES, ("one", "two", "three"), strict=True):
        await started_on(server, node, name)
    await open_only(server, *NODES)
    proposal = await proposed(server)
    assert len(proposal["moves"]) == 2
    status, body = await order(server, proposal)
    assert status == 202, body
    await until_moved(server)
    for move in proposal["moves"]:
        assert await where(server, move["name"]) == [move["to"]]
        told = await events(server, move["name"])
        assert f"is to be moved: it moves to {move['to']}: frees {move['from']}" in told
    for name in ("one", "two", "three"):
        await server.until_state(path_of(name), "healthy")
    assert (await proposed(server))["moves"] == []


async def test_the_new_one_serves_before_the_old_one_stops(server: Served) -> None:
    await started_on(server, "n1", "one")
    await started_on(server, "n2", "two", replicas=2)
    await open_only(server, *NODES)
    proposal = await proposed(server)
    assert [m["name"] for m in proposal["moves"]] == ["one"]
    await order(server, proposal)
    await until_moved(server)
    told = await events(server, "one")
    assert told.index("on node n2") < told.index("is to stop: it moves to n2")


async def test_without_surge_the_old_one_stops_first_and_the_new_one_goes_to_the_target(server: Served) -> None:
    update = {"maxSurge": 0, "maxUnavailable": 1}
    await started_on(server, "n1", "one", update=update)
    await started_on(server, "n2", "two")
    await open_only(server, *NODES)
    proposal = await proposed(server, maxMoves=1)
    await order(server, proposal)
    await until_moved(server)
    (move,) = proposal["moves"]

    async def is_there() -> bool:
        return await where(server, move["name"]) == [move["to"]]

    await wait_until(is_there, 20, "it is where it was to go")


async def test_marks_are_told_and_can_be_taken_back_and_wait_while_the_cluster_is_frozen(server: Served) -> None:
    await started_on(server, "n1", "one")
    await started_on(server, "n2", "two")
    await open_only(server, *NODES)
    await server.call("POST", "/v1/freeze", {"reason": "a test"})
    proposal = await proposed(server)
    (move,) = proposal["moves"]
    assert (await order(server, proposal))[0] == 202
    assert [(m["allocation"], m["to"]) for m in await moves_left(server)] == [(move["allocation"], move["to"])]
    shown = await server.get(f"/v1/allocations/{move['allocation']}")
    assert shown["note"] == f"it moves to {move['to']}: {move['why']}"
    explained = await server.get(f"/v1/allocations/{move['allocation']}/explain")
    assert explained["messages"] == [shown["note"]]
    status, body = await order(server, proposal)
    assert (status, "under way already" in body["title"]) == (409, True), body
    assert await where(server, move["name"]) == [move["from"]]
    assert (await server.call("DELETE", "/v1/moves"))[0] == 200
    assert await moves_left(server) == []
    await server.call("POST", "/v1/unfreeze")
    await server.until_state(path_of(move["name"]), "healthy")
    assert await where(server, move["name"]) == [move["from"]]


async def test_moves_that_are_out_of_date_are_refused_and_those_that_matter_no_more_end(server: Served) -> None:
    await started_on(server, "n1", "one")
    await started_on(server, "n2", "two")
    await open_only(server, *NODES)
    proposal = await proposed(server)
    (move,) = proposal["moves"]
    await server.apply(manifest(name=move["name"], replicas=2, resources={"memory": "100Mi"}))
    status, body = await order(server, proposal)
    assert (status, "has changed since revision" in body["detail"]) == (409, True), body
    await server.until_state(path_of(move["name"]), "healthy")
    for nothing in ({"revision": 1, "moves": []}, {"revision": 1}, {"moves": proposal["moves"]}):
        assert (await server.call("POST", "/v1/moves", nothing))[0] in (400, 422)
    await server.apply(manifest(name=move["name"], replicas=1, resources={"memory": "100Mi"}))
    await server.until_state(path_of(move["name"]), "healthy")
    await server.call("POST", "/v1/freeze", {"reason": "a test"})
    fresh = await proposed(server)
    assert (await order(server, fresh))[0] == 202
    await server.call("DELETE", path_of(fresh["moves"][0]["name"]))
    await server.call("POST", "/v1/unfreeze")
    await until_moved(server)


async def test_what_finds_no_place_any_more_stays_where_it_is(server: Served) -> None:
    await started_on(server, "n1", "one")
    await started_on(server, "n2", "two")
    await open_only(server, *NODES)
    proposal = await proposed(server)
    (move,) = proposal["moves"]
    await server.call("POST", "/v1/freeze", {"reason": "a test"})
    assert (await order(server, proposal))[0] == 202
    for node in set(NODES) - {move["from"]}:
        await server.call("POST", f"/v1/nodes/{node}/cordon")
    await server.call("POST", "/v1/unfreeze")
    await until_moved(server)
    await server.until_state(path_of(move["name"]), "healthy")
    assert await where(server, move["name"]) == [move["from"]]
