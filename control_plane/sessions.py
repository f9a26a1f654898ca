"""Agents' sessions on this server: registration, heartbeats, assignments out, statuses in, and who has fallen silent.

It knows frames, the cache and the store, and nothing of HTTP: a `Connection` brings and takes frames. Heartbeats live
in memory. The store is written when a session opens, when a status changes, and when a node is lost.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from control_plane import keys
from control_plane.controllers.orphans import STALLED_S, lost_status
from control_plane.snapshots import begin_generation
from control_plane.state import ClusterState
from control_plane.store.protocol import ABSENT, ModifiedAt, Put, Revision, Store, Txn
from foundation.clock import Clock
from foundation.logs import Log
from foundation.tasks import TaskGroup
from manifests.errors import ConflictError, UnavailableError
from manifests.nodes import Liveness, NodeStatus
from manifests.session import PROTOCOL, FromAgent, FromServer, Hello, NodeReport, Welcome

log = Log(__name__)

CHECK_EVERY_S = 0.25
REGISTER_TRIES = 5
CHECK_STORE_S = 0.05
SEND_AWAY_AFTER_S = 2.0  # a lease that is only lost is replaced at once


@dataclass(frozen=True, slots=True)
class LogData:
    """A binary frame: what a container wrote, for one stream."""

    stream: int
    data: bytes


class Connection(Protocol):
    """One agent's connection, whatever carries it."""

    async def send(self, frame: FromServer) -> None:
        """Raises UnavailableError once the connection is closed."""
        ...

    async def receive(self) -> FromAgent | LogData | None:
        """Return the next frame, or None once the connection is closed."""
        ...

    async def close(self) -> None: ...


@dataclass(slots=True)
class LiveSession:
    """A node's session on this server. It stays here, silent, after its connection broke, until lost or replaced."""

    node: str
    agent_id: str
    number: int
    registered_at: Revision  # the node's status was written there; only while it stands may this session write
    heard_at_s: float
    connection: Connection | None
    is_over: bool = (
        False  # it was silent for too long: no heartbeat of it counts any more, whatever becomes of the node
    )


