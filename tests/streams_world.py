"""A real server with an agent on a real dockerd or an oci driver, and the command line beside them, in one namespace.

async with streams_world(tmp_path) as world:
    allocation = await world.run(service)
    ended = await world.wherry("exec", allocation, "--", "true")
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from agent.driver import Driver
from agent.drivers.local_image import BUSYBOX_IMAGE
from agent.options import AgentOptions
from manifests.containers import PullPolicy
from tests.agents import in_network_namespace, running_agent
from tests.dockerd import dockerd
from tests.lab.waiting import wait_until
from tests.oci import oci_rig
from tests.scripted import Served, served
from wherry.client import Client

ROOT = Path(__file__).parents[1]
END_S = 60.0
IDLE = ["sh", "-c", "trap exit TERM; while true; do sleep 0.05; done"]


def service(name: str, *command: str, replicas: int = 1, **spec: Any) -> dict[str, Any]:
    """Return a manifest whose containers run that in sh, or wait."""
    what: dict[str, Any] = {"command": ["sh", "-c", *command] if command else IDLE, "image": BUSYBOX_IMAGE}
    body: dict[str, Any] = {"replicas": replicas, "update": {"minHealthyTime": "0s"}}
    body |= spec if "containers" in spec else {"stop": {"grace": "100ms"}} | what | spec
    return {"apiVersion": "wherry/v1", "kind": "Service", "metadata": {"name": name}, "spec": body}


@dataclass(frozen=True, slots=True)
class Ended:
    code: int
    out: bytes
    err: str


@dataclass(frozen=True, slots=True)
class World:
    client: Client
    urls: tuple[str, ...]
    token: str
    ends: tuple[Callable[[], Awaitable[None]], ...] = ()  # of each server

    @classmethod
    def of(cls, server: Served) -> "World":
        """Return a command line for a server."""
        token = server.admin["Authorization"].removeprefix("Bearer ")
        return cls(Client([server.url], token), (server.url,), token)

    def through(self, server: int) -> "World":
        """Return the same, with a command line that knows that server alone."""
        return replace(self, urls=(self.urls[server],))

    @property
    def environment(self) -> dict[str, str]:
        own = {"PYTHONPATH": str(ROOT), "WHERRY_SERVER": ",".join(self.urls), "WHERRY_TOKEN": self.token}
        return {**os.environ, **own}

    async def start(self, *words: str, **streams: Any) -> asyncio.subprocess.Process:
        """Start `wherry WORDS`; who does so ends it."""
        pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE}
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "wherry", *words), cwd=ROOT, env=self.environment, **{**pipes, **streams}
        )

    async def wherry(self, *words: str, given: bytes = b"") -> Ended:
        """Run `wherry WORDS` to its end."""
        process = await self.start(*words)
        try:
            async with asyncio.timeout(END_S):
                out, err = await process.communicate(given)
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        return Ended(process.returncode or 0, out, err.decode())

    async def run(self, *manifests: dict[str, Any]) -> list[str]:
        """Apply services and wait until they are well; return the ids of their allocations, by slot."""
        await self.client.apply(list(manifests))
        found: list[str] = []
        for manifest in manifests:
            name = manifest["metadata"]["name"]
            await wait_until(partial(self.client.workload, "default", "service", name), 60, "it is well", _well)
            items = (await self.client.list("allocations", name=name))["items"]
            found += [a["id"] for a in sorted(items, key=lambda a: a["index"]) if a["phase"] == "running"]
        return found


def _well(workload: dict[str, Any]) -> bool:
    return bool(workload["state"] == "healthy")


@asynccontextmanager
async def streams_world(folder: Path) -> AsyncIterator[World]:
    """On a dockerd of its own."""
    async with dockerd(folder) as daemon:
        with in_network_namespace(daemon.netns):
            async with _world(folder, f"{daemon.cgroup_parent}/n1", str(daemon.socket), None) as world:
                yield world


@asynccontextmanager
async def oci_streams_world(folder: Path, runtime: str = "", *, servers: int = 1) -> AsyncIterator[World]:
    """On the oci driver. The agent is with the first of the servers and knows no other."""
    async with oci_rig(runtime) as rig:
        driver = rig.driver()
        await driver.ensure_image(BUSYBOX_IMAGE, PullPolicy.IF_MISSING)
        with in_network_namespace(rig.netns):
            async with _world(folder, f"{rig.cgroup_parent}/n1", "", driver, servers=servers) as world:
                yield world


@asynccontextmanager
async def _world(
    folder: Path, cgroup_parent: str, socket: str, driver: Driver | None, *, servers: int = 1
) -> AsyncIterator[World]:
    data_dir = folder / "agent"
    await asyncio.to_thread(data_dir.mkdir)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(served(folder / "server"))
        others, ends = [], [stack.aclose]
        for number in range(2, servers + 1):
            own = await stack.enter_async_context(AsyncExitStack())
            other = served(folder / f"server-{number}", on=server.store, name=f"s{number}")
            others.append(await own.enter_async_context(other))
            ends.append(own.aclose)
        join, admin = (h["Authorization"].removeprefix("Bearer ") for h in (server.join, server.admin))
        options = AgentOptions(
            (server.url,),
            "n1",
            data_dir,
            docker_socket=socket,
            token=join,
            cpu_m=8000,
            publish_address="127.0.0.1",
            cgroup_parent=cgroup_parent,
        )
        async with running_agent(options, driver), Client([server.url], admin) as client:
            yield World(client, (server.url, *(other.url for other in others)), admin, tuple(ends))
