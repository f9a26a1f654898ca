"""Several servers on one store: who leads, how new answers are, and how the store is. All real, in one process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from control_plane.snapshots import begin_generation
from control_plane.store.protocol import Revision, Store
from tests.lab.waiting import wait_until
from tests.scripted import ScriptedAgent, Served, connected, facts, manifest, served


@pytest.fixture
async def first(tmp_path: Path, store: Store) -> AsyncIterator[Served]:
    async with served(tmp_path / "s1", on=store) as running:
        yield running


@pytest.fixture
async def second(tmp_path: Path, store: Store, first: Served) -> AsyncIterator[Served]:
    async with served(tmp_path / "s2", on=store, name="s2") as running:
        yield running


async def test_all_servers_are_listed_with_the_leader_and_their_agents(first: Served, second: Served) -> None:
    async with connected(second, ScriptedAgent(second, facts("n1"))):
        answer = await first.get("/v1/servers")
    assert [(s["name"], s["isLeader"], s["isThis"], s["agents"]) for s in answer["items"]] == [
        ("s1", True, True, 0),
        ("s2", False, False, 1),
    ]


async def test_the_embedded_store_tells_its_size_and_version(first: Served) -> None:
    [member] = (await first.get("/v1/servers"))["store"]
    assert member["version"].startswith("SQLite 3.")
    assert member["databaseBytes"] > 0
    assert (member["why"], member["warnings"]) == ("", [])


async def test_an_answer_says_how_new_it_is(first: Served) -> None:
    async with first.http.get(first.url + "/v1/nodes", headers=first.admin) as answer:
        body = await answer.json()
        assert int(answer.headers["Wherry-Revision"]) >= body["revision"] > 0
        assert 0 <= float(answer.headers["Wherry-Staleness"]) < 30
        assert answer.headers["Wherry-Generation"] == "1"


async def test_a_server_that_is_behind_waits_until_it_is_new_enough(first: Served, second: Served) -> None:
    await first.apply(manifest())
    revision = (await first.get("/v1/workloads"))["revision"]
    status, body = await second.call("GET", "/v1/workloads", **{"Wherry-Min-Revision": str(revision)})
    assert status == 200
    assert body["revision"] >= revision


async def test_a_revision_that_never_comes_is_unavailable_and_one_of_another_generation_is_not_asked_for(
    first: Served,
) -> None:
    far = {"Wherry-Min-Revision": "999999"}
    asked = asyncio.create_task(first.call("GET", "/v1/nodes", **far))
    status, _ = await first.call("GET", "/v1/nodes", **far, **{"Wherry-Generation": "7"})
    assert status == 200
    status, body = await asked
    assert (status, body["title"]) == (503, "this server is behind the store")


async def test_a_watch_of_another_generation_begins_anew(first: Served) -> None:
    status, body = await first.call("GET", "/v1/watch?after=1", **{"Wherry-Generation": "7"})
    assert (status, body["title"]) == (410, "the changes since that revision are not known")


async def test_when_the_leader_ends_another_one_leads_at_once_and_knows_what_was_written(
    tmp_path: Path, store: Store
) -> None:
    async with served(tmp_path / "s1", on=store) as leader, AsyncExitStack() as stack:
        follower = await stack.enter_async_context(served(tmp_path / "s2", on=store, name="s2"))
        await leader.apply(manifest())
        survivors = stack.pop_all()

    async def leading() -> list[str]:
        return [s["name"] for s in (await follower.get("/v1/servers"))["items"] if s["isLeader"]]

    async with survivors:
        assert await wait_until(leading, 10, "someone leads", lambda names: bool(names)) == ["s2"]
        assert [w["name"] for w in (await follower.get("/v1/workloads"))["items"]] == ["web"]


async def test_an_agent_that_has_seen_more_than_the_store_proves_that_it_went_back(first: Served) -> None:
    agent = ScriptedAgent(first, facts("n1"), hello={"generation": 1, "applied_revision": 10_000})
    async with connected(first, agent):
        assert agent.welcome is not None
        assert agent.welcome.generation == 2
        assert (await first.call("GET", "/v1/nodes"))[0] == 200


async def test_sessions_end_when_a_new_generation_begins_so_that_agents_enter_it(first: Served) -> None:
    agent = ScriptedAgent(first, facts("n1"))
    async with connected(first, agent):
        assert await begin_generation(first.store, Revision(10**9), of=1) is not None
        async with asyncio.timeout(10):
            await agent.has_ended.wait()
    again = ScriptedAgent(first, facts("n1"), hello={"generation": 1, "applied_revision": 10**9})
    async with connected(first, again):
        assert again.welcome is not None
        assert again.welcome.generation == 2


async def test_an_agent_of_a_newer_generation_than_the_store_s_proves_it_as_well(first: Served) -> None:
    agent = ScriptedAgent(first, facts("n1"), hello={"generation": 9, "applied_revision": 3})
    async with connected(first, agent):
        assert agent.welcome is not None
        assert agent.welcome.generation == 10


async def test_what_a_node_keeps_from_before_a_restore_is_told_adopted_or_released(first: Served) -> None:
    known, gone = ScriptedAgent(first, facts("n1")), ScriptedAgent(first, facts("n2"))
    async with connected(first, known):
        await first.apply(manifest(replicas=1), manifest(name="other", replicas=1))
        await first.until_state("/v1/workloads/default/service/web", "healthy")
        held = [a.allocation for a in known.assigned.values()]
    assert len(held) == 2
    web = next(a for a in held if a.workload.name == "web")
    lost = web.model_copy(update={"id": "web-7-kept", "index": 7, "node": "n2"})
    assert await begin_generation(first.store, Revision(10**9), of=1) is not None
    gone.hello = {"kept": (lost,)}
    async with connected(first, known, gone):
        n2 = await first.get("/v1/nodes/n2")
        assert n2["kept"] == ["web-7-kept"]
        assert "wherry node release n2" in n2["message"]
        await first.apply(manifest(replicas=8))

        async def is_adopted() -> bool:
            return "web-7-kept" in {a["id"] for a in await first.allocations()}

        await wait_until(is_adopted, 10, "the kept allocation is adopted", bool)
        assert (await first.get("/v1/nodes/n2"))["kept"] == []


async def test_what_is_kept_may_be_stopped_once_it_is_released(first: Served) -> None:
    agent = ScriptedAgent(first, facts("n1"))
    async with connected(first, agent):
        await first.apply(manifest(replicas=1))
        await first.until_state("/v1/workloads/default/service/web", "healthy")
        [held] = [a.allocation for a in agent.assigned.values()]
    stranger = held.model_copy(update={"id": "old-0-kept", "version": 99})
    agent.hello = {"kept": (stranger,)}
    async with connected(first, agent):
        assert agent.withdrawn == set()
        await first.call("POST", "/v1/nodes/n1/release")

        async def withdrawn() -> set[str]:
            return agent.withdrawn

        await wait_until(withdrawn, 10, "it is withdrawn", lambda ids: ids == {"old-0-kept"})


async def test_a_server_with_far_more_than_its_share_of_agents_sends_some_on(first: Served, second: Served) -> None:
    agents = [ScriptedAgent(first, facts(f"n{i}"), hello={"servers": 2}) for i in range(8)]
    loyal = [ScriptedAgent(first, facts(f"l{i}")) for i in range(2)]

    async def connected_to_first() -> int:
        return int((await first.get("/v1/servers"))["items"][0]["agents"])

    async with connected(first, *agents, *loyal):
        assert await connected_to_first() == 10
        assert (await second.get("/v1/servers"))["items"][1]["agents"] == 0
        closed = [agent for agent in agents if agent.has_ended.is_set()]
        assert closed == []

        async def sent_on() -> int:
            return sum(agent.has_ended.is_set() for agent in agents)

        await wait_until(sent_on, 30, "half of them are sent on", lambda count: count >= 5)
        assert not any(agent.has_ended.is_set() for agent in loyal)
