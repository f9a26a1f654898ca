"""A server in this process on the embedded store, and agents without containers that speak the session protocol."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from control_plane.server import ServerOptions, serve
from control_plane.store.open import open_store
from control_plane.store.protocol import Store
from foundation.clock import Clock, SystemClock
from manifests.allocations import AllocationStatus, Desired, Health, Phase, advance
from manifests.containers import NodeResources
from manifests.layers import Layer
from manifests.nodes import NodeFacts
from manifests.session import (
    FROM_SERVER,
    LOG_WINDOW_BYTES,
    Answer,
    Ask,
    Assigned,
    Assignments,
    Heartbeat,
    HeartbeatAck,
    Hello,
    MoreLogs,
    NodeReport,
    OpenLogs,
    Refused,
    Statuses,
    Welcome,
)
from manifests.stats import NodeStats
from tests.lab.waiting import wait_until


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Served:
    """A running server, and how to call it."""

    url: str
    data_dir: Path
    store: Store
    http: aiohttp.ClientSession

    @property
    def admin(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {(self.data_dir / 'admin.token').read_text().strip()}"}

    @property
    def join(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {(self.data_dir / 'join.token').read_text().strip()}"}

    async def call(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        async with self.http.request(method, self.url + path, json=body, headers={**self.admin, **headers}) as answer:
            return answer.status, await answer.json(content_type=None) if answer.status != 204 else None

    async def get(self, path: str) -> Any:
        status, body = await self.call("GET", path)
        assert status == 200, body
        return body

    async def allocations(self) -> list[dict[str, Any]]:
        return list((await self.get("/v1/allocations"))["items"])

    async def apply(self, *documents: dict[str, Any]) -> list[dict[str, Any]]:
        status, body = await self.call("POST", "/v1/apply", {"documents": list(documents)})
        assert status == 200, body
        return list(body["results"])

    async def until_state(self, path: str, state: str, deadline_s: float = 10) -> dict[str, Any]:
        """Wait until a workload or node is in that state, and return it."""

        async def read() -> dict[str, Any]:
            _, body = await self.call("GET", path)
            return dict(body)

        return await wait_until(
            read, deadline_s=deadline_s, describe=f"{path} to be {state}", done=lambda v: v.get("state") == state
        )


@asynccontextmanager
async def served(
    data_dir: Path,
    *,
    store: str = "",
    on: Store | None = None,
    name: str = "s1",
    lost_after_s: float = 1.5,
    clock: Clock | None = None,
) -> AsyncIterator[Served]:
    """Run a server until the block ends; `on`: a store that another one has opened."""
    port = free_port()
    chosen = ServerOptions(
        store=store or f"sqlite:{data_dir / 'store.db'}",
        port=port,
        data_dir=data_dir,
        name=name,
        heartbeat_s=0.3,
        lost_after_s=lost_after_s,
    )
    await asyncio.to_thread(data_dir.mkdir, parents=True, exist_ok=True)
    clock, rng = clock or SystemClock(), random.Random(name)
    opened = on or await open_store(chosen.store, clock=clock, rng=rng)
    async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as tasks:
        task = tasks.create_task(serve(chosen, opened, clock, rng), name="server")
        server = Served(chosen.url, data_dir, opened, http)
        try:
            await wait_until(lambda: _answers(server, task), deadline_s=10, describe="the server to answer")
            yield server
        finally:
            task.cancel()
            await asyncio.wait([task])
            if on is None:
                await opened.close()


async def _answers(server: Served, task: "asyncio.Task[None]") -> bool:
    if task.done():
        task.result()
    try:
        async with server.http.get(server.url + "/v1/health") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


def facts(
    name: str, *, agent_id: str = "", boot: str = "boot", memory: str = "1Gi", cpu: str = "2", **labels: str
) -> NodeFacts:
    room = NodeResources.model_validate({"cpu": cpu, "memory": memory, "pids": 1000})
    return NodeFacts(
        name=name,
        agent_id=agent_id or f"agent-of-{name}",
        boot_id=boot,
        agent_version="0",
        address="127.0.0.1",
        labels=labels,
        capacity=room,
        allocatable=room,
    )


@dataclass
class ScriptedAgent:
    """An agent that says of each allocation what it is told to say: by default that it runs, and stops when asked."""

    server: Served
    facts: NodeFacts
    answer: Phase = Phase.RUNNING
    assigned: dict[str, Assigned] = field(default_factory=dict)
    statuses: dict[str, AllocationStatus] = field(default_factory=dict)
    welcome: Welcome | None = None
    refused: Refused | None = None
    full: Assignments | None = None  # the last full ones
    is_silent: bool = False  # connected, but sends nothing: as if frozen
    is_mute: bool = False  # alive, but says nothing of its allocations
    opened_logs: list[OpenLogs] = field(default_factory=list)
    log_lines: int = 0  # how many numbers its log holds; 0: one line of text
    most_unread_bytes: int = 0
    hello: dict[str, Any] = field(default_factory=dict)  # what it says beside its facts and statuses
    stats: NodeStats | None = None  # what it answers; it must say in `hello` that it does
    layers: tuple[Layer, ...] | None = None
    withdrawn: set[str] = field(default_factory=set)
    has_ended: asyncio.Event = field(default_factory=asyncio.Event)  # the server has closed the session
    _room: asyncio.Condition = field(default_factory=asyncio.Condition)
    _unread_bytes: int = 0
    _sequence: int = 0

    async def run(self) -> None:
        """Stay connected until the server closes the session."""
        url = self.server.url + "/v1/session"
        async with self.server.http.ws_connect(url, headers=self.server.join) as self._socket:
            await self._send(Hello(facts=self.facts, statuses=tuple(self.statuses.values()), **self.hello))
            async with asyncio.TaskGroup() as self._tasks:
                beats = self._tasks.create_task(self._beat(), name="beat")
                async for message in self._socket:
                    if message.type is aiohttp.WSMsgType.TEXT:
                        await self._take(FROM_SERVER.validate_json(message.data))
                beats.cancel()
        self.has_ended.set()

    async def answered(self) -> Welcome | Refused | None:
        return self.welcome or self.refused

    async def full_assignments(self) -> Assignments | None:
        return self.full

    async def _beat(self) -> None:
        while True:
            self._sequence += 1
            if not self.is_silent:
                await self._send(Heartbeat(sequence=self._sequence))
            await asyncio.sleep(0.3)

    async def _send(self, frame: Hello | Heartbeat | NodeReport | Statuses | Answer) -> None:
        await self._socket.send_str(frame.to_bytes().decode())

    async def _take(self, frame: object) -> None:
        match frame:
            case Welcome():
                self.welcome = frame
            case Refused():
                self.refused = frame
            case Assignments():
                await self._obey(frame)
            case OpenLogs():
                self.opened_logs.append(frame)
                self._tasks.create_task(self._send_logs(frame.stream), name="logs")
            case MoreLogs():
                async with self._room:
                    self._unread_bytes -= frame.count
                    self._room.notify_all()
            case Ask(what="layers"):
                await self._send(Answer(number=frame.number, layers=self.layers))
            case Ask():
                await self._send(Answer(number=frame.number, stats=self.stats))
            case HeartbeatAck():
                pass

    async def _send_logs(self, stream: int) -> None:
        """Send the log line by line, never more than the reader has room for."""
        head = stream.to_bytes(4, "big") + b"\x01"
        for line in [b"%d\n" % n for n in range(self.log_lines)] or [b"hello from the container\n"]:
            async with self._room:
                await self._room.wait_for(lambda: self._unread_bytes < LOG_WINDOW_BYTES)
                self._unread_bytes += len(line)
                self.most_unread_bytes = max(self.most_unread_bytes, self._unread_bytes)
            await self._socket.send_bytes(head + line)
        await self._socket.send_str(f'{{"type": "logsEnded", "stream": {stream}}}')

    async def _obey(self, frame: Assignments) -> None:
        if frame.is_full:
            self.full = frame
            self.assigned.clear()
        for assigned in frame.assigned:
            self.assigned[assigned.allocation.id] = assigned
        self.withdrawn.update(frame.withdrawn)
        for gone in frame.withdrawn:
            self.assigned.pop(gone, None)
            self.statuses.pop(gone, None)
        await self.say()

    async def report(self, trouble: str) -> None:
        await self._send(NodeReport(facts=self.facts, trouble=trouble))

    async def say(self) -> None:
        """Tell the server how each assigned allocation is."""
        for id_, assigned in self.assigned.items():
            self.statuses[id_] = self._status(assigned, self.statuses.get(id_))
        if not self.is_silent and not self.is_mute:
            self._sequence += 1
            await self._send(Statuses(sequence=self._sequence, statuses=tuple(self.statuses.values())))

    def _status(self, assigned: Assigned, before: AllocationStatus | None) -> AllocationStatus:
        a = assigned.allocation
        if before is not None and before.is_terminal:
            return before
        phase = Phase.STOPPED if a.desired is Desired.STOP else self.answer
        status = AllocationStatus(
            id=a.id, node=a.node, workload=a.workload, version=a.version, index=a.index, phase=Phase.STARTING
        )
        return advance(status, phase, health=Health.HEALTHY if phase is Phase.RUNNING else Health.UNKNOWN)


@asynccontextmanager
async def connected(server: Served, *agents: ScriptedAgent) -> AsyncIterator[None]:
    """Keep the agents connected for as long as the block runs."""
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(agent.run(), name=f"agent-{agent.facts.name}") for agent in agents]
        for agent in agents:
            await wait_until(agent.answered, deadline_s=10, describe=f"{agent.facts.name} to be welcome")
        yield
        for task in running:
            task.cancel()


def manifest(kind: str = "Service", name: str = "web", **spec: Any) -> dict[str, Any]:
    """Return a manifest; a service whose allocations count as available at once, unless told otherwise."""
    if kind == "Service":
        spec["update"] = {"minHealthyTime": "0s", **spec.get("update", {})}
    return {
        "apiVersion": "wherry/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": {"image": "wherry/busybox:1", "command": ["sleep", "1000"], **spec},
    }
