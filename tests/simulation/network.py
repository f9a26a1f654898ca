"""Simulated connections between agents and servers: in order and whole, as TCP's are, until they break.

A cut holds frames up, in one direction or both; they arrive when it heals, unless the connection broke meanwhile. A
process that dies closes its connections; a machine that dies says nothing.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from agent.transport import Channel
from manifests.errors import UnavailableError, WherryError
from manifests.session import FROM_AGENT, FROM_SERVER, FromAgent, FromServer, Heartbeat, HeartbeatAck, Hello, StreamData
from tests.simulation.crashes import effect
from tests.simulation.loop import Process, later

CONNECT_TIMEOUT_S = 5.0
Frame = TypeVar("Frame")
Serve: TypeAlias = Callable[["ServerEnd"], Awaitable[None]]


class Network:
    """Who can reach whom, and the connections that there are."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.most_delay_s = 0.01
        self.extra_delay_s: dict[str, float] = {}  # by host
        self.cuts: dict[tuple[str, str], None] = {}  # from, to
        self._listeners: dict[str, tuple[Process, Serve]] = {}
        self.connections: list[Connection] = []
        self.on_hello: Callable[[Hello], None] = lambda hello: None

    def delay_s(self, source: str, target: str) -> float:
        extra = max(self.extra_delay_s.get(source, 0.0), self.extra_delay_s.get(target, 0.0))
        return self.rng.random() * (self.most_delay_s + extra)

    def is_cut(self, source: str, target: str) -> bool:
        return (source, target) in self.cuts

    def cut(self, source: str, target: str) -> None:
        self.cuts[source, target] = None

    def heal(self, source: str, target: str) -> None:
        self.cuts.pop((source, target), None)
        for connection in self.connections:
            connection.poke()

    def heal_all(self) -> None:
        self.cuts.clear()
        self.extra_delay_s.clear()
        self.most_delay_s = 0.01
        for connection in self.connections:
            connection.poke()

    def listen(self, server: str, process: Process, serve: Serve) -> None:
        self._listeners[server] = (process, serve)

    def listener_of(self, server: str) -> tuple[Process, Serve] | None:
        found = self._listeners.get(server)
        return None if found is None or found[0].is_dead else found

    def stop_listening(self, server: str, process: Process) -> None:
        if server in self._listeners and self._listeners[server][0] is process:
            del self._listeners[server]

    def between(self, agent: str, server: str) -> "list[Connection]":
        return [c for c in self.connections if (c.agent, c.server) == (agent, server)]

    def of_host(self, name: str) -> "list[Connection]":
        return [c for c in self.connections if name in (c.agent, c.server)]


class Pipe(Generic[Frame]):
    """One direction of a connection."""

    def __init__(self, network: Network, source: str, target: str) -> None:
        self._network, self._source, self._target = network, source, target
        self._under_way: list[Frame | None] = []  # None: the end
        self._arrived: list[Frame] = []
        self._is_scheduled = False
        self._moved = asyncio.Event()
        self.has_ended = False  # the reader has come to the end, or will after what has arrived
        self.is_shut = False  # nothing more can be written
        self.is_void = False  # what is written is lost: the machine at the other end is off

    def write(self, frame: Frame | None) -> None:
        if self.is_shut:
            return
        if frame is None:
            self.is_shut = True
        if not self.is_void:
            self._under_way.append(frame)
            self.poke()

    def poke(self) -> None:
        if self._under_way and not self._is_scheduled and not self._network.is_cut(self._source, self._target):
            self._is_scheduled = True
            later(self._network.delay_s(self._source, self._target), self._deliver)

    def _deliver(self) -> None:
        self._is_scheduled = False
        if not self._under_way or self._network.is_cut(self._source, self._target):
            return
        frame = self._under_way.pop(0)
        if frame is None:
            self.end()
        else:
            self._arrived.append(frame)
            self._moved.set()
        self.poke()

    def end(self) -> None:
        """Nothing more comes; what was under way is lost."""
        self._under_way.clear()
        self.has_ended = self.is_shut = True
        self._moved.set()

    async def read(self) -> Frame | None:
        while not self._arrived:
            if self.has_ended:
                return None
            self._moved.clear()
            await self._moved.wait()
        return self._arrived.pop(0)


