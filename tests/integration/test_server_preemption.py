"""A real server on each kind of store, and priorities: who makes room for whom, and what is said of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from control_plane.store.protocol import Store
from manifests.allocations import AllocationStatus, Phase
from manifests.session import Assigned
from tests.lab.waiting import hold_for, wait_until
from tests.scripted import ScriptedAgent, Served, connected, facts, manifest, served

pytestmark = pytest.mark.each_store
WEB, DB = "/v1/workloads/default/service/web", "/v1/workloads/default/service/db"


@pytest.fixture
async def server(tmp_path: Path, store: Store) -> AsyncIterator[Served]:
    async with served(tmp_path / "server", on=store) as running:
        yield running


def web(replicas: int = 4, **spec: Any) -> dict[str, Any]:
    """Fills a node of 2 cpus with 4 replicas."""
    return manifest(name="web", replicas=replicas, priority=20, resources={"cpu": "500m"}, **spec)


def db(cpu: str = "1", **spec: Any) -> dict[str, Any]:
    return manifest(name="db", priority=80, resources={"cpu": cpu}, **spec)


class SlowToStop(ScriptedAgent):
    """Ends what it is to stop only once it is told that it may."""

    may_stop = False

    async def say(self) -> None:
        held = [a for a in self.assigned.values() if a.allocation.desired == "stop"]
        shown = dict(self.assigned)
        if not self.may_stop:
            for a in held:
                del self.assigned[a.allocation.id]
        await super().say()
        self.assigned = shown

    async def let_stop(self) -> None:
        self.may_stop = True
        await self.say()


@asynccontextmanager
async def full_node(server: Served) -> AsyncIterator[SlowToStop]:
    """Return the agent of a node that web fills, and nothing else is there."""
    agent = SlowToStop(server, facts("n1"))
    async with connected(server, agent):
        await server.apply(web())
        await server.until_state(WEB, "healthy")
        yield agent


async def evicted(server: Served) -> list[dict[str, Any]]:
    return [a for a in await server.allocations() if a["evictedFor"]]


async def test_the_least_makes_room_and_both_say_so_until_the_higher_one_runs(server: Served) -> None:
    async with full_node(server) as agent:
        await server.apply(db())
        shown = await server.until_state(DB, "blocked")
        victims = await evicted(server)
        assert [(a["name"], a["evictedFor"], a["stopReason"]) for a in victims] == [
            ("web", "service/db", "makes room for service/db, priority 80")
        ] * 2
        names = sorted(a["id"] for a in victims)
        (blocked,) = shown["blocked"]
        assert blocked["waits"] == [{"node": "n1", "leaving": names, "count": 1}]
        assert blocked["sentence"].endswith(f"room comes on n1, where {names[0]} and {names[1]} make way")
        shown = await server.until_state(WEB, "blocked")
        assert f"{names[0]} is evicted: it makes room for service/db, priority 80" in shown["messages"]
        assert "n1 lacks cpu (500m needed, 0 free)" in shown["blocked"][0]["sentence"]

        async def no_more() -> bool:
            return len(await evicted(server)) == 2

        await hold_for(no_more, 1.5, "nothing more is evicted while it waits")
        await agent.let_stop()
        await server.until_state(DB, "healthy")
        shown = await server.until_state(WEB, "blocked")
        assert shown["counts"]["running"] == 2


async def test_events_tell_who_was_evicted_and_by_whom(server: Served) -> None:
    async with full_node(server) as agent:
        await server.apply(db("500m"))
        await agent.let_stop()
        await server.until_state(DB, "healthy")

        async def told() -> dict[str, str]:
            return {e["reason"]: e["message"] for e in (await server.get("/v1/events"))["items"]}

        events = await wait_until(told, 5, "both are told", lambda e: {"evicted", "preempted"} <= e.keys())
        assert events["evicted"].endswith("on node n1 makes room for service/db, priority 80")
        assert events["preempted"].startswith("service/web makes room: web-")


async def test_what_is_evicted_goes_elsewhere_once_there_is_room(server: Served) -> None:
    async with full_node(server) as agent:
        await server.apply(db())
        await agent.let_stop()
        await server.until_state(DB, "healthy")
        async with connected(server, ScriptedAgent(server, facts("n2"))):
            await server.until_state(WEB, "healthy")
            there = sorted(
                a["node"] for a in await server.allocations() if a["name"] == "web" and a["desired"] == "run"
            )
            assert there == ["n1", "n1", "n2", "n2"]


async def test_nothing_comes_back_before_the_higher_one_has_its_place(server: Served) -> None:
    """Of two victims one ends first: what its end frees is kept, whoever looks at it meanwhile."""
    async with full_node(server) as agent:
        await server.apply(db("1500m"))
        victims = await wait_until(lambda: evicted(server), 5, "three", lambda found: len(found) == 3)
        agent.assigned = {i: a for i, a in agent.assigned.items() if i not in {v["id"] for v in victims[1:]}}
        await agent.let_stop()
        await server.apply(manifest(name="small", priority=20, resources={"cpu": "500m"}))

        async def reasons() -> list[str]:
            shown = await server.get("/v1/workloads/default/service/small")
            return [blocked["sentence"] for blocked in shown["blocked"]]

        await wait_until(reasons, 5, "it is kept", lambda told: any("kept for service/db" in one for one in told))
        assert (await server.get(WEB))["counts"]["running"] == 1


class Breaking(ScriptedAgent):
    """Says of all that is of one workload that it failed, and can't be restarted."""

    breaks = "db"

    def _status(self, assigned: Assigned, before: AllocationStatus | None) -> AllocationStatus:
        a = assigned.allocation
        self.answer = Phase.FAILED if a.workload.name == self.breaks else Phase.RUNNING
        return super()._status(assigned, before)


