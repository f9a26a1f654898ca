"""A real server on the embedded store, and jobs: retries, lost nodes that come back, nodes that forget."""

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from control_plane.store.open import open_store
from foundation.clock import SystemClock
from manifests.allocations import AllocationStatus, Ending, Phase
from manifests.session import Assigned
from tests.lab.waiting import wait_until
from tests.scripted import ScriptedAgent, Served, connected, facts, manifest, served

SUM = "/v1/workloads/default/job/sum"
QUICK = {"reschedule": {"backoff": "100ms", "maxBackoff": "100ms"}}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path / "server") as running:
        yield running


@dataclass
class FailingAgent(ScriptedAgent):
    """Says of each allocation that it has failed."""

    failed: list[str] = field(default_factory=list)

    def _status(self, assigned: Assigned, before: AllocationStatus | None) -> AllocationStatus:
        said = super()._status(assigned, before)
        if said.phase is not Phase.RUNNING:
            return said
        self.failed.append(said.id)
        ending = Ending(attempt=1, exit_code=3, reason="exited", message="exit code 3", finished_s=0.0)
        return said.model_copy(update={"phase": Phase.FAILED, "last_ending": ending})


async def test_an_index_is_tried_as_often_as_retries_says_elsewhere_and_then_fails_the_job(server: Served) -> None:
    agents = [FailingAgent(server, facts(name)) for name in ("n1", "n2")]
    async with connected(server, *agents):
        await server.apply(manifest("Job", "sum", retries=2, **QUICK))
        job = await server.until_state(SUM, "failed")
        assert sorted([len(agent.failed) for agent in agents]) == [1, 2]
        assert "after 3 failures" in job["messages"][0]
        assert (await server.allocations())[-1]["reschedules"] == 2


async def test_failures_are_counted_on_by_the_next_leader(tmp_path: Path) -> None:
    clock = SystemClock()
    store = await open_store(f"sqlite:{tmp_path / 'store.db'}", clock=clock, rng=random.Random(1))
    first = AsyncExitStack()
    try:
        await first.enter_async_context(served(tmp_path / "one", on=store, name="s1"))
        async with served(tmp_path / "two", on=store, name="s2") as second:
            agent = FailingAgent(second, facts("n1"))
            async with connected(second, agent):
                slow: dict[str, Any] = {"reschedule": {"backoff": "500ms", "maxBackoff": "500ms"}}
                await second.apply(manifest("Job", "sum", retries=3, **slow))

                async def tried() -> int:
                    return len(agent.failed)

                await wait_until(tried, 10, "two have failed", lambda count: count == 2)
                await first.aclose()
                await second.until_state(SUM, "failed", 20)
                assert len(agent.failed) == 4
    finally:
        await first.aclose()
        await store.close()


async def test_more_retries_take_a_failed_job_up_again(server: Served) -> None:
    agent = FailingAgent(server, facts("n1"))
    async with connected(server, agent):
        await server.apply(manifest("Job", "sum", retries=0, **QUICK))
        await server.until_state(SUM, "failed")
        results = await server.apply(manifest("Job", "sum", retries=1, **QUICK))
        assert (results[0]["action"], results[0]["makesVersion"]) == ("changed", False)

        async def tried() -> int:
            return len(agent.failed)

        await wait_until(tried, 10, "it is tried once more", lambda count: count == 2)
        await server.until_state(SUM, "failed")


async def test_a_success_on_a_lost_node_counts_when_the_node_is_back(server: Served) -> None:
    cut_off = ScriptedAgent(server, facts("n1"))
    async with connected(server, cut_off):
        await server.apply(manifest("Job", "sum", completions=1))
        await wait_until(lambda: _running(server), 10, "it runs", bool)
    await server.until_state("/v1/nodes/n1", "lost")
    replacing = ScriptedAgent(server, facts("n2"))
    async with connected(server, replacing):

        async def replaced() -> bool:
            return {a["node"] for a in await server.allocations() if a["phase"] == "running"} == {"n2"}

        await wait_until(replaced, 10, "it runs on n2", bool)
        ended = {i: s.model_copy(update={"phase": Phase.SUCCEEDED}) for i, s in cut_off.statuses.items()}
        async with connected(server, ScriptedAgent(server, facts("n1"), statuses=ended)):
            await server.until_state(SUM, "complete")

            async def stopped() -> bool:
                return [a["phase"] for a in await server.allocations() if a["node"] == "n2"] == ["stopped"]

            await wait_until(stopped, 10, "the replacement is stopped", bool)


async def _running(server: Served) -> bool:
    return [a["phase"] for a in await server.allocations()] == ["running"]


async def test_a_node_that_has_forgotten_all_is_told_what_had_ended_there(server: Served) -> None:
    async with connected(server, ScriptedAgent(server, facts("n1"), answer=Phase.SUCCEEDED)):
        await server.apply(manifest("Job", "sum"))
        await server.until_state(SUM, "complete")
    forgetful = ScriptedAgent(server, facts("n1"))
    async with connected(server, forgetful):
        full = await wait_until(forgetful.full_assignments, 5, "the full assignments come")
        assert full is not None
        assert [a.ended.phase for a in full.assigned if a.ended] == [Phase.SUCCEEDED]
