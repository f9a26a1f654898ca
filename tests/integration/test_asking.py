"""Asking nodes through any server: over the session that it holds, or through the server that holds it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from control_plane.store.protocol import Store
from manifests.layers import Layer, LayerKind
from manifests.stats import Amounts, ContainerStats, MachineStats, NodeStats
from tests.lab.waiting import wait_until
from tests.scripted import ScriptedAgent, Served, connected, facts, manifest, served

ANSWERS = {"answers": ("stats", "layers", "something of a later version")}


@pytest.fixture
async def first(tmp_path: Path, store: Store) -> AsyncIterator[Served]:
    async with served(tmp_path / "s1", on=store) as running:
        yield running


@pytest.fixture
async def second(tmp_path: Path, store: Store, first: Served) -> AsyncIterator[Served]:
    async with served(tmp_path / "s2", on=store, name="s2") as running:
        yield running


def usage(allocation: str, name: str = "web") -> ContainerStats:
    sizes = Amounts(cpu_m=100, memory_bytes=2**26, pids=10)
    life = {"attempt": 1, "since_s": 0.0, "at_s": 10.0, "samples": 2, "reserved": sizes, "limit": sizes}
    memory = {"memory_bytes": 1, "memory_peak_bytes": 1, "memory_used_bytes": 1}
    counts = {"pids": 1, "pids_peak": 1, "periods": 0, "throttled_periods": 0, "throttled_s": 0.0, "oom_kills": 0}
    whose = {"allocation": allocation, "container": "main", "namespace": "default", "kind": "service", "name": name}
    fields: dict[str, Any] = {**whose, **life, **memory, **counts, "version": 1, "cpu_total_s": 1.0}
    return ContainerStats(**fields)


def stats(node: str, *containers: ContainerStats) -> NodeStats:
    machine = MachineStats(cores=2, memory_bytes=1, memory_total_bytes=2)
    return NodeStats(node=node, at_s=10.0, machine=machine, containers=containers)


async def placed(server: Served) -> str:
    """Run a service of one replica, and return its allocation once it is placed."""
    await server.apply(manifest(replicas=1))
    found = await wait_until(server.allocations, deadline_s=10, describe="it is placed", done=lambda a: len(a) == 1)
    return str(found[0]["id"])


async def test_any_server_asks_the_one_that_holds_the_session(first: Served, second: Served) -> None:
    agent = ScriptedAgent(second, facts("n1"), hello=ANSWERS)
    async with connected(second, agent):
        allocation = await placed(first)
        agent.stats = stats("n1", usage(allocation), usage("other-0-a", "other"))
        agent.layers = (Layer(kind=LayerKind.CONTAINER, name="main"),)
        for server in (first, second):
            of_node = await server.get("/v1/nodes/n1/stats")
            assert [c["allocation"] for c in of_node["containers"]] == [allocation, "other-0-a"]
            of_one = await server.get(f"/v1/allocations/{allocation}/stats")
            assert [c["allocation"] for c in of_one["containers"]] == [allocation]
            of_all = await server.get("/v1/stats?kind=Service&name=web")
            assert [c["name"] for item in of_all["items"] for c in item["containers"]] == ["web"]
            tree = (await server.get(f"/v1/allocations/{allocation}/layers"))["layers"]
            path = []
            while tree:
                path.append((tree["kind"], tree["name"]))
                tree = tree["below"][0] if tree["below"] else None
            assert path == [
                ("manifest", "service/web"),
                ("version", "1"),
                ("allocation", allocation),
                ("container", "main"),
            ]


async def test_nodes_that_do_not_answer_are_told_beside_those_that_do(first: Served) -> None:
    old, new = ScriptedAgent(first, facts("n1")), ScriptedAgent(first, facts("n2"), hello=ANSWERS)
    new.stats = stats("n2")
    async with connected(first, new):
        async with connected(first, old):
            answer = await first.get("/v1/stats")
            assert [item["node"] for item in answer["items"]] == ["n2"]
            (silent,) = answer["silent"]
            assert silent["node"] == "n1"
            assert "older version" in silent["why"]
        answer = await wait_until(
            lambda: first.get("/v1/stats"), 10, "n1 is gone", lambda a: "not connected" in a["silent"][0]["why"]
        )
        status, body = await first.call("GET", "/v1/nodes/n1/stats")
        assert (status, body["title"]) == (503, "node n1 is not connected")
        assert [item["node"] for item in answer["items"]] == ["n2"]


async def test_many_ask_at_once_and_each_is_answered(first: Served) -> None:
    agent = ScriptedAgent(first, facts("n1"), hello=ANSWERS)
    agent.stats = stats("n1")
    async with connected(first, agent):
        answers = await asyncio.gather(*(first.get("/v1/nodes/n1/stats") for _ in range(40)))
    assert [answer["node"] for answer in answers] == ["n1"] * 40


async def test_what_is_not_there_is_not_asked_for(first: Served) -> None:
    for path in ("/v1/nodes/n9/stats", "/v1/allocations/web-9-z/stats", "/v1/allocations/web-9-z/layers"):
        status, _ = await first.call("GET", path)
        assert status == 404
    assert (await first.get("/v1/stats"))["items"] == []
