"""How long `apply` of 50 replicas takes until all run, beside the same 50 containers made straight by the engine's API.

Both make the same containers on the same engine, by turns. The engine alone is given its best concurrency. A run ends
when the engine has started the last container (its State.StartedAt), so neither side gains by what is counted as done.
"""

import asyncio
import json
import secrets
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from agent.driver import ContainerSpec, Limits
from agent.drivers.docker_codec import to_create_body
from bench.figures import Figure, at_most, reported
from bench.rig import IMAGE, Json, OneNode, cpu_s, one_node, service, state_time_s, until_ready
from manifests.containers import DEFAULT_CPU_M, DEFAULT_MEMORY_BYTES, DEFAULT_PIDS
from tests.lab.cluster import NodeSize
from tests.lab.waiting import wait_until

REPLICAS = 50
CONCURRENCIES = (1, 2, 4, 8, 16)
ROUNDS, SHORT_ROUNDS = 6, 2
TRIES = 2
TARGET = 1.2  # Swarm reaches 1.06
DEADLINE_S = 120.0
SIZE = NodeSize(cpu="16000m", memory_mib=8192, pids=16384)  # room for the 50 at the default reservation
API = "http://docker/v1.41"
_REMOVALS = 4  # at once


@dataclass(frozen=True, slots=True)
class Run:
    """One deployment by Wherry: seconds from the call of apply to the last start, and until the server knew of all."""

    run_s: float
    seen_s: float


class Engine:
    """The engine's API without anything between."""

    def __init__(self, node: OneNode, session: aiohttp.ClientSession) -> None:
        self._node, self._session = node, session
        self._made: Json | None = None

    async def call(self, method: str, path: str, body: Json | None = None, **params: str) -> Any:
        async with self._session.request(method, API + path, json=body, params=params) as answer:
            text = await answer.text()
            if answer.status >= 400:
                raise RuntimeError(f"{method} {path}: {answer.status} {text}")
            return json.loads(text) if text.startswith(("{", "[")) else text

    async def run(self, concurrency: int) -> None:
        """Create and start the containers, so many at a time."""
        left = list(range(REPLICAS))

        async def work() -> None:
            while left:
                body = _body(self._node.host.work.path, left.pop())
                created = await self.call("POST", "/containers/create", body, name=f"raw-{secrets.token_hex(4)}")
                await self.call("POST", f"/containers/{created['Id']}/start")

        async with asyncio.TaskGroup() as tasks:
            for number in range(concurrency):
                tasks.create_task(work(), name=f"raw-{number}")

    async def inspected(self) -> list[Json]:
        listed = await self.call("GET", "/containers/json", all="true")
        return [await self.call("GET", f"/containers/{found['Id']}/json") for found in listed]

    def check_same(self, container: Json) -> None:
        """Raise RuntimeError if it isn't made as those before it: the two sides must do the same work."""
        made = container["HostConfig"]
        if self._made is not None and made != self._made:
            differ = [name for name, value in made.items() if value != self._made[name]]
            raise RuntimeError(f"the two sides make different containers: {differ}")
        self._made = made

    async def count(self) -> int:
        return len(await self.call("GET", "/containers/json", all="true"))

    async def remove_all(self) -> None:
        places = asyncio.Semaphore(_REMOVALS)

        async def remove(container: str) -> None:
            async with places:
                await self.call("DELETE", f"/containers/{container}", force="true")

        async with asyncio.TaskGroup() as tasks:
            for found in await self.call("GET", "/containers/json", all="true"):
                tasks.create_task(remove(found["Id"]), name="remove")

    @asynccontextmanager
    async def counting_starts(self) -> AsyncIterator[asyncio.Event]:
        """Yield an event that is set once the engine has told of all starts: polling would load it."""
        all_started = asyncio.Event()
        filters = json.dumps({"type": ["container"], "event": ["start"]})
        timeout = aiohttp.ClientTimeout(total=None)
        async with (
            self._session.get(API + "/events", params={"filters": filters}, timeout=timeout) as answer,
            asyncio.TaskGroup() as tasks,
        ):
            task = tasks.create_task(_count(answer.content, all_started), name="count-starts")
            try:
                yield all_started
            finally:
                task.cancel()


async def _count(lines: aiohttp.StreamReader, all_started: asyncio.Event) -> None:
    for _ in range(REPLICAS):
        await lines.readline()
    all_started.set()


async def measure(*, short: bool) -> list[Figure]:
    connector_limit = 2 * max(CONCURRENCIES)
    async with one_node(SIZE) as node:
        connector = aiohttp.UnixConnector(str(node.host.dockerd.socket), limit=connector_limit)
        async with aiohttp.ClientSession(connector=connector) as session:
            return await _measure(node, Engine(node, session), SHORT_ROUNDS if short else ROUNDS)


