"""A real server on the embedded store, and nodes that are lost and come back: what onDisconnect makes of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from control_plane.controllers.disconnected import KILL_S, MARGIN_S
from manifests.allocations import Phase
from manifests.session import Assigned
from tests.lab.waiting import hold_for, wait_until
from tests.scripted import ScriptedAgent, Served, connected, facts, manifest, served

WEB, SUM = "/v1/workloads/default/service/web", "/v1/workloads/default/job/sum"
N1, N2 = "/v1/nodes/n1", "/v1/nodes/n2"
NOW = {"stop": {"grace": "0s"}}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path / "server") as running:
        yield running


async def allocations(server: Served) -> dict[str, dict[str, Any]]:
    """Return all allocations by node; there is at most one on each in these tests."""
    items = await server.allocations()
    found = {item["node"]: item for item in items}
    assert len(found) == len(items), items
    return found


@asynccontextmanager
async def one_lost(server: Served, document: dict[str, Any], path: str) -> AsyncIterator["ChangingAgent"]:
    """Run the workload on node n1 and lose that; node n2 is there by then. Yield the agent of n1, unconnected."""
    first = ChangingAgent(server, facts("n1"))
    async with connected(server, first):
        await server.apply(document)
        await wait_until(lambda: allocations(server), 10, "it runs on n1", lambda a: phases(a) == {"n1": "running"})
    async with connected(server, ScriptedAgent(server, facts("n2"))):
        await server.until_state(N2, "ready")
        await server.until_state(N1, "lost")
        yield first


class ChangingAgent(ScriptedAgent):
    """Can say that things changed while it was away."""

    attempt = 1

    def restate(self) -> None:
        for id_, assigned in self.assigned.items():
            self.statuses[id_] = self._status(assigned, None)

    def _status(self, assigned: Assigned, before: Any) -> Any:
        return super()._status(assigned, before).model_copy(update={"attempt": self.attempt})


def phases(found: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {node: item["phase"] for node, item in found.items()}


def desired(found: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {node: item["desired"] for node, item in found.items()}


async def events(server: Served) -> list[str]:
    return [e["reason"] for e in (await server.get("/v1/events"))["items"]]


async def test_a_node_that_is_back_before_replace_after_finds_all_as_it_was(server: Served) -> None:
    async with one_lost(server, manifest(onDisconnect={"replaceAfter": "1h"}), WEB) as agent:
        before = await allocations(server)
        assert desired(before) == {"n1": "run"}
        assert before["n1"]["replacedAt"]
        said = await wait_until(lambda: server.get(WEB), 5, "it says so", lambda v: v["messages"])
        assert "node n1 is lost; it is replaced 1h after that, unless the node is back before" in said["messages"][0]
        async with connected(server, agent):
            await server.until_state(WEB, "healthy")
            after = await allocations(server)
    assert after.keys() == {"n1"}
    assert (after["n1"]["id"], after["n1"]["attempt"]) == (before["n1"]["id"], 1)
    assert after["n1"]["replacedAt"] is None


async def test_it_is_replaced_once_replace_after_is_over(server: Served) -> None:
    async with one_lost(server, manifest(onDisconnect={"replaceAfter": "3s"}), WEB) as agent:
        began_s = asyncio.get_running_loop().time()
        await hold_for(lambda: allocations(server), 1.5, "it is waited for", lambda a: desired(a) == {"n1": "run"})
        found = await wait_until(lambda: allocations(server), 10, "it is replaced", lambda a: "n2" in a)
        assert asyncio.get_running_loop().time() - began_s > 2
        assert desired(found) == {"n1": "stop", "n2": "run"}
        async with connected(server, agent):
            await wait_until(lambda: allocations(server), 10, "only one is left", lambda a: desired(a) == {"n2": "run"})


async def test_the_original_gets_its_slot_back_where_it_is_to_be_kept(server: Served) -> None:
    async with one_lost(server, manifest(onDisconnect={"keep": "original"}), WEB) as agent:
        found = await wait_until(lambda: allocations(server), 10, "another runs", lambda a: len(a) == 2)
        assert desired(found) == {"n1": "spare", "n2": "run"}
        assert (await server.get(WEB))["counts"]["desired"] == 1
        async with connected(server, agent):
            both = await wait_until(
                lambda: allocations(server), 10, "it is chosen", lambda a: desired(a).get("n1") == "run"
            )
            assert "keep: original" in both["n1"]["note"]
            await wait_until(lambda: allocations(server), 10, "one is left", lambda a: desired(a) == {"n1": "run"})
            assert (await allocations(server))["n1"]["id"] == found["n1"]["id"]
    await wait_until(lambda: events(server), 10, "both are told", lambda told: {"spare", "kept"} <= set(told))


async def test_an_original_that_crashed_meanwhile_does_not_run_longest(server: Served) -> None:
    async with one_lost(server, manifest(onDisconnect={"keep": "longestRunning"}), WEB) as agent:
        await wait_until(lambda: allocations(server), 10, "another runs", lambda a: phases(a).get("n2") == "running")
        agent.attempt = 2
        agent.restate()
        async with connected(server, agent):
            await wait_until(lambda: allocations(server), 10, "one is left", lambda a: desired(a) == {"n2": "run"})


async def test_an_original_that_ran_through_runs_longest(server: Served) -> None:
    async with one_lost(server, manifest(onDisconnect={"keep": "longestRunning"}), WEB) as agent:
        await wait_until(lambda: allocations(server), 10, "another runs", lambda a: phases(a).get("n2") == "running")
        async with connected(server, agent):
            await wait_until(lambda: allocations(server), 10, "one is left", lambda a: desired(a) == {"n1": "run"})


@pytest.mark.parametrize(("kind", "name", "path"), [("Service", "web", WEB), ("Job", "sum", SUM)])
async def test_what_must_not_run_twice_is_replaced_only_once_it_surely_has_ended(
    server: Served, kind: str, name: str, path: str
) -> None:
    document = manifest(kind, name, onDisconnect={"stopAfter": "1s"}, **NOW)
    async with one_lost(server, document, path) as agent:
        began_s = asyncio.get_running_loop().time()
        found = await wait_until(lambda: allocations(server), 20, "it is replaced", lambda a: "n2" in a)
        assert asyncio.get_running_loop().time() - began_s > 1 + KILL_S + MARGIN_S - 0.5  # the state was polled
        assert found["n1"]["fence"] < found["n2"]["fence"]
        agent.full = None
        async with connected(server, agent):
            full = await wait_until(agent.full_assignments, 10, "it was told")
            assert full is not None
            assert [a.allocation.desired for a in full.assigned] == ["stop"]


async def test_a_slot_is_not_given_away_while_the_one_before_still_stops(server: Served) -> None:
    stubborn = StubbornAgent(server, facts("n1"))
    spec: dict[str, Any] = {"onDisconnect": {"stopAfter": "1h"}, "update": {"maxSurge": 0, "maxUnavailable": 1}, **NOW}
    async with connected(server, stubborn, ScriptedAgent(server, facts("n2", cpu="1"))):
        await server.apply(manifest(**spec, placement={"constraints": ["node.name == n1"]}))
        await server.until_state(WEB, "healthy")
        await server.apply(manifest(**spec))
        await server.apply(manifest(**spec, env={"NEW": "1"}))
        await wait_until(lambda: allocations(server), 10, "it is to stop", lambda a: desired(a) == {"n1": "stop"})
        said = await wait_until(lambda: server.get(WEB), 5, "it says so", lambda v: "surely" in str(v["messages"]))
        assert "slot 0 stays empty until" in str(said["messages"])
        stubborn.heeds = True
        await stubborn.say()
        await server.until_state(WEB, "healthy")


class StubbornAgent(ScriptedAgent):
    """Doesn't stop what it is told to stop, until it `heeds`."""

    heeds = False

    def _status(self, assigned: Assigned, before: Any) -> Any:
        is_stopping = assigned.allocation.desired == "stop" and not self.heeds
        return before if is_stopping and before is not None else super()._status(assigned, before)


