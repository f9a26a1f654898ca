"""The Docker Engine's API without anything between: the peer of what Wherry does with the same containers."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from agent.driver import ContainerSpec, Limits
from agent.drivers.docker_codec import to_create_body
from bench.rig import IMAGE, Json, OneNode, state_time_s
from manifests.containers import DEFAULT_CPU_M, DEFAULT_MEMORY_BYTES, DEFAULT_PIDS

API = "http://docker/v1.41"
_CONNECTIONS = 32
_REMOVALS = 4  # at once


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

    async def start_one(self, number: int) -> None:
        """Create and start a container as the agent makes them."""
        body = _body(self._node.host.work.path, number)
        created = await self.call("POST", "/containers/create", body, name=f"raw-{secrets.token_hex(4)}")
        await self.call("POST", f"/containers/{created['Id']}/start")

    async def run(self, count: int, concurrency: int) -> None:
        """Create and start so many containers, so many at a time."""
        left = list(range(count))

        async def work() -> None:
            while left:
                await self.start_one(left.pop())

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
    async def counting_starts(self, count: int) -> AsyncIterator[asyncio.Event]:
        """Yield an event that is set once the engine has told of so many starts: polling would load it."""
        all_started = asyncio.Event()
        filters = json.dumps({"type": ["container"], "event": ["start"]})
        timeout = aiohttp.ClientTimeout(total=None)
        async with (
            self._session.get(API + "/events", params={"filters": filters}, timeout=timeout) as answer,
            asyncio.TaskGroup() as tasks,
        ):
            task = tasks.create_task(_count(answer.content, count, all_started), name="count-starts")
            try:
                yield all_started
            finally:
                task.cancel()


@asynccontextmanager
async def engine_of(node: OneNode) -> AsyncIterator[Engine]:
    connector = aiohttp.UnixConnector(str(node.host.dockerd.socket), limit=_CONNECTIONS)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield Engine(node, session)


def last_start_s(found: Sequence[Json], count: int) -> float:
    """Return when the last container started. RuntimeError unless just so many run."""
    running = [container for container in found if container["State"]["Running"]]
    if len(running) != count:
        raise RuntimeError(f"{len(running)} of {count} containers run")
    return max(state_time_s(container, "StartedAt") for container in running)


async def _count(lines: aiohttp.StreamReader, count: int, all_started: asyncio.Event) -> None:
    for _ in range(count):
        await lines.readline()
    all_started.set()


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
