"""The agent's one session: with any server, again with the next one when it breaks.

A lost session changes nothing on the node: only explicit assignments of the agent's own cluster are orders.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, assert_never

from agent.answers import Answers
from agent.attached_streams import AttachedStreams
from agent.driver import Driver
from agent.glass import Glass
from agent.log_streams import LogStreams
from agent.node import Node
from agent.node_news import NodeNews
from agent.outbox import Outbox
from agent.transport import Channel, Transport
from foundation.backoff import Backoff
from foundation.clock import Clock
from foundation.logs import Log
from foundation.tasks import TaskGroup
from manifests.errors import ConflictError, UnavailableError, WherryError
from manifests.nodes import NodeFacts
from manifests.session import (
    Ask,
    Assignments,
    CloseStream,
    FromServer,
    Heartbeat,
    HeartbeatAck,
    Hello,
    InputEnded,
    MoreLogs,
    NodeReport,
    Offer,
    OpenExec,
    OpenFiles,
    OpenForward,
    OpenLogs,
    Refused,
    RemoveVolume,
    Resize,
    StatusesAck,
    StreamData,
    Welcome,
)

RETRY = Backoff(0.3, 2.0)  # with jitter, so that a server's end isn't a stampede on the next
WELCOME_TIMEOUT_S = 10.0
UNHEARD_S = 20.0  # without any answer: after a reboot, containers start without a word then
SILENCE_SHARE = 0.5  # of the time after which the node would be lost: the rest is for finding another server
FIRST_LOOK_S = 3.0
FLUSH_S = 0.05  # statuses that change within this travel together
_log = Log(__name__)


@dataclass(frozen=True, slots=True)
class SessionParts:
    """What a session works with."""

    node: Node
    outbox: Outbox
    driver: Driver
    facts: Callable[[], NodeFacts]  # as of now
    news: NodeNews
    clock: Clock
    rng: random.Random
    cluster: Callable[[], str]  # the cluster that the agent is pinned to, "" on its first day
    pin: Callable[[str], Awaitable[None]]  # writes it down before any order is obeyed
    save: Callable[[], Awaitable[None]]  # writes down endings before a server hears of them
    remove_volume: Callable[[str], Coroutine[Any, Any, None]]
    heard: Callable[[float], None]  # a server has answered what was sent then, on the clock of the boot
    glass: Glass | None = None  # what it may be asked about, None: nothing


class Session:
    def __init__(self, servers: tuple[str, ...], transport: Transport, parts: SessionParts) -> None:
        self._servers = servers
        self._transport = transport
        self._parts = parts
        self._sequence = 0
        self._acked = 0
        self._sent_s: dict[int, float] = {}  # when each heartbeat was sent that isn't answered yet
        self._is_welcome = False
        self._was_welcome = False  # ever
        self._answered_s = parts.clock.now_s()  # when a server last refused it, or when it began

    async def run(self) -> None:
        """Hold a session for as long as the agent lives."""
        await self._look_first()
        failures = 0
        turn = self._parts.rng.randrange(len(self._servers))
        while True:
            server = self._servers[turn % len(self._servers)]
            self._is_welcome = False
            try:
                await self._serve(server)
            except* WherryError as group:
                failures = 1 if self._is_welcome else failures + 1
                if failures <= 1 or failures % 20 == 0:
                    _log.warning("session was lost", server=server, failures=failures, why=str(_first(group)))
            turn += 1
            await self._parts.clock.sleep(self._pause_s(failures))

    async def stays_unheard(self) -> bool:
        """Return True once no server has answered for long, and False once one has welcomed this agent.

        One that refuses it has answered: it is there, and may know a twin of this agent.
        """
        while not self._was_welcome:
            left_s = self._answered_s + UNHEARD_S - self._parts.clock.now_s()
            if left_s <= 0:
                return True
            await self._parts.clock.sleep(left_s)
        return False

    def _pause_s(self, failures: int) -> float:
        """Return how long to wait: a moment before the next server, longer once all were tried in vain.

        Were each of three dead servers worth a long pause, the one that is back first would call the node lost.
        """
        rounds, rest = divmod(failures, len(self._servers))
        return RETRY.delay_s(1 if rest else rounds, self._parts.rng)

    async def _look_first(self) -> None:
        """Let the first Hello tell what runs now, not what was on disk; but a manager that hangs holds up nothing."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_LOOK_S):
                await self._parts.node.has_looked.wait()

    async def _serve(self, server: str) -> None:
        async with self._transport.connect(server) as channel:
            welcome = await self._introduce(channel)
            self._is_welcome = self._was_welcome = True
            _log.info("session opened", server=welcome.server, session=welcome.session)
            self._sequence = self._acked = 0
            self._sent_s.clear()
            async with TaskGroup() as tasks:
                streams = LogStreams(self._parts.driver, channel, tasks)
                attached = AttachedStreams(self._parts.driver, channel, tasks)
                answers = Answers(self._parts.glass, channel, tasks)
                tasks.create_task(self._receive(channel, streams, attached, answers, tasks), name="session-receive")
                tasks.create_task(self._beat(channel, welcome), name="session-heartbeat")
                tasks.create_task(self._send_statuses(channel), name="session-statuses")
                tasks.create_task(self._send_reports(channel), name="session-reports")

    async def _introduce(self, channel: Channel) -> Welcome:
        """Say what is here, and return the welcome. Raises ConflictError when the server is of another cluster."""
        parts = self._parts
        await parts.save()
        parts.node.begin_session()
        parts.outbox.begin_session()
        hello = Hello(
            cluster=parts.cluster(),
            facts=parts.facts(),
            statuses=tuple(group.status for group in parts.node.groups.values()),
            applied_revision=parts.node.applied_revision,
            generation=parts.node.generation,
            kept=parts.node.kept,
            trouble=parts.news.trouble,
            servers=len(self._servers),
            offers=tuple(Offer),
            answers=parts.glass.answers if parts.glass else (),
        )
        sent_s = parts.clock.boot_s()
        await channel.send(hello)
        try:
            async with asyncio.timeout(WELCOME_TIMEOUT_S):
                answer = await channel.receive()
        except TimeoutError as error:
            raise UnavailableError("the server didn't welcome this agent in time") from error
        if isinstance(answer, Refused):
            self._answered_s = parts.clock.now_s()
            raise ConflictError(answer.what, why=answer.why, fix=answer.fix)
        if not isinstance(answer, Welcome):
            raise UnavailableError("the server began with something else than a welcome")
        if parts.cluster() not in ("", answer.cluster):
            raise ConflictError(
                f"server {answer.server} is of another cluster",
                why=f"this agent belongs to {parts.cluster()}, the server to {answer.cluster}",
                fix="Check the agent's servers; to move the node for good, give it an empty data folder.",
            )
        if 0 < answer.generation < parts.node.generation:
            raise UnavailableError(
                f"server {answer.server} is of an older generation of the store",
                why=f"it obeys generation {answer.generation}, and this agent {parts.node.generation}",
            )
        await parts.pin(answer.cluster)
        parts.node.begin_generation(answer.generation)
        parts.heard(sent_s)
        return answer

    async def _receive(
        self, channel: Channel, streams: LogStreams, attached: AttachedStreams, answers: Answers, tasks: TaskGroup
    ) -> None:
        while True:
            self._handle(await channel.receive(), streams, attached, answers, tasks)

    def _handle(
        self,
        frame: FromServer | StreamData,
        streams: LogStreams,
        attached: AttachedStreams,
        answers: Answers,
        tasks: TaskGroup,
    ) -> None:
        match frame:
            case HeartbeatAck(sequence=sequence):
                self._acked = max(self._acked, sequence)
                self._note_answered(sequence)
            case StatusesAck(sequence=sequence):
                self._parts.outbox.acknowledge(sequence)
            case Assignments():
                self._parts.node.assign(frame)
            case OpenLogs():
                streams.open(frame, self._parts.node.groups.get(frame.allocation))
            case MoreLogs() as more:
                streams.grant(more)
                attached.grant(more)
            case CloseStream(stream=stream):
                streams.close(stream)
                attached.close(stream)
            case RemoveVolume(volume=volume):
                tasks.create_task(self._parts.remove_volume(volume), name=f"remove volume {volume}")
            case Ask():
                answers.take(frame)
            case Welcome() | Refused():
                raise UnavailableError(f"the server sent {frame.type} in the middle of a session")
            case OpenExec() | OpenFiles() | OpenForward():
                attached.open(frame, self._parts.node.groups.get(frame.allocation))
            case StreamData() | Resize() | InputEnded():
                attached.take(frame)
            case _:
                assert_never(frame)

    def _note_answered(self, sequence: int) -> None:
        """A heartbeat counts from when it was sent: that was before any server heard it."""
        if (sent_s := self._sent_s.get(sequence)) is not None:
            self._parts.heard(sent_s)
        self._sent_s = {number: at for number, at in self._sent_s.items() if number > sequence}

    async def _beat(self, channel: Channel, welcome: Welcome) -> None:
        """Send heartbeats; give the session up when their answers stay away, as when one direction is cut."""
        while True:
            missed = self._sequence - self._acked
            silent_s = (missed + 1) * welcome.heartbeat_s  # since it sent the last one that was answered
            if missed >= 2 and silent_s > welcome.lost_after_s * SILENCE_SHARE:
                raise UnavailableError(f"the server answered none of the last {missed} heartbeats")
            self._sequence += 1
            self._sent_s[self._sequence] = self._parts.clock.boot_s()
            await channel.send(Heartbeat(sequence=self._sequence))
            await self._parts.clock.sleep(welcome.heartbeat_s)

    async def _send_statuses(self, channel: Channel) -> None:
        outbox = self._parts.outbox
        while True:
            await outbox.wait_for_work()
            await self._parts.clock.sleep(FLUSH_S)
            if outbox.has_terminal:
                await self._parts.save()
            await channel.send(await outbox.next_frame())

    async def _send_reports(self, channel: Channel) -> None:
        """Tell when something about the node itself has changed; the Hello told the rest."""
        news = self._parts.news
        while True:
            await news.has_changed.wait()
            news.has_changed.clear()
            kept = self._parts.node.kept
            await channel.send(NodeReport(facts=self._parts.facts(), trouble=news.trouble, kept=kept))


def _first(group: BaseExceptionGroup[WherryError]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
