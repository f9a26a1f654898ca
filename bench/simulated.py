"""Simulated agents: the real session protocol over real WebSockets, with scripted answers and no containers.

`python -m bench.simulated URL TOKEN_FILE FIRST COUNT` is a process with the agents of the nodes sim-FIRST and so on. It
prints its counts as JSON, a line each time that they have changed; `simulated_agents` starts some and adds up.
An agent says of each allocation that it runs, and once it is asked to stop that it has, as a very fast node would.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from agent.transport import Channel, WebSocketTransport
from manifests.allocations import AllocationStatus, Desired, Health, Phase
from manifests.containers import UNCOUNTED_BYTES, NodeResources
from manifests.errors import WherryError
from manifests.nodes import NodeFacts
from manifests.session import (
    Assigned,
    Assignments,
    FromServer,
    Heartbeat,
    HeartbeatAck,
    Hello,
    Statuses,
    StatusesAck,
    StreamData,
    Welcome,
)
from tests.lab.host import environment
from wherry.client import Client

AT_ONCE = 50  # connections that one process opens at a time
TELL_EVERY_S = 0.1
FLUSH_S = 0.05  # as the real agent: statuses that change within this travel together
RETRY_S = 1.0
ROOM = NodeResources.of(cpu_m=4000, memory_bytes=8 * 2**30, pids=4096, disk_bytes=UNCOUNTED_BYTES)


@dataclass(slots=True)
class Counts:
    """What all agents of a process, or of several, have seen."""

    registered: int = 0  # have a welcome and their assignments now
    sessions: int = 0  # welcomes ever
    assigned: int = 0  # allocations that they are to run now
    acknowledged: int = 0  # those of which the server has stored that they run
    answered: int = 0  # heartbeats ever

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(slots=True)
class SimulatedAgent:
    """One node's agent, which connects again whenever it is disconnected."""

    name: str
    counts: Counts
    _assigned: dict[str, Assigned] = field(default_factory=dict)
    _running: set[str] = field(default_factory=set)  # as far as the server has acknowledged
    _has_news: asyncio.Event = field(default_factory=asyncio.Event)
    _told: dict[int, frozenset[str]] = field(default_factory=dict)  # what runs by a frame that isn't acknowledged yet
    _is_registered: bool = False
    _sequence: int = 0

    async def run(self, transport: WebSocketTransport, url: str, gate: asyncio.Semaphore) -> None:
        """Hold a session for ever."""
        while True:
            try:
                await self._session(transport, url, gate)
            except* WherryError:
                pass
            if self._is_registered:
                self._is_registered = False
                self.counts.registered -= 1
            await asyncio.sleep(RETRY_S)

    async def _session(self, transport: WebSocketTransport, url: str, gate: asyncio.Semaphore) -> None:
        await gate.acquire()
        try:
            async with transport.connect(url) as channel:
                await channel.send(Hello(facts=_facts(self.name), statuses=self._statuses()))
                welcome = await channel.receive()
                if not isinstance(welcome, Welcome):
                    return
                gate.release()
                gate = asyncio.Semaphore(0)
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._beat(channel, welcome.heartbeat_s), name=f"beat-{self.name}")
                    tasks.create_task(self._report(channel), name=f"report-{self.name}")
                    while True:
                        frame = await channel.receive()
                        if not isinstance(frame, StreamData):
                            self._take(frame)
        finally:
            gate.release()

    def _take(self, frame: FromServer) -> None:
        match frame:
            case HeartbeatAck():
                self.counts.answered += 1
            case Assignments():
                self._assign(frame)
            case StatusesAck(sequence=sequence):
                self._set_running(self._told.pop(sequence, frozenset(self._running)))

    def _assign(self, frame: Assignments) -> None:
        before = len(self._assigned)
        if frame.is_full:
            self._assigned.clear()
        self._assigned.update((a.allocation.id, a) for a in frame.assigned)
        for gone in frame.withdrawn:
            self._assigned.pop(gone, None)
        self.counts.assigned += len(self._assigned) - before
        if not self._is_registered:
            self._is_registered = True
            self.counts.registered += 1
            self.counts.sessions += 1
        if frame.assigned or frame.withdrawn:
            self._has_news.set()

    def _set_running(self, running: frozenset[str]) -> None:
        self.counts.acknowledged += len(running) - len(self._running)
        self._running = set(running)

    async def _beat(self, channel: Channel, every_s: float) -> None:
        number = 0
        while True:
            number += 1
            await channel.send(Heartbeat(sequence=number))
            await asyncio.sleep(every_s)

    async def _report(self, channel: Channel) -> None:
        while True:
            await self._has_news.wait()
            await asyncio.sleep(FLUSH_S)
            self._has_news.clear()
            self._sequence += 1
            statuses = self._statuses()
            self._told[self._sequence] = frozenset(s.id for s in statuses if s.phase is Phase.RUNNING)
            await channel.send(Statuses(sequence=self._sequence, statuses=statuses))

    def _statuses(self) -> tuple[AllocationStatus, ...]:
        return tuple(map(_status, self._assigned.values()))


