"""`wherry exec` with several servers, with nodes that are away, and with agents that are too old."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.lab.waiting import wait_until
from tests.scripted import ScriptedAgent, connected, facts, served
from tests.streams_world import World, oci_streams_world, service

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with oci_streams_world(tmp_path_factory.mktemp("servers"), servers=2) as world:
        yield world


async def test_any_server_leads_into_any_container_and_its_end_is_told(world: World) -> None:
    (allocation,) = await world.run(service("box"))
    other = world.through(1)
    script = "cat; echo err >&2; exit 3"
    ended = await other.wherry("exec", "-i", allocation, "--", "sh", "-c", script, given=b"x" * 99_999)
    assert (ended.code, ended.out, ended.err) == (3, b"x" * 99_999, "err\n")
    unknown = await other.wherry("exec", allocation, "-c", "none", "--", "true")
    assert unknown.code == 3
    assert "no container none" in unknown.err


async def test_a_server_that_goes_away_in_the_middle_is_told_with_what_to_do(tmp_path: Path) -> None:
    async with oci_streams_world(tmp_path, servers=2) as world:
        (allocation,) = await world.run(service("box"))
        asked = world.through(1)
        process = await asked.start("exec", allocation, "--", "sh", "-c", "echo begun; sleep 9753")
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readline(), 20) == b"begun\n"
        await world.ends[1]()
        _, err = await asyncio.wait_for(process.communicate(), 20)
        assert process.returncode == 1
        assert b"broke off" in err
        assert b"again" in err

        async def left() -> bool:
            return b"sleep 9753" in (await world.through(0).wherry("exec", allocation, "--", "ps")).out

        await wait_until(left, 20, "the command was ended", lambda is_left: not is_left)


async def test_an_agent_that_is_too_old_and_a_node_that_is_away_are_told(tmp_path: Path) -> None:
    async with served(tmp_path / "server") as server:
        old = ScriptedAgent(server, facts("n1"))
        world = World.of(server)
        async with connected(server, old):
            await server.apply(service("box"))
            (allocation,) = await wait_until(server.allocations, 20, "it is placed")
            refused = await world.wherry("exec", allocation["id"], "--", "true")
            assert refused.code == 1
            assert "older version" in refused.err
            assert "Upgrade the agent" in refused.err
        await wait_until(lambda: server.get("/v1/nodes/n1"), 20, "it is away", lambda n: n["state"] != "ready")
        away = await world.wherry("exec", allocation["id"], "--", "true")
        assert away.code == 1
        assert "not connected" in away.err
