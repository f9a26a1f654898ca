"""How nodes fall silent, come back or are lost, on servers that share one store. The agents here have no containers."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from control_plane import keys
from manifests.nodes import NodeStatus
from tests.lab.waiting import wait_until
from tests.scripted import ScriptedAgent, Served, connected, facts, manifest, served

WEB = "/v1/workloads/default/service/web"
LOST_AFTER_S = 3.0


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[tuple[Served, Served]]:
    async with (
        served(tmp_path / "s1", lost_after_s=LOST_AFTER_S) as first,
        served(tmp_path / "s2", on=first.store, name="s2", lost_after_s=LOST_AFTER_S) as second,
    ):
        yield first, second


async def until_told(server: Served, subject: str, *reasons: str) -> None:
    """Wait until all of that was told of it, one word each."""

    async def told() -> set[str]:
        return {e["reason"] for e in (await server.get(f"/v1/events?for={subject}"))["items"]}

    await wait_until(told, 10, f"{reasons} to be told of {subject}", done=lambda words: words >= set(reasons))


async def states(server: Served) -> dict[str, str]:
    return {n["name"]: n["state"] for n in (await server.get("/v1/nodes"))["items"]}


async def wanted_on(server: Served) -> set[str]:
    return {a["node"] for a in (await server.get("/v1/allocations"))["items"] if a["desired"] == "run"}


async def record_of(server: Served, node: str) -> NodeStatus:
    entry = await server.store.get(keys.NODES + node)
    assert entry is not None
    return NodeStatus.read(entry.value)


async def test_a_silent_node_is_suspect_gets_nothing_new_and_keeps_what_it_has(servers: tuple[Served, Served]) -> None:
    here, other = servers
    agent = ScriptedAgent(here, facts("n1"))
    async with connected(here, agent):
        await here.apply(manifest(replicas=1))
        await here.until_state(WEB, "healthy")
        agent.is_silent = True
        node = await other.until_state("/v1/nodes/n1", "suspect")
        assert "silent for" in node["message"]
        await here.apply(manifest(name="late", replicas=1))
        late = await here.until_state("/v1/workloads/default/service/late", "blocked")
        assert "n1 has been silent for a while" in late["blocked"][0]["sentence"]
        assert (await here.get(WEB))["counts"]["ready"] == 1
        agent.is_silent = False
        await other.until_state("/v1/nodes/n1", "ready")
        await here.until_state("/v1/workloads/default/service/late", "healthy")
    await until_told(here, "node/n1", "registered", "suspect", "back")


async def test_a_broken_connection_is_suspected_sooner_and_lost_no_sooner(servers: tuple[Served, Served]) -> None:
    here, other = servers
    async with connected(here, ScriptedAgent(here, facts("n1"))):
        pass
    node = await other.until_state("/v1/nodes/n1", "suspect")
    assert "its connection broke" in node["message"]
    await other.until_state("/v1/nodes/n1", "lost")
    assert (await record_of(here, "n1")).silent_s >= LOST_AFTER_S


async def test_a_node_that_moves_to_another_server_is_written_once(servers: tuple[Served, Served]) -> None:
    here, other = servers
    async with connected(here, ScriptedAgent(here, facts("n1"))):
        before = (await record_of(here, "n1")).session
    async with connected(other, ScriptedAgent(other, facts("n1"))):
        registered = await here.store.get(keys.NODES + "n1")
        await asyncio.sleep(LOST_AFTER_S + 1)  # for as long as the first server could still judge it
        assert await here.store.get(keys.NODES + "n1") == registered
        assert (await record_of(here, "n1")).session == before + 1


async def test_a_node_whose_server_is_gone_is_suspect_and_then_lost(tmp_path: Path) -> None:
    async with served(tmp_path / "s1", lost_after_s=LOST_AFTER_S) as stays, asyncio.TaskGroup() as tasks:
        async with served(tmp_path / "s2", on=stays.store, name="s2", lost_after_s=LOST_AFTER_S) as goes:
            agent = ScriptedAgent(goes, facts("n1"))
            tasks.create_task(agent.run(), name="agent")
            await wait_until(agent.answered, 5, "n1 is welcome")
        node = await stays.until_state("/v1/nodes/n1", "suspect")
        assert "its server is gone" in node["message"]
        await stays.until_state("/v1/nodes/n1", "lost")


async def test_when_most_nodes_fall_silent_at_once_none_is_lost_until_somebody_confirms(
    servers: tuple[Served, Served],
) -> None:
    here, other = servers
    silent = [ScriptedAgent(here, facts(f"n{i}")) for i in range(3)]
    async with connected(here, *silent), connected(other, ScriptedAgent(other, facts("n9"))):
        await here.apply(manifest(replicas=4, placement={"maxPerNode": 2}))
        await here.until_state(WEB, "healthy")
        before = await wanted_on(here)
        for agent in silent:
            agent.is_silent = True

        async def brake() -> dict[str, Any] | None:
            return (await other.get("/v1/cluster"))["brake"]  # type: ignore[no-any-return]

        on = await wait_until(brake, 15, "the brake is on")
        assert on is not None
        assert (on["nodes"], on["there"]) == (["n0", "n1", "n2"], 4)
        assert "wherry node confirm-lost" in on["sentence"]
        await asyncio.sleep(LOST_AFTER_S)
        assert await states(other) == {"n0": "suspect", "n1": "suspect", "n2": "suspect", "n9": "ready"}
        assert await wanted_on(here) == before
        assert "until" in (await other.get("/v1/nodes/n1"))["message"]

        status, _ = await other.call("POST", "/v1/nodes/n0/confirm-lost")
        assert status == 200
        await here.until_state("/v1/nodes/n0", "lost")
        assert (await states(here))["n1"] == "suspect"

        for agent in silent[1:]:
            agent.is_silent = False
        await here.until_state("/v1/nodes/n1", "ready")
        await wait_until(brake, 15, "the brake is off", done=lambda v: v is None)
        assert (await states(here))["n2"] == "ready"
    await until_told(here, "cluster/brake", "braked", "released")


async def test_only_a_silent_node_can_be_confirmed_as_lost(servers: tuple[Served, Served]) -> None:
    here, _ = servers
    async with connected(here, ScriptedAgent(here, facts("n1"))):
        status, body = await here.call("POST", "/v1/nodes/n1/confirm-lost")
        assert status == 409
        assert "its agent is connected" in body["detail"]
    assert (await here.call("POST", "/v1/nodes/n7/confirm-lost"))[0] == 404


async def test_a_second_agent_of_one_name_is_refused_by_every_server_until_the_first_is_lost(
    servers: tuple[Served, Served],
) -> None:
    here, other = servers
    first = ScriptedAgent(here, facts("n1", agent_id="first"))
    async with connected(here, first):
        twin = ScriptedAgent(other, facts("n1", agent_id="second"))
        async with connected(other, twin):
            assert twin.refused is not None
            assert "first" in twin.refused.why
            assert "second" in twin.refused.why
    twin = ScriptedAgent(other, facts("n1", agent_id="second"))
    async with connected(other, twin):
        assert twin.refused is not None, "the first may be on its way to another server"
    await other.until_state("/v1/nodes/n1", "lost")
    twin = ScriptedAgent(other, facts("n1", agent_id="second"))
    async with connected(other, twin):
        assert twin.refused is None


async def test_a_clone_is_refused_while_the_first_lives_and_a_rebooted_machine_is_not(
    servers: tuple[Served, Served],
) -> None:
    here, other = servers
    first = ScriptedAgent(here, facts("n1", boot="one"))
    async with connected(here, first):
        await here.apply(manifest(replicas=1))
        await here.until_state(WEB, "healthy")
        clone = ScriptedAgent(other, facts("n1", boot="two"))
        async with connected(other, clone):
            assert clone.refused is not None
            assert "one" in clone.refused.why
            assert "two" in clone.refused.why
    await other.until_state("/v1/nodes/n1", "suspect")
    rebooted = ScriptedAgent(other, facts("n1", boot="two"), is_mute=True)
    async with connected(other, rebooted):
        assert rebooted.refused is None

        async def ready() -> int:
            return int((await here.get(WEB))["counts"]["ready"])

        await wait_until(ready, 5, "nothing counts as ready that ran before the reboot", done=lambda count: count == 0)
        told = (await here.get("/v1/allocations"))["items"][0]["message"]
        assert "rebooted" in told
        rebooted.is_mute = False
        await rebooted.say()
        await here.until_state(WEB, "healthy")
    await until_told(here, "node/n1", "rebooted")