async def test_what_fails_over_and_over_soon_evicts_nothing_more(server: Served) -> None:
    async with connected(server, Breaking(server, facts("n1"))):
        await server.apply(web(reschedule={"backoff": "100ms"}))
        await server.until_state(WEB, "healthy")
        await server.apply(db("2", reschedule={"backoff": "300ms", "maxBackoff": "300ms"}))

        async def said() -> list[str]:
            return list((await server.get(DB))["messages"])

        calm = "it evicts nothing for now: 2 of its allocations or more have failed within 10m"
        await wait_until(said, 10, "it says so", lambda messages: calm in messages)
        await server.until_state(WEB, "healthy")
        told = [e["count"] for e in (await server.get("/v1/events"))["items"] if e["reason"] == "evicted"]
        assert sum(told) <= 8


async def test_a_frozen_cluster_evicts_nothing_and_explain_says_so_and_then_that_it_is_under_way(
    server: Served,
) -> None:
    async with full_node(server):
        await server.call("POST", "/v1/freeze", {})
        await server.apply(db())
        shown = await server.until_state(DB, "blocked")
        assert shown["blocked"][0]["waits"] == []
        assert await evicted(server) == []
        (room,) = (await server.get(f"{DB}/explain"))["rooms"]
        assert room["sentence"].endswith("priority 20) are evicted, which isn't done: the cluster is frozen")
        await server.call("POST", "/v1/unfreeze")
        gone = await wait_until(lambda: evicted(server), 5, "then it does", lambda found: len(found) == 2)
        (room,) = (await server.get(f"{DB}/explain"))["rooms"]
        assert (sorted(room["leaving"]), room["evicted"]) == (sorted(a["id"] for a in gone), [])
        assert room["sentence"].endswith("have ended, which is under way")


@pytest.mark.parametrize("spec", [{"preempts": False}, {"priority": 20}, {"resources": {"cpu": "3"}}])
async def test_nothing_is_evicted_for_what_may_not_or_would_not_fit_anyhow(
    server: Served, spec: dict[str, Any]
) -> None:
    async with full_node(server):
        document = db()
        document["spec"] |= spec
        await server.apply(document)
        await server.until_state(DB, "blocked")

        async def none() -> bool:
            return await evicted(server) == []

        await hold_for(none, 0.7, "nothing is evicted")
        assert (await server.get(WEB))["counts"]["running"] == 4


async def test_an_evicted_index_of_a_job_runs_again_and_that_is_no_retry(server: Served) -> None:
    agent = ScriptedAgent(server, facts("n1"))
    job = manifest("Job", "sum", priority=10, retries=0, resources={"cpu": "2"})
    async with connected(server, agent):
        await server.apply(job)
        await server.until_state("/v1/workloads/default/job/sum", "progressing")
        await server.apply(db("2"))
        await server.until_state(DB, "healthy")
        shown = await server.until_state("/v1/workloads/default/job/sum", "blocked")
        assert not any("failure" in message or "retry" in message for message in shown["messages"])
        agent.answer = Phase.SUCCEEDED
        assert (await server.call("DELETE", DB))[0] == 202
        await server.until_state("/v1/workloads/default/job/sum", "complete")
