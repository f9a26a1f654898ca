"""A whole cluster of real servers and agents in simulated processes, on simulated machines."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from agent.agent import Agent
from agent.options import AgentOptions
from agent.state_file import ID_FILE
from control_plane import keys
from control_plane.bootstrap import ensure_cluster
from control_plane.controllers.bursts import MOST_PER_PASS
from control_plane.core import Core, assemble
from manifests.containers import NodeResources
from manifests.errors import WherryError
from manifests.nodes import NodeStatus
from tests.simulation.driver import OrderObserver, SimDriver
from tests.simulation.etcd import Etcd, Link, Store
from tests.simulation.guard import SimGuard
from tests.simulation.hosts import Host, SimFolder, SimMachine
from tests.simulation.loop import Process, SimLoop
from tests.simulation.network import Network, ServerEnd, SimTransport
from tests.simulation.runtime import Runtime

T = TypeVar("T")
HEARTBEAT_S, LOST_AFTER_S = 1.0, 5.0
RESTART_S = 1.0  # after which a supervisor starts again what ended by itself
IMAGE = "wherry/busybox:1"
NODE_SIZE = NodeResources.of(cpu_m=4_000, memory_bytes=4 * 2**30, pids=4_000, disk_bytes=100 * 2**30)


@dataclass(eq=False, slots=True)
class ServerHost:
    """One server, over all its lives."""

    host: Host
    link: Link
    process: Process | None = None
    core: Core | None = None
    main: "asyncio.Task[None] | None" = None
    lives: int = 0

    @property
    def name(self) -> str:
        return self.host.name

    @property
    def is_up(self) -> bool:
        return self.process is not None and not self.process.is_dead and not self.process.is_frozen


@dataclass(eq=False, slots=True)
class NodeHost:
    """One node: its container manager and disk, and its agent over all its lives."""

    host: Host
    machine: SimMachine
    runtime: Runtime
    folder: SimFolder
    guard: SimGuard
    process: Process | None = None
    agent: Agent | None = None
    main: "asyncio.Task[None] | None" = None
    lives: int = 0
    has_amnesia: bool = False  # its agent has forgotten something, as it must when its disk did or it was rebooted
    misled_life: int = 0

    @property
    def name(self) -> str:
        return self.host.name

    @property
    def is_misled(self) -> bool:
        """Say whether its disk has lost what it had promised to keep, so that this agent believes what is long over."""
        return self.lives == self.misled_life

    def take_amnesia(self) -> bool:
        """Say whether it has forgotten something since this was last asked."""
        has_amnesia, self.has_amnesia = self.has_amnesia, False
        return has_amnesia


PORTIONS = (2, MOST_PER_PASS)  # no service here is large: in half of the histories even a small one is a burst


@dataclass(eq=False, slots=True)
class Cluster:
    """Begin with `start_all`. `crashes` is what ended by itself and should not have."""

    loop: SimLoop
    seed: str
    etcd: Etcd
    network: Network
    portion: int = MOST_PER_PASS  # of a workload, in a pass
    servers: dict[str, ServerHost] = field(default_factory=dict)
    nodes: dict[str, NodeHost] = field(default_factory=dict)
    crashes: list[str] = field(default_factory=list)
    heard: dict[str, list[float]] = field(default_factory=dict)  # by node: when a server that is a member heard it
    note: Callable[..., None] = lambda *_: None
    woke_s: dict[str, float] = field(default_factory=dict)  # by host: when it last woke up from a long sleep
    undoing: dict[int, Callable[[], object]] = field(default_factory=dict)  # what will end faults that have begun
    unreadable: set[str] = field(default_factory=set)  # keys of what was planted in the store
    _undos: int = 0
    on_order: OrderObserver = lambda kind, node, box: None

    @classmethod
    def make(cls, loop: SimLoop, seed: str, *, servers: int = 3, nodes: int = 5) -> "Cluster":
        etcd = Etcd()
        portion = random.Random(f"{seed}/portion").choice(PORTIONS)
        cluster = cls(loop, seed, etcd, Network(random.Random(f"{seed}/network")), portion)
        for number in range(1, servers + 1):
            host = Host(f"s{number}", origin_s=number * 1_000.0)
            cluster.servers[host.name] = ServerHost(host, Link(etcd, random.Random(f"{seed}/link/{host.name}")))
        for number in range(1, nodes + 1):
            host = Host(f"n{number}", origin_s=number * 777.0)
            runtime = Runtime(host.name, host, random.Random(f"{seed}/runtime/{host.name}"), {IMAGE: {}})
            folder = SimFolder(host.name, {ID_FILE: f"agent-of-{host.name}\n".encode()})
            guard = SimGuard(loop, host, runtime)
            cluster.nodes[host.name] = NodeHost(host, SimMachine(host, NODE_SIZE), runtime, folder, guard)
        return cluster

    def start_all(self) -> None:
        for server in self.servers.values():
            self.start_server(server)
        for node in self.nodes.values():
            self.start_agent(node)

    def world_task(self, work: Coroutine[Any, Any, T], *, name: str) -> "asyncio.Task[T]":
        """Run something outside of all processes."""
        return self.loop.world.spawn(work, name=name)

    def undo_later(self, delay_s: float, undo: Callable[..., object], *args: Any) -> None:
        """End a fault after that time, or when all is healed."""
        number = self._undos = self._undos + 1
        self.undoing[number] = lambda: undo(*args)
        self.loop.in_world(delay_s, self._undo, number)

    def undo_all(self) -> None:
        for number in list(self.undoing):
            self._undo(number)

    def _undo(self, number: int) -> None:
        if (undo := self.undoing.pop(number, None)) is not None:
            undo()

    # Servers.

    def start_server(self, server: ServerHost) -> None:
        """Begin a new life of the server, unless it lives."""
        if server.process is not None and not server.process.is_dead:
            return
        server.lives += 1
        process = server.process = Process(self.loop, f"{server.name}.{server.lives}")
        server.core = None
        self.note("server started", process.name)
        server.main = process.spawn(self._serve(server, process), name=process.name)
        self._supervise(process, server.main, lambda: self.start_server(server))

    async def _serve(self, server: ServerHost, process: Process) -> None:
        rng = random.Random(f"{self.seed}/{process.name}")
        store = Store(self.etcd, server.link, rng, name=server.name)
        process.on_death.append(lambda: self.network.stop_listening(server.name, process))
        await ensure_cluster(store, server.host, rng)
        core = assemble(
            store,
            server.host,
            rng,
            name=server.name,
            url=f"http://{server.name}",
            heartbeat_s=HEARTBEAT_S,
            lost_after_s=LOST_AFTER_S,
            portion=self.portion,
        )
        server.core = core
        store.seen = lambda: core.state.revision
        try:
            async with core.running():
                self.network.listen(server.name, process, lambda end: self._serve_session(server, core, end))
                try:
                    await asyncio.Event().wait()
                finally:
                    self.network.stop_listening(server.name, process)
                    await core.registry.close()
        finally:
            server.core = None
            await store.close()

    async def _serve_session(self, server: ServerHost, core: Core, end: ServerEnd) -> None:
        def hear() -> None:
            record = self.etcd.get(keys.NODES + end.connection.agent)
            is_ours = record is not None and NodeStatus.read(record.value).server == core.server.id
            if is_ours and self.etcd.get(keys.SERVERS + core.server.id) is not None:
                self.heard.setdefault(end.connection.agent, []).append(self.loop.time())

        end.on_heartbeat = hear
        await core.sessions.serve(end)

    # Agents.

    def start_agent(self, node: NodeHost) -> None:
        if node.process is not None and not node.process.is_dead:
            return
        node.lives += 1
        process = node.process = Process(self.loop, f"{node.name}.{node.lives}")
        self.note("agent started", process.name)
        node.main = process.spawn(self._run_agent(node, process), name=process.name)
        self._supervise(process, node.main, lambda: self.start_agent(node))

    async def _run_agent(self, node: NodeHost, process: Process) -> None:
        options = AgentOptions(tuple(self.servers), node.name, Path("/var/lib/wherry/agent"))
        node.agent = Agent(
            options,
            driver=SimDriver(node.runtime, on_order=lambda *order: self.on_order(*order)),
            transport=SimTransport(self.network, node.name, process),
            folder=node.folder,
            machine=node.machine,
            clock=node.host,
            rng=random.Random(f"{self.seed}/{process.name}"),
            guard=node.guard,
        )
        await node.agent.run()

    def _supervise(self, process: Process, main: "asyncio.Task[None]", restart: Callable[[], None]) -> None:
        """Start again what ended by itself. With an error that isn't foreseen it should not have."""

        def judge() -> None:
            if process.is_dead:
                return
            process.kill()
            error = None if main.cancelled() else main.exception()
            if error is not None and not _is_foreseen(error):
                self.crashes.append(f"{process.name} ended: {_text(error)}")
            self.note("process ended", process.name, type(error).__name__)
            self.loop.in_world(RESTART_S, restart)

        main.add_done_callback(lambda _: self.loop.in_world(0.0, judge))


def _is_foreseen(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_is_foreseen(part) for part in error.exceptions)
    return isinstance(error, WherryError)


def _text(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(_text(part) for part in error.exceptions)
    return f"{type(error).__name__}: {error}"