def _status(assigned: Assigned) -> AllocationStatus:
    a = assigned.allocation
    runs = a.desired is Desired.RUN
    return AllocationStatus(
        id=a.id,
        node=a.node,
        workload=a.workload,
        version=a.version,
        index=a.index,
        phase=Phase.RUNNING if runs else Phase.STOPPED,
        health=Health.HEALTHY if runs else Health.UNKNOWN,
        container_id=f"container-of-{a.id}",
    )


def _facts(name: str) -> NodeFacts:
    return NodeFacts(
        name=name,
        agent_id=f"agent-of-{name}",
        boot_id="simulated",
        agent_version="0",
        address="127.0.0.1",
        attributes={"driver": "none", "os": "linux"},
        capacity=ROOM,
        allocatable=ROOM,
    )


class SimulatedAgents:
    """Processes full of them."""

    def __init__(self) -> None:
        self._by_process: dict[int, Counts] = {}

    @property
    def counts(self) -> Counts:
        return sum(self._by_process.values(), Counts())

    async def read_counts(self) -> Counts:
        return self.counts

    async def follow(self, number: int, lines: asyncio.StreamReader) -> None:
        async for line in lines:
            self._by_process[number] = Counts(**json.loads(line))


@asynccontextmanager
async def simulated_agents(url: str, token_file: Path, count: int, *, processes: int) -> AsyncIterator[SimulatedAgents]:
    """Run so many agents for the block, in so many processes."""
    agents, each = SimulatedAgents(), count // processes
    started: list[asyncio.subprocess.Process] = []
    async with asyncio.TaskGroup() as tasks:
        try:
            for number in range(processes):
                words = ("-m", "bench.simulated", url, str(token_file), str(number * each), str(each))
                process = await asyncio.create_subprocess_exec(
                    sys.executable, *words, stdout=asyncio.subprocess.PIPE, env=environment()
                )
                assert process.stdout
                started.append(process)
                tasks.create_task(agents.follow(number, process.stdout), name=f"counts-{number}")
            yield agents
        finally:
            for process in started:
                with suppress(ProcessLookupError):
                    process.kill()
    for process in started:
        await process.wait()


async def _main(url: str, token: str, first: int, count: int) -> None:
    counts, gate = Counts(), asyncio.Semaphore(AT_ONCE)
    async with Client([url], token) as client, asyncio.TaskGroup() as tasks:
        transport = WebSocketTransport(client)
        for number in range(first, first + count):
            agent = SimulatedAgent(f"sim-{number}", counts)
            tasks.create_task(agent.run(transport, url, gate), name=agent.name)
        said = Counts()
        while True:
            await asyncio.sleep(TELL_EVERY_S)
            if counts != said:
                said = Counts() + counts
                print(json.dumps(asdict(said)), flush=True)


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], Path(sys.argv[2]).read_text().strip(), int(sys.argv[3]), int(sys.argv[4])))