class SessionRegistry:
    """The sessions that this server holds or last held, by node."""

    def __init__(
        self,
        store: Store,
        state: ClusterState,
        clock: Clock,
        *,
        server_id: str,
        heartbeat_s: float,
        lost_after_s: float,
        has_store: Callable[[], bool],
    ) -> None:
        self._store, self._state, self._clock = store, state, clock
        self._server_id, self.heartbeat_s, self.lost_after_s = server_id, heartbeat_s, lost_after_s
        self._has_store = has_store
        self._cut_off_since: float | None = None
        self._sessions: dict[str, LiveSession] = {}

    def of_node(self, node: str) -> LiveSession | None:
        """Return the node's session if it is connected here."""
        session = self._sessions.get(node)
        return session if session and session.connection else None

    def welcome(self, session: LiveSession) -> Welcome:
        cluster = self._state.cluster.get("")
        return Welcome(
            cluster=cluster.id if cluster else "",
            server=self._server_id,
            session=session.number,
            generation=self._state.generation,
            heartbeat_s=self.heartbeat_s,
            lost_after_s=self.lost_after_s,
        )

    async def register(self, hello: Hello, connection: Connection) -> LiveSession:
        """Write that the node is here, and return its session. Raises ConflictError or UnavailableError in words."""
        self._check_hello(hello)
        await self._await_store()
        await self._await_news_of(hello)
        name = hello.facts.name
        for _ in range(REGISTER_TRIES):
            self._check_identity(hello)
            old = self._state.nodes.get(name)
            status = NodeStatus(
                facts=hello.facts,
                liveness=Liveness.READY,
                server=self._server_id,
                session=old.session + 1 if old else 1,
                trouble=hello.trouble,
                kept=hello.kept,
                changed_s=self._clock.wall_s(),
            )
            unchanged = ModifiedAt(keys.NODES + name, await self._modified_at(name))
            try:
                revision = await self._store.commit(Txn((unchanged,), (Put(keys.NODES + name, status.to_bytes()),)))
            except ConflictError:
                await self._clock.sleep(0.05)
                continue
            await self._state.wait_for(revision)
            return await self._adopt(hello, status, revision, connection)
        raise UnavailableError(f"node {name} can't be registered", why="its record keeps changing", fix="Try again.")

    async def _await_news_of(self, hello: Hello) -> None:
        """Return once this server knows as much as the agent obeys already. Raises UnavailableError if it doesn't.

        An agent that has seen a revision which the store itself hasn't is the proof that the store has gone back.
        """
        ours = self._state.generation
        if hello.generation > ours:
            raise UnavailableError(
                f"this server has not seen generation {hello.generation} of the store",
                why=f"it knows generation {ours}",
                fix="Another server will do; if none does, the store is an older one than this agent's.",
            )
        if hello.generation < ours and (hello.generation or ours > 1):
            return  # revisions of an earlier generation mean nothing now
        try:
            await self._state.wait_for(hello.applied_revision)
        except UnavailableError:
            renewed = await begin_generation(self._store, Revision(hello.applied_revision))
            if renewed is None:
                raise
            log.error("the store has gone back in time", seen=hello.applied_revision, by=hello.facts.name)

    async def _modified_at(self, node: str) -> Revision:
        """Return where the node's record stands; one that can't be read is known by the store alone, and mended now."""
        if self._state.is_unreadable(keys.NODES + node):
            entry = await self._store.get(keys.NODES + node)
            return entry.mod_revision if entry else ABSENT
        return self._state.nodes.modified_at(node)

    async def report(self, session: LiveSession, report: NodeReport) -> None:
        """Write what has changed about the node. Raises ConflictError if it has a newer session."""
        old = self._state.nodes.get(session.node)
        news = {"facts": report.facts, "trouble": report.trouble, "kept": report.kept}
        if old is None or all(getattr(old, name) == value for name, value in news.items()):
            return
        new = old.model_copy(update={**news, "changed_s": self._clock.wall_s()})
        unchanged = ModifiedAt(keys.NODES + session.node, session.registered_at)
        put = Put(keys.NODES + session.node, new.to_bytes())
        session.registered_at = await self._store.commit(Txn((unchanged,), (put,)))

    async def _adopt(self, hello: Hello, status: NodeStatus, revision: Revision, connection: Connection) -> LiveSession:
        former = self._sessions.get(hello.facts.name)
        session = LiveSession(
            hello.facts.name, hello.facts.agent_id, status.session, revision, self._clock.now_s(), connection
        )
        self._sessions[session.node] = session
        log.info("node registered", node=session.node, session=session.number, revision=revision)
        if former and former.connection:
            await former.connection.close()
        return session

    def _check_hello(self, hello: Hello) -> None:
        cluster = self._state.cluster.get("")
        if hello.protocol != PROTOCOL:
            raise ConflictError(
                f"node {hello.facts.name} speaks session protocol {hello.protocol}, and this server {PROTOCOL}",
                fix="Run the same version of Wherry on both.",
            )
        if cluster and hello.cluster not in ("", cluster.id):
            raise ConflictError(
                f"node {hello.facts.name} belongs to another cluster",
                why=f"it joined cluster {hello.cluster}, and this is {cluster.id}",
                fix="To move it, stop its agent, remove its containers and its data folder, and join it anew.",
            )

    def _check_identity(self, hello: Hello) -> None:
        """Refuse a second agent that calls itself by the name of one that is alive."""
        name, agent_id = hello.facts.name, hello.facts.agent_id
        here = self._sessions.get(name)
        if here is not None and here.agent_id != agent_id and self._is_fresh(here):
            raise self._twin(name, agent_id, here.agent_id)
        known = self._state.nodes.get(name)
        elsewhere = known and known.server != self._server_id and known.server in self._state.servers
        if known and elsewhere and known.liveness is Liveness.READY and known.facts.agent_id != agent_id:
            raise self._twin(name, agent_id, known.facts.agent_id)

    @staticmethod
    def _twin(name: str, newcomer: str, known: str) -> ConflictError:
        return ConflictError(
            f"another agent is node {name} already",
            why=f"agent {known} holds that name and is alive; this one is agent {newcomer}",
            fix="Give this one another --name; if it was cloned, remove its data folder first.",
        )

    def _is_fresh(self, session: LiveSession) -> bool:
        return self._clock.now_s() - session.heard_at_s < self.lost_after_s

    def heard(self, session: LiveSession) -> None:
        if not session.is_over:
            session.heard_at_s = self._clock.now_s()

    def acknowledges(self, session: LiveSession) -> bool:
        """Say whether a heartbeat is acknowledged: only by a server that others know, before the node is called lost.

        An agent lets go on what must never run twice for as long as it is acknowledged.
        """
        return self._has_store() and not session.is_over and self.is_current(session)

    def disconnected(self, session: LiveSession) -> None:
        """The connection is gone; the node may come back in time, here or elsewhere."""
        session.connection = None

    def is_current(self, session: LiveSession) -> bool:
        return self._sessions.get(session.node) is session

    async def watch_silence(self) -> None:
        """Mark nodes lost that have been silent for too long, until cancelled."""
        checked_at = self._clock.now_s()
        while True:
            await self._clock.sleep(CHECK_EVERY_S)
            now = self._clock.now_s()
            if now - checked_at > STALLED_S:
                log.warning("this server stalled, and judges no node by that time", seconds=round(now - checked_at, 1))
                self._forgive(now)
            checked_at = now
            for session in [s for s in self._sessions.values() if not self._is_fresh(s)]:
                await self._lose(session)

    async def watch_store(self) -> None:
        """Judge nobody while the store is gone; after a while end all sessions, until cancelled.

        For want of this server's lease, the leader would soon call the nodes lost that stay here.
        """
        while True:
            await self._clock.sleep(CHECK_EVERY_S)
            now = self._clock.now_s()
            if self._has_store():
                self._cut_off_since = None
                continue
            self._forgive(now)
            if self._cut_off_since is None:
                self._cut_off_since = now
            if self._is_cut_off() and any(s.connection for s in self._sessions.values()):
                log.warning("agents were sent elsewhere, as this server has lost the store")
                await self.close()

    def _is_cut_off(self) -> bool:
        """Say whether the store is gone for more than the moment in which a lost lease is replaced."""
        since = self._cut_off_since
        return since is not None and self._clock.now_s() - since >= SEND_AWAY_AFTER_S

    async def _await_store(self) -> None:
        """Return once this server has the store: soon after its start. Raises UnavailableError if it is cut off."""
        while not self._has_store():
            if self._is_cut_off():
                raise UnavailableError("this server has lost the store", fix="Another server will do.")
            await self._clock.sleep(CHECK_STORE_S)

    def _forgive(self, now_s: float) -> None:
        """What this server didn't hear while it slept or had lost the store is no one's silence: time begins anew.

        An agent that was turned away meanwhile, for want of the store, needs that time to come back.
        """
        for session in self._sessions.values():
            session.heard_at_s = now_s

    async def _lose(self, session: LiveSession) -> None:
        status = self._state.nodes.get(session.node)
        if status is None or status.session != session.number or status.liveness is Liveness.LOST:
            self._drop(session)
            return
        session.is_over = True
        silent_s = self._clock.now_s() - session.heard_at_s
        lost = lost_status(status, f"silent for {silent_s:.0f}s", self._clock.wall_s())
        unchanged = ModifiedAt(keys.NODES + session.node, session.registered_at)
        try:
            put = Put(keys.NODES + session.node, lost.to_bytes())
            revision = await self._store.commit(Txn((unchanged,), (put,)))
            log.warning("node lost", node=session.node, revision=revision, why=lost.message)
        except ConflictError:
            log.info("node had moved on", node=session.node)
        except UnavailableError:
            return  # nobody is lost while the store can't be told; the next look tries again
        connection = session.connection
        self._drop(session)
        if connection:
            await connection.close()

    def _drop(self, session: LiveSession) -> None:
        if self.is_current(session):
            del self._sessions[session.node]

    async def close(self) -> None:
        """Send all agents elsewhere."""
        async with TaskGroup() as tasks:
            for session in self._sessions.values():
                if session.connection:
                    tasks.create_task(session.connection.close(), name=f"close-{session.node}")
