"""`wherry explain` against real servers: any of them answers, and its advice works. The agents have no containers."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.waiting import wait_until
from tests.scripted import ScriptedAgent, Served, connected, facts, manifest, served
from wherry.cli.main import main

WEB = "/v1/workloads/default/service/web"
LIMITED = {"constraints": [], "maxPerNode": 1}


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[tuple[Served, Served]]:
    async with served(tmp_path / "one") as one, served(tmp_path / "two", on=one.store, name="s2") as two:
        yield one, two


async def typed(server: Served, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Run the command line as a user of that server does."""
    monkeypatch.setenv("WHERRY_SERVER", server.url)
    monkeypatch.setenv("WHERRY_TOKEN", server.admin["Authorization"].removeprefix("Bearer "))
    return await asyncio.to_thread(main, list(words))


async def test_each_server_says_why_a_service_is_blocked_and_its_advice_works(
    servers: tuple[Served, Served], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here, other = servers
    agents = [ScriptedAgent(here, facts(name, zone=zone)) for name, zone in (("n1", "a"), ("n2", "b"))]
    async with connected(here, *agents):
        await here.apply(manifest(replicas=3, placement=LIMITED))
        await here.until_state(WEB, "blocked")
        revision = (await here.get("/v1/cluster"))["revision"]
        for server in servers:
            answer = await _answer_of(server, revision)
            assert [(group["count"], group["faults"][0]["code"]) for group in answer["groups"]] == [(2, "maxPerNode")]
            assert answer["remedies"][0]["sentence"] == "fits n1 with maxPerNode 2"
            assert len(answer["there"]) == 2
        assert await typed(other, monkeypatch, "explain", "service/web") == 0
        page = capsys.readouterr().out
        assert page.splitlines()[0] == "service/web in default, version 1: blocked"
        assert "  n1  runs 1 already, maxPerNode is 1" in page
        assert "  manifest  fits n1 with maxPerNode 2" in page
        await here.apply(manifest(replicas=3, placement={**LIMITED, "maxPerNode": 2}))
        await here.until_state(WEB, "healthy")


async def _answer_of(server: Served, revision: int) -> dict[str, Any]:
    async def read() -> dict[str, Any]:
        found: dict[str, Any] = await server.get(f"{WEB}/explain")
        return found

    return await wait_until(read, 10, "the server to be as new", done=lambda found: found["revision"] >= revision)


async def test_an_allocation_is_explained_and_what_is_not_there_is_404(
    servers: tuple[Served, Served], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here, _ = servers
    async with connected(here, ScriptedAgent(here, facts("n1")), ScriptedAgent(here, facts("n2", memory="32Mi"))):
        await here.apply(manifest(replicas=1, resources={"memory": "48Mi"}))
        await here.until_state(WEB, "healthy")
        [allocation] = await here.allocations()
        assert await typed(here, monkeypatch, "explain", allocation["id"], "-o", "json") == 0
        answer = json.loads(capsys.readouterr().out)
        assert answer["goesTo"]["node"] == "n1"
        assert answer["there"][0]["sentence"] == allocation["whySentence"]
        assert await typed(here, monkeypatch, "explain", f"allocation/{allocation['id']}", "--node", "n2") == 0
        assert "  manifest  fits n2 if memory <= 32Mi" in capsys.readouterr().out
        for path in (f"{WEB}/explain?node=n9", "/v1/workloads/default/service/x/explain", "/v1/allocations/x/explain"):
            status, problem = await here.call("GET", path)
            assert (status, problem["status"]) == (404, 404)
