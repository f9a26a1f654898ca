"""Several servers on one store: who leads, how new answers are, and how the store is. All real, in one process."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from control_plane.store.open import open_store
from control_plane.store.protocol import Store
from foundation.clock import SystemClock
from tests.lab.waiting import wait_until
from tests.scripted import ScriptedAgent, Served, connected, facts, manifest, served


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await open_store(f"sqlite:{tmp_path / 'store.db'}", clock=SystemClock(), rng=random.Random(1))
    yield opened
    await opened.close()


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