class Connection:
    """Both directions between one agent and one server."""

    def __init__(self, network: Network, agent: str, server: str) -> None:
        self.agent, self.server = agent, server
        self.network = network
        self.to_server: Pipe[bytes | Heartbeat | StreamData] = Pipe(network, agent, server)
        self.to_agent: Pipe[bytes | HeartbeatAck | StreamData] = Pipe(network, server, agent)
        self.serving: asyncio.Task[None] | None = None
        network.connections.append(self)

    def poke(self) -> None:
        self.to_server.poke()
        self.to_agent.poke()

    def shut(self, *, by_agent: bool) -> None:
        """One side has closed: it hears nothing any more, and the other side learns of it in time."""
        mine, theirs = (self.to_server, self.to_agent) if by_agent else (self.to_agent, self.to_server)
        mine.write(None)
        theirs.end()
        self._forget_if_over()

    def reset(self) -> None:
        """Break it for both sides at once, as a middle box does; what was under way is lost."""
        self.to_server.end()
        self.to_agent.end()
        self.abandon()
        self._forget_if_over()

    def abandon(self) -> None:
        """The server's handler ends when its connection is lost."""
        if self.serving is not None and not self.serving.done():
            self.serving.cancel()

    def vanish(self) -> None:
        """A machine has died: nothing comes from it and nothing reaches it, and nobody is told."""
        self.to_server.is_void = self.to_agent.is_void = True

    def _forget_if_over(self) -> None:
        if self.to_server.has_ended and self.to_agent.has_ended and self in self.network.connections:
            self.network.connections.remove(self)


class ServerEnd:
    """The server's Connection."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.on_heartbeat: Callable[[], None] = lambda: None

    async def send(self, frame: FromServer) -> None:
        await effect("frame", before=True)
        if self.connection.to_agent.is_shut:
            raise UnavailableError("the agent's connection is gone")
        if isinstance(frame, HeartbeatAck):
            self.on_heartbeat()
        self.connection.to_agent.write(frame if isinstance(frame, HeartbeatAck) else frame.to_bytes())
        await effect("frame", before=False)

    async def send_bytes(self, data: bytes) -> None:
        if self.connection.to_agent.is_shut:
            raise UnavailableError("the agent's connection is gone")
        self.connection.to_agent.write(StreamData.from_bytes(data))

    async def receive(self) -> FromAgent | StreamData | None:
        item = await self.connection.to_server.read()
        return FROM_AGENT.validate_json(item, extra="ignore") if isinstance(item, bytes) else item

    async def close(self) -> None:
        self.connection.shut(by_agent=False)


class _AgentEnd:
    """The agent's Channel."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    async def send(self, frame: FromAgent) -> None:
        await effect("frame", before=True)
        if isinstance(frame, Hello):
            self.connection.network.on_hello(frame)
        self._write(frame if isinstance(frame, Heartbeat) else frame.to_bytes())
        await effect("frame", before=False)

    async def send_bytes(self, data: bytes) -> None:
        self._write(StreamData.from_bytes(data))

    def _write(self, item: bytes | Heartbeat | StreamData) -> None:
        if self.connection.to_server.is_shut:
            raise UnavailableError("the session's connection is gone")
        self.connection.to_server.write(item)

    async def receive(self) -> FromServer | StreamData:
        item = await self.connection.to_agent.read()
        if item is None:
            raise UnavailableError("the server closed the session")
        return FROM_SERVER.validate_json(item, extra="ignore") if isinstance(item, bytes) else item


@dataclass(frozen=True, slots=True)
class SimTransport:
    """One agent's way to the servers, which are called by their names."""

    network: Network
    agent: str
    process: Process

    @asynccontextmanager
    async def connect(self, server: str) -> AsyncIterator[Channel]:
        connection = await self._dial(server)
        self.process.on_death.append(lambda: _die(connection, by_agent=True))
        try:
            yield _AgentEnd(connection)
        finally:
            connection.shut(by_agent=True)

    async def _dial(self, server: str) -> Connection:
        network = self.network
        answer: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()

        def arrive() -> None:
            if network.is_cut(self.agent, server) or network.is_cut(server, self.agent):
                return
            listener = network.listener_of(server)
            if listener is None:
                later(network.delay_s(server, self.agent), _settle, answer, None)
                return
            process, serve = listener
            process.spawn(_accept(network, process, serve, self.agent, server, answer), name=f"session of {self.agent}")

        later(network.delay_s(self.agent, server), arrive)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                return await answer
        except TimeoutError as late:
            raise UnavailableError(f"server {server} can't be reached") from late


async def _accept(
    network: Network, process: Process, serve: Serve, agent: str, server: str, answer: "asyncio.Future[Connection]"
) -> None:
    """Serve one connection, in the server's process."""
    if answer.done():
        return  # it gave up before this server came to look
    connection = Connection(network, agent, server)
    connection.serving = asyncio.current_task()
    process.on_death.append(lambda: _die(connection, by_agent=False))
    later(network.delay_s(server, agent), _settle, answer, connection)
    end = ServerEnd(connection)
    try:
        await serve(end)
    except WherryError:
        pass  # the web server says so in its log
    finally:
        await end.close()


def _settle(answer: "asyncio.Future[Connection]", connection: Connection | None) -> None:
    if answer.done():
        if connection is not None:
            connection.shut(by_agent=True)
    elif connection is None:
        answer.set_exception(UnavailableError("nobody listens there"))
    else:
        answer.set_result(connection)


def _die(connection: Connection, *, by_agent: bool) -> None:
    """The kernel of a dead process closes its connections; if their handler lives, it is cancelled."""
    connection.shut(by_agent=by_agent)
    if by_agent:
        later(0.01, connection.abandon)
