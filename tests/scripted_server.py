"""A server for an agent under test: speaks the whole session protocol and desires what the test tells it to.

It is the agent's peer, without a store or a leader: `run`, `stop_allocation` and `withdraw` change what is desired.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiohttp import WSMsgType, web

from manifests.allocations import Allocation, AllocationStatus, Desired, HostPort, Phase
from manifests.reasons import Choice
from manifests.session import (
    FROM_AGENT,
    Assigned,
    Assignments,
    CloseStream,
    FromServer,
    Heartbeat,
    HeartbeatAck,
    Hello,
    LogsEnded,
    MoreLogs,
    NodeReport,
    OpenLogs,
    Refused,
    Statuses,
    StatusesAck,
    Welcome,
)
from manifests.workloads import WORKLOAD, Kind, WorkloadRef

DEADLINE_S = 30.0
IMAGE = "wherry/busybox:1"
SLEEP = ["sleep", "1000"]


def assigned(
    allocation: str,
    *,
    kind: str = "Service",
    desired: Desired = Desired.RUN,
    ports: tuple[HostPort, ...] = (),
    node: str = "n1",
    created_s: float = 0.0,
    content: dict[str, str] | None = None,
    **spec: Any,
) -> Assigned:
    """Return a desired allocation of a workload with that spec; by default busybox, asleep."""
    document = {
        "apiVersion": "wherry/v1",
        "kind": kind,
        "metadata": {"name": "web"},
        "spec": {"image": IMAGE, "command": SLEEP, "resources": {"cpu": "200m", "memory": "16Mi"}, **spec},
    }
    workload = WORKLOAD.validate_python(document)
    return Assigned(
        allocation=Allocation(
            id=allocation,
            workload=WorkloadRef(namespace="default", kind=Kind(kind), name="web", uid="u1"),
            version=1,
            index=0,
            node=node,
            desired=desired,
            reserved=workload.spec.reservation(),
            ports=ports,
            why=Choice(0.0, ()),
            created_s=created_s,
        ),
        workload=workload,
        configs=content or {},
    )


def grouped(*containers: dict[str, Any], inits: tuple[str | dict[str, Any], ...] = (), **given: Any) -> Assigned:
    """Return a desired allocation of a group; init containers may be given by name."""
    init_containers = [{"name": init, "image": IMAGE} if isinstance(init, str) else init for init in inits]
    alone: dict[str, Any] = {"image": "", "command": [], "resources": {}}
    return assigned("web-0-a", **alone, containers=list(containers), initContainers=init_containers, **given)


class ScriptedServer:
    """Start it with `serve`. `statuses` is the newest of each allocation, `history` all that ever came."""

    def __init__(self, *, cluster: str = "c1c1c1c1c1c1", heartbeat_s: float = 0.3) -> None:
        self.cluster = cluster
        self.heartbeat_s = heartbeat_s
        self.desired: dict[str, Assigned] = {}
        self.revision = 1
        self.generation = 1
        self.statuses: dict[str, AllocationStatus] = {}
        self.history: list[AllocationStatus] = []
        self.forgotten: set[str] = set()
        self.hellos: list[Hello] = []
        self.reports: list[NodeReport] = []
        self.frames = 0
        self.logs: dict[int, bytes] = {}
        self.logs_ended: dict[int, str] = {}
        self.is_deaf = False  # answers nothing, as when one direction is cut
        self.is_unwelcoming = False  # turns every agent away, as if the server were gone
        self.is_refusing = False  # says to every agent that another one is the node
        self.refused = 0
        self.holds_assignments = False
        self._socket: web.WebSocketResponse | None = None
        self._changed = asyncio.Condition()
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @asynccontextmanager
    async def serve(self) -> AsyncIterator["ScriptedServer"]:
        """Listen, on the same port each time."""
        application = web.Application()
        application.router.add_get("/v1/session", self._session)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", self._port)
            await site.start()
            self._port = runner.addresses[0][1]
            yield self
        finally:
            await self.drop()
            await runner.cleanup()

    async def drop(self) -> None:
        """Cut the session that is open."""
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close()

    # What is desired.

    async def run(self, *wanted: Assigned) -> None:
        self.desired |= {a.allocation.id: a for a in wanted}
        await self._tell(assigned=wanted)

    async def stop_allocation(self, allocation: str) -> None:
        old = self.desired[allocation]
        await self.run(
            old.model_copy(update={"allocation": old.allocation.model_copy(update={"desired": Desired.STOP})})
        )

    async def restore(self, *wanted: Assigned) -> None:
        """Begin a new generation, in which only that is known, and drop the session."""
        self.generation += 1
        self.revision = 1
        self.desired = {one.allocation.id: one for one in wanted}
        await self.drop()

    async def withdraw(self, *allocations: str) -> None:
        for allocation in allocations:
            self.desired.pop(allocation, None)
        await self._tell(withdrawn=allocations)

    async def send(self, frame: FromServer) -> None:
        if self._socket is not None:
            with suppress(ConnectionError):  # the agent is dead; its next one hears all of it anew
                await self._socket.send_str(frame.to_bytes().decode())

    async def send_all(self) -> None:
        """Say everything that is desired."""
        await self.send(Assignments(revision=self.revision, is_full=True, assigned=tuple(self.desired.values())))

    async def cut_off(self) -> None:
        """Break the session and take no new one until `is_unwelcoming` is False again."""
        self.is_unwelcoming = True
        await self.drop()

    async def _tell(self, *, assigned: tuple[Assigned, ...] = (), withdrawn: tuple[str, ...] = ()) -> None:
        self.revision += 1
        await self.send(Assignments(revision=self.revision, is_full=False, assigned=assigned, withdrawn=withdrawn))

    async def open_logs(
        self, stream: int, allocation: str, *, container: str = "", follow: bool = False, tail: int | None = None
    ) -> None:
        self.logs[stream] = b""
        await self.send(OpenLogs(stream=stream, allocation=allocation, container=container, follow=follow, tail=tail))

    async def close_stream(self, stream: int) -> None:
        await self.send(CloseStream(stream=stream))

    # What is waited for.

    async def until(self, holds: Callable[[], bool], *, within_s: float = DEADLINE_S, what: str = "") -> None:
        try:
            async with asyncio.timeout(within_s), self._changed:
                await self._changed.wait_for(holds)
        except TimeoutError:
            seen = {s.id: (s.phase.value, s.health.value, s.message) for s in self.statuses.values()}
            raise AssertionError(f"not within {within_s} s: {what}; statuses are {seen}") from None

    async def until_phase(
        self, allocation: str, phase: Phase, *, attempt: int | None = None, within_s: float = DEADLINE_S
    ) -> AllocationStatus:
        def holds() -> bool:
            status = self.statuses.get(allocation)
            return status is not None and status.phase is phase and attempt in (None, status.attempt)

        await self.until(holds, within_s=within_s, what=f"{allocation} is {phase}")
        return self.statuses[allocation]

    async def until_ready(self, allocation: str) -> None:
        def holds() -> bool:
            status = self.statuses.get(allocation)
            return status is not None and status.is_ready

        await self.until(holds, what=f"{allocation} is ready")

    async def until_hello(self, count: int) -> Hello:
        await self.until(lambda: len(self.hellos) >= count, what=f"{count} hellos")
        return self.hellos[-1]

    async def until_refused(self, count: int) -> None:
        await self.until(lambda: self.refused >= count, what=f"{count} agents were refused")

    async def until_forgotten(self, allocation: str) -> None:
        await self.until(lambda: allocation in self.forgotten, what=f"{allocation} is forgotten")

    # The protocol.

    async def _session(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(timeout=0.2)
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.BINARY:
                stream = int.from_bytes(message.data[:4], "big")
                self.logs[stream] += message.data[5:]
                await self.send(MoreLogs(stream=stream, count=len(message.data) - 5))
            elif message.type is WSMsgType.TEXT:
                await self._handle(message.data, socket)
            async with self._changed:
                self._changed.notify_all()
        return socket

    async def _handle(self, text: str, socket: web.WebSocketResponse) -> None:
        self.frames += 1
        match FROM_AGENT.validate_json(text):
            case Hello() if self.is_unwelcoming:
                await socket.close()
            case Hello() if self.is_refusing:
                self.refused += 1
                await socket.send_str(Refused(what="another agent is this node").to_bytes().decode())
            case Hello() as hello:
                self._socket = socket
                await self._welcome(hello)
            case NodeReport() as report:
                self.reports.append(report)
            case Heartbeat(sequence=sequence):
                if not self.is_deaf:
                    await self.send(HeartbeatAck(sequence=sequence))
            case Statuses() as frame:
                self._take(frame.statuses)
                self.forgotten |= set(frame.forgotten)
                await self.send(StatusesAck(sequence=frame.sequence))
            case LogsEnded(stream=stream, error=error):
                self.logs_ended[stream] = error

    async def _welcome(self, hello: Hello) -> None:
        self.hellos.append(hello)
        self._take(hello.statuses)
        await self.send(
            Welcome(
                cluster=self.cluster,
                server="s1",
                session=len(self.hellos),
                generation=self.generation,
                heartbeat_s=self.heartbeat_s,
                lost_after_s=5.0,
            )
        )
        if not self.holds_assignments:
            await self.send_all()

    def _take(self, statuses: tuple[AllocationStatus, ...]) -> None:
        self.statuses |= {status.id: status for status in statuses}
        self.history += statuses
