"""Serves one agent's connection from its Hello to its end: frames in, frames out.

Three tasks: one reads and acknowledges heartbeats, one sends assignments as they change, one stores statuses.
"""

import asyncio
import contextlib

from control_plane import keys
from control_plane.attached_streams import AttachedStreams
from control_plane.log_streams import LogStreams
from control_plane.questions import Questions
from control_plane.session_writes import StatusWriter
from control_plane.sessions import Connection, LiveSession, SessionRegistry
from control_plane.state import Batch, ClusterState, ObjectChange
from foundation.clock import Clock
from foundation.logs import Log
from foundation.tasks import TaskGroup
from manifests.allocations import Allocation, AllocationStatus, Health
from manifests.errors import ConflictError, DriverError, InvalidError, UnavailableError, WherryError
from manifests.session import (
    Answer,
    Assigned,
    Assignments,
    FromAgent,
    Heartbeat,
    HeartbeatAck,
    Hello,
    LogsEnded,
    MoreInput,
    NodeReport,
    Offer,
    Refused,
    Statuses,
    StatusesAck,
    StreamData,
    StreamEnded,
)
from manifests.status import WorkloadStatus
from manifests.workloads import VersionRecord

log = Log(__name__)

HELLO_TIMEOUT_S = 10.0
RETRY_S = 0.5


class SessionHandler:
    """Makes what every connection needs; `serve` handles one."""

    def __init__(self, state: ClusterState, registry: SessionRegistry, writer: StatusWriter, clock: Clock) -> None:
        self._state, self._registry, self._writer, self._clock = state, registry, writer, clock
        self._served: dict[str, ServedSession] = {}
        state.subscribe(self._on_batch)

    def _on_batch(self, batch: Batch) -> None:
        """Tell each session of its own node's allocations; to ask every session would cost each its share of all."""
        for change in batch.changes:
            if change.table == "cluster":
                for each in self._served.values():
                    each.wake()
            elif change.table == "workloadStatus":
                self._note_pinned(change)
            elif served := self._served.get(_node_of(change)):
                served.note(change)

    def _note_pinned(self, change: ObjectChange) -> None:
        """Tell agents of the digests that were found for what they run."""
        old, new = change.old, change.new
        before = old.pinned if isinstance(old, WorkloadStatus) else {}
        if not isinstance(new, WorkloadStatus) or new.pinned == before:
            return
        for allocation in self._state.allocations_of(change.id):
            is_news = new.pinned.get(allocation.version) != before.get(allocation.version)
            if is_news and (served := self._served.get(allocation.node)):
                served.look_again(allocation.id)

    def of_node(self, node: str) -> "ServedSession | None":
        """Return the node's session if it is served here now."""
        return self._served.get(node)

    def movable(self) -> list[str]:
        """Return the nodes whose agents know other servers, and from which nobody reads just now."""
        return sorted(node for node, served in self._served.items() if served.servers > 1 and served.is_idle)

    async def send_on(self, node: str) -> None:
        """Let the node's agent go on to another server."""
        if (served := self._served.get(node)) is not None:
            await served.connection.close()

    async def serve(self, connection: Connection) -> None:
        """Serve until the connection ends or the session is over."""
        try:
            hello = await self._hello(connection)
            session = await self._registry.register(hello, connection)
        except WherryError as error:
            # While the store is away every agent asks again and again: that it is away was said once.
            say = log.debug if isinstance(error, UnavailableError) else log.warning
            say("agent refused", why=f"{error.what}: {error.why}")
            with contextlib.suppress(UnavailableError):
                await connection.send(Refused(what=error.what, why=error.why, fix=error.fix))
            return
        served = ServedSession(session, connection, self._state, self._registry, self._writer, self._clock)
        self._served[session.node] = served
        try:
            await served.run(hello)
        finally:
            self._registry.disconnected(session)
            served.logs.end_all(f"node {session.node} lost its connection")
            served.attached.end_all(f"node {session.node} lost its connection")
            served.questions.end_all(f"node {session.node} lost its connection")
            if self._served.get(session.node) is served:
                del self._served[session.node]

    @staticmethod
    async def _hello(connection: Connection) -> Hello:
        try:
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                frame = await connection.receive()
        except TimeoutError:
            frame = None
        if not isinstance(frame, Hello):
            raise InvalidError("the session began without a hello", fix="Run the same version of Wherry on both.")
        return frame