async def test_a_new_leader_counts_anew_from_when_it_knows_of_the_loss(tmp_path: Path) -> None:
    document = manifest(onDisconnect={"replaceAfter": "4s"})
    async with served(tmp_path / "server") as server, one_lost(server, document, WEB):
        await asyncio.sleep(2)  # half of the time
    async with served(tmp_path / "server") as server, connected(server, ScriptedAgent(server, facts("n2"))):
        began_s = asyncio.get_running_loop().time()
        await wait_until(lambda: allocations(server), 30, "it is replaced", lambda a: desired(a).get("n2") == "run")
        assert asyncio.get_running_loop().time() - began_s > 3


async def test_a_jobs_index_that_succeeded_unseen_is_not_run_to_its_end_again(server: Served) -> None:
    async with one_lost(server, manifest("Job", "sum", onDisconnect={"keep": "original"}), SUM) as agent:
        await wait_until(lambda: allocations(server), 10, "another runs", lambda a: phases(a).get("n2") == "running")
        agent.answer = Phase.SUCCEEDED
        agent.restate()
        async with connected(server, agent):
            await server.until_state(SUM, "complete")
            found = await wait_until(
                lambda: allocations(server), 10, "the other is stopped", lambda a: phases(a).get("n2") == "stopped"
            )
    assert phases(found)["n1"] == "succeeded"


async def test_each_assignment_carries_its_fencing_number(server: Served) -> None:
    agent = ScriptedAgent(server, facts("n1"))
    async with connected(server, agent):
        await server.apply(manifest(replicas=2))
        await server.until_state(WEB, "healthy")
        shown = {a["id"]: a["fence"] for a in await server.allocations()}
        assert {a.allocation.id: a.fence for a in agent.assigned.values()} == shown
        assert all(fence > 0 for fence in shown.values())