async def _measure(node: OneNode, engine: Engine, rounds: int) -> list[Figure]:
    await _by_wherry(node, engine)  # warms up
    tried = await _tried(engine)
    one, other = sorted(tried, key=tried.__getitem__)[:2]  # which of them is best, only many runs tell
    ours: list[Run] = []
    raw: dict[int, list[float]] = {one: [], other: []}
    busy_s = _cpu_s(node)
    for _ in range(rounds):
        raw[one].append(await _by_hand(engine, one))
        ours.append(await _by_wherry(node, engine))
        raw[other].append(await _by_hand(engine, other))
        one, other = other, one
    busy_ms = 1000 * (_cpu_s(node) - busy_s) / (rounds * REPLICAS)
    best = max(raw, key=lambda c: _ratio([run.run_s for run in ours], raw[c]))
    ratio = _ratio([run.run_s for run in ours], raw[best])
    seen = _ratio([run.seen_s for run in ours], raw[best])
    return [
        at_most(f"{REPLICAS} replicas run, ratio to the engine alone", ratio, "x", TARGET),
        reported("the same, until the server has heard of all", seen, "x"),
        reported(f"{REPLICAS} replicas run, from apply, median", statistics.median(run.run_s for run in ours), "s"),
        *(reported(f"engine alone, {c} at once, median", statistics.median(raw[c]), "s") for c in sorted(raw)),
        reported("best concurrency of the engine alone", best, "at once"),
        reported("CPU of server and agent, a replica's life", busy_ms, "ms"),
        *(reported(f"tried first: engine alone, {c} at once", tried[c], "s") for c in CONCURRENCIES),
    ]


def _ratio(ours: list[float], raw: list[float]) -> float:
    """Return the median over the rounds: a shared machine is faster now and slower then, but less so within one."""
    return statistics.median(our_s / raw_s for our_s, raw_s in zip(ours, raw, strict=True))


async def _tried(engine: Engine) -> dict[int, float]:
    """Return the best time of each concurrency, tried by turns: what disturbs a run only ever makes it slower."""
    tries = [{c: await _by_hand(engine, c) for c in CONCURRENCIES} for _ in range(TRIES)]
    return {c: min(times[c] for times in tries) for c in CONCURRENCIES}


def _cpu_s(node: OneNode) -> float:
    return cpu_s(node.server.process.pid) + cpu_s(node.agent.process.pid)


async def _by_hand(engine: Engine, concurrency: int) -> float:
    """Return the seconds from the first call to the last container's start."""
    began_s = time.time()
    async with asyncio.timeout(DEADLINE_S):
        await engine.run(concurrency)
    found = await engine.inspected()
    engine.check_same(found[0])
    taken_s = _last_start_s(found) - began_s
    await engine.remove_all()
    return taken_s


async def _by_wherry(node: OneNode, engine: Engine) -> Run:
    """Apply the service and delete it again."""
    async with engine.counting_starts() as all_started:
        began_s = time.time()
        await node.api.apply(service("sleepers", REPLICAS))
        async with asyncio.timeout(DEADLINE_S):
            await all_started.wait()
        await until_ready(node.api, "sleepers", REPLICAS)
        seen_s = time.time() - began_s
    found = await engine.inspected()
    engine.check_same(found[0])
    taken_s = _last_start_s(found) - began_s
    await node.api.call("DELETE", "/v1/workloads/default/service/sleepers")
    await wait_until(engine.count, DEADLINE_S, "all containers are removed", lambda count: count == 0)
    return Run(taken_s, seen_s)


def _last_start_s(found: list[Json]) -> float:
    """Return when the last container started. RuntimeError unless all run."""
    running = [container for container in found if container["State"]["Running"]]
    if len(running) != REPLICAS:
        raise RuntimeError(f"{len(running)} of {REPLICAS} containers run")
    return max(state_time_s(container, "StartedAt") for container in running)


def _body(cgroup_parent: str, number: int) -> Json:
    """Return what the agent sends for such a replica, labels and environment of the same size included."""
    labels = {f"wherry.{key}": secrets.token_hex(8) for key in ("cluster", "node", "allocation", "version", "attempt")}
    env = {f"WHERRY_{key}": str(number) for key in ("ALLOCATION", "ATTEMPT", "INDEX", "NAMESPACE", "NODE", "VERSION")}
    limits = Limits(cpu_m=DEFAULT_CPU_M, memory_bytes=DEFAULT_MEMORY_BYTES, pids=DEFAULT_PIDS)
    spec = ContainerSpec(
        name="",
        image=IMAGE,
        command=("sleep", "100000"),
        args=(),
        env=env,
        labels={**labels, "wherry.seal": secrets.token_hex(32)},
        limits=limits,
        host_network=True,
        cgroup_parent=cgroup_parent,
    )
    return to_create_body(spec)