class ServedSession:
    """One agent that is connected now."""

    def __init__(
        self,
        session: LiveSession,
        connection: Connection,
        state: ClusterState,
        registry: SessionRegistry,
        writer: StatusWriter,
        clock: Clock,
    ) -> None:
        self.session, self.connection, self.logs = session, connection, LogStreams()
        self.attached = AttachedStreams(self.logs)
        self.questions = Questions(session.node, connection)
        self.servers = 1  # that the agent knows
        self._offers: frozenset[str] = frozenset()  # what the agent understands
        self._generation = 0  # of the store: the one in which the agent was welcome
        self._state, self._registry, self._writer, self._clock = state, registry, writer, clock
        self._changed: set[str] = set()  # allocations of which the agent must hear
        self._has_changed = asyncio.Event()
        self._statuses: dict[str, AllocationStatus] = {}  # the newest of each that is not stored yet
        self._report: NodeReport | None = None  # the newest that is not stored yet
        self._sequence = 0  # of the last Statuses that came
        self._has_statuses = asyncio.Event()

    async def run(self, hello: Hello) -> None:
        self.servers, self._offers = hello.servers, frozenset(hello.offers)
        self.questions.answered = frozenset(hello.answers)
        if self.session.is_reboot:
            self._take_statuses(doubted(self._state, self.session.node, hello), 0)
        self._take_statuses(hello.statuses, 0)
        welcome = self._registry.welcome(self.session)
        self._generation = welcome.generation
        try:
            await self.connection.send(welcome)
            async with TaskGroup() as tasks:
                others = [
                    tasks.create_task(self._send_assignments(), name=f"assignments-{self.session.node}"),
                    tasks.create_task(self._store_statuses(), name=f"statuses-{self.session.node}"),
                ]
                await self._read()
                for task in others:
                    task.cancel()
        except* UnavailableError:
            log.info("agent disconnected", node=self.session.node, session=self.session.number)
        except* ConflictError as group:
            log.info("session ended", node=self.session.node, why=str(group.exceptions[0]))

    @property
    def is_idle(self) -> bool:
        return self.logs.is_idle and self.attached.is_idle

    def require(self, offer: Offer, what: str) -> None:
        """Raises DriverError if this agent is too old to be asked for it."""
        if offer not in self._offers:
            raise DriverError(
                f"node {self.session.node} can't {what}",
                why="its agent is of an older version, which doesn't know how",
                fix="Upgrade the agent: its containers go on running meanwhile.",
            )

    async def _read(self) -> None:
        """Take frames until the connection is closed."""
        while (frame := await self.connection.receive()) is not None:
            await self._registry.heard(self.session)
            await self._handle(frame)
        log.info("agent disconnected", node=self.session.node, session=self.session.number)

    async def _handle(self, frame: FromAgent | StreamData) -> None:
        match frame:
            case Heartbeat(sequence=sequence):
                if self._registry.may_acknowledge(self.session):
                    await self.connection.send(HeartbeatAck(sequence=sequence))
            case Statuses():
                self._take_statuses(frame.statuses, frame.sequence)
            case NodeReport():
                self._report = frame
                self._has_statuses.set()
            case StreamData():
                self.logs.feed(frame.stream, frame.data)
                self.attached.feed(frame)
            case LogsEnded():
                self.logs.end(frame.stream, frame.error, frame.status)
            case MoreInput():
                self.attached.grant(frame)
            case StreamEnded():
                self.attached.end(frame)
            case Answer():
                self.questions.take(frame)
            case Hello():
                raise ConflictError("the agent said hello twice")

    def _take_statuses(self, statuses: tuple[AllocationStatus, ...], sequence: int) -> None:
        self._statuses.update((s.id, s) for s in statuses)
        self._sequence = max(self._sequence, sequence)
        self._has_statuses.set()

    async def _store_statuses(self) -> None:
        """Store what came, newest of each, and acknowledge it; what can't be stored now is tried again."""
        acknowledged = 0
        while True:
            await self._has_statuses.wait()
            self._has_statuses.clear()
            statuses, sequence = dict(self._statuses), self._sequence
            try:
                await self._store_report()
                await self._writer.write(self.session, statuses.values())
            except UnavailableError:
                await self._clock.sleep(RETRY_S)
                self._has_statuses.set()
                continue
            for allocation, status in statuses.items():
                if self._statuses.get(allocation) is status:
                    del self._statuses[allocation]
            if sequence > acknowledged:
                acknowledged = sequence
                await self.connection.send(StatusesAck(sequence=sequence))

    async def _store_report(self) -> None:
        """Store the node's newest report, in turn with the statuses: both compare where the node's record stands."""
        if self._report is not None:
            report, self._report = self._report, None
            try:
                await self._registry.report(self.session, report)
            except UnavailableError:
                self._report = self._report or report
                raise

    def note(self, change: ObjectChange) -> None:
        """Take in that something of this node has changed."""
        self._changed |= {change.id} if change.table == "allocation" else self._released()
        self.wake()

    def look_again(self, allocation: str) -> None:
        """Take in that something has changed of what the allocation is an instance of."""
        self._changed.add(allocation)
        self.wake()

    def wake(self) -> None:
        """Have it look at what has changed."""
        self._has_changed.set()

    async def _send_assignments(self) -> None:
        """Send everything once, then what changes, always as of the cache's present revision.

        Raises ConflictError once a new generation of the store has begun: an agent enters it with a new session.
        """
        self._changed.clear()
        await self.connection.send(self._assignments(None))
        while True:
            await self._has_changed.wait()
            self._has_changed.clear()
            if self._state.generation != self._generation:
                raise ConflictError("a new generation of the store has begun")
            changed, self._changed = self._changed, set()
            if changed:
                await self.connection.send(self._assignments(changed))

    def _assignments(self, changed: set[str] | None) -> Assignments:
        node = self.session.node
        wanted = self._state.allocations_on(node)
        if changed is not None:
            wanted = [a for a in wanted if a.id in changed]
        present = {a.id for a in wanted}
        assigned = tuple(assigned for a in wanted if (assigned := self._assigned(a)))
        told = {a.allocation.id for a in assigned}
        return Assignments(
            revision=self._state.revision,
            is_full=changed is None,
            assigned=assigned,
            withdrawn=tuple(sorted(changed - present if changed else self._released())),
            untold=tuple(sorted((present - told) | self._unreadable())) if changed is None else (),
        )

    def _released(self) -> set[str]:
        """Return what the node keeps from before a restore, once an operator has said that it may go."""
        node, intent = self._state.nodes.get(self.session.node), self._state.intents.get(self.session.node)
        if node is None or intent is None or intent.released < self._state.generation:
            return set()
        return {kept.id for kept in node.kept if kept.id not in self._state.allocations}

    def _unreadable(self) -> set[str]:
        """Return the node's allocations whose records are there and can't be read: no reason to stop them."""
        prefix = keys.ALLOCATIONS + self.session.node + "/"
        return {key.removeprefix(prefix) for key in self._state.quarantined if key.startswith(prefix)}

    def _assigned(self, allocation: Allocation) -> Assigned | None:
        version = self._state.versions.get(keys.version_id(keys.id_of_ref(allocation.workload), allocation.version))
        if version is None:
            log.error("an allocation's version is missing", allocation=allocation.id, version=allocation.version)
            return None
        configs = self._configs_of(version)
        if missing := [name for name, data in configs.items() if data is None]:
            log.error("the content of configs is missing", allocation=allocation.id, configs=missing)
            return None
        known = {name: data for name, data in configs.items() if data is not None}
        status = self._state.statuses.get(allocation.id)
        ended = status if status and status.is_terminal else None
        stored = self._state.allocations.stored(allocation.id)
        fence = stored.created_at if stored else 0
        return Assigned(
            allocation=allocation,
            workload=version.workload,
            configs=known,
            images=self._pinned(allocation),
            ended=ended,
            fence=fence,
        )

    def _pinned(self, allocation: Allocation) -> dict[str, str]:
        """Return the digests that the leader has recorded for the images of the allocation's version."""
        said = self._state.workload_statuses.get(keys.id_of_ref(allocation.workload))
        return said.pinned.get(allocation.version, {}) if said and said.ref.uid == allocation.workload.uid else {}

    def _configs_of(self, version: VersionRecord) -> dict[str, str | None]:
        """Return the contents that the version of a workload is to have of its configs; None for what isn't there."""
        namespace = version.workload.metadata.namespace
        contents: dict[str, str | None] = {}
        for name in sorted(version.workload.spec.all_configs()):
            id_ = keys.config_version_id(keys.config_id(namespace, name), version.configs.get(name, 0))
            content = self._state.config_versions.get(id_)
            contents[name] = content.data if content else None
        return contents


def _node_of(change: ObjectChange) -> str:
    """Return the node whose agent must hear of the change, or nothing."""
    known = change.new or change.old
    if isinstance(known, Allocation):
        return known.node
    return change.id if change.table == "intent" else ""


def doubted(state: ClusterState, node: str, hello: Hello) -> tuple[AllocationStatus, ...]:
    """Return the statuses of which a node says nothing after a reboot: what ran then is gone, for all that is known.

    So they aren't ready. Its agent says soon what became of them, and until then nothing else is concluded.
    """
    told = {s.id for s in hello.statuses}
    known = (state.statuses.get(a.id) for a in state.allocations_on(node) if a.id not in told)
    message = f"node {node} was rebooted, and its agent has not said yet what became of it"
    return tuple(
        s.model_copy(update={"health": Health.UNKNOWN, "message": message}) for s in known if s and not s.is_terminal
    )
