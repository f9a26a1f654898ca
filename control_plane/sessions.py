"""Agents' sessions on this server: registration, heartbeats, and who has fallen silent.

It knows frames, the cache and the store, and nothing of HTTP: a `Connection` brings and takes frames. Heartbeats live
in memory. The store is written when a session opens, when a node has been silent for a while, and when it is heard
again: a silent node is marked suspect here, and lost by the leader alone. While its record calls a node suspect, its
heartbeats are not acknowledged; so what the leader judges by is never older than the last acknowledgement.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from control_plane import keys
from control_plane.controllers.losses import STALLED_S, SUSPECT_SHARE, marked_silent
from control_plane.identity import check_hello, check_identity, is_reboot
from control_plane.snapshots import begin_generation
from control_plane.state import ClusterState
from control_plane.store.protocol import ABSENT, ModifiedAt, Put, Revision, Store, Txn
from foundation.clock import Clock
from foundation.logs import Log
from foundation.tasks import TaskGroup
from manifests.allocations import AllocationStatus
from manifests.errors import ConflictError, UnavailableError
from manifests.nodes import Liveness, NodeStatus
from manifests.session import FromAgent, FromServer, Hello, NodeReport, StreamData, Welcome

log = Log(__name__)

CHECK_EVERY_S = 0.25
REGISTER_TRIES = 5
CHECK_STORE_S = 0.05
SEND_AWAY_AFTER_S = 2.0  # a lease that is only lost is replaced at once
GONE_SHARE = 0.3  # of lostAfter: an agent whose connection broke is back by then, here or elsewhere


class Connection(Protocol):
    """One agent's connection, whatever carries it."""

    async def send(self, frame: FromServer) -> None:
        """Raises UnavailableError once the connection is closed."""
        ...

    async def send_bytes(self, data: bytes) -> None:
        """Send the input of a stream; raises as `send` does."""
        ...

    async def receive(self) -> FromAgent | StreamData | None:
        """Return the next frame, or None once the connection is closed."""
        ...

    async def close(self) -> None: ...


@dataclass(slots=True)
class LiveSession:
    """A node's session on this server. It stays here, silent, after its connection broke, until lost or replaced."""

    node: str
    agent_id: str
    number: int
    status: NodeStatus  # the node's record, as this session wrote it last
    registered_at: Revision  # it was written there; only while it stands may this session write
    heard_at_s: float
    connection: Connection | None
    is_reboot: bool = False  # the first session after one
    broke_at_s: float = 0.0
    is_suspect: bool = False  # the store says so, or is about to
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)  # the record, and what compares where it stands
    told: dict[str, AllocationStatus] = field(default_factory=dict)  # what it stored last of each allocation


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
        check_hello(hello, self._state.cluster.get(""))
        await self._await_store()
        await self._await_news_of(hello)
        name = hello.facts.name
        for _ in range(REGISTER_TRIES):
            old = self._state.nodes.get(name)
            check_identity(hello, old, lost_after_s=self.lost_after_s)
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
            if self._state.nodes.modified_at(name) > revision:
                continue  # while the answer was under way, this server took the node for one that had left: once more
            return await self._adopt(status, revision, connection, is_reboot=is_reboot(hello, old))
        raise UnavailableError(f"node {name} can't be registered", why="its record keeps changing", fix="Try again.")

    async def _await_news_of(self, hello: Hello) -> None:
        """Return once this server knows as much as the agent obeys already. Raises UnavailableError if it doesn't.

        An agent that has seen a revision or a generation which the store itself hasn't proves that it has gone back.
        """
        ours = self._state.generation
        if hello.generation < ours and (hello.generation or ours > 1):
            return  # revisions of an earlier generation mean nothing now
        of, seen = max(hello.generation, ours), Revision(hello.applied_revision)
        try:
            self._check_generation(of)
            await self._state.wait_for(seen)
        except UnavailableError:
            if self._state.generation > of:
                return  # meanwhile someone else had the proof
            if await begin_generation(self._store, seen, of=of) is None:
                raise
            log.error("the store has gone back in time", generation=of, seen=seen, by=hello.facts.name)

    def _check_generation(self, newest: int) -> None:
        """Raise UnavailableError if this server has not heard of that generation."""
        if newest > self._state.generation:
            raise UnavailableError(
                f"this server has not seen generation {newest} of the store",
                why=f"it knows generation {self._state.generation}",
                fix="Another server will do.",
            )

    async def _modified_at(self, node: str) -> Revision:
        """Return where the node's record stands; one that can't be read is known by the store alone, and mended now."""
        if self._state.is_unreadable(keys.NODES + node):
            entry = await self._store.get(keys.NODES + node)
            return entry.mod_revision if entry else ABSENT
        return self._state.nodes.modified_at(node)

    async def report(self, session: LiveSession, report: NodeReport) -> None:
        """Write what has changed about the node. Raises ConflictError if it has a newer session."""
        news: dict[str, object] = {"facts": report.facts, "trouble": report.trouble, "kept": report.kept}
        if any(getattr(session.status, name) != value for name, value in news.items()):
            await self._write(session, news)

    async def _write(self, session: LiveSession, changes: dict[str, object]) -> None:
        """Change the node's record. Raises ConflictError if it has a newer session, or was marked lost meanwhile."""
        async with session.writing:
            new = session.status.model_copy(update={"changed_s": self._clock.wall_s(), **changes})
            unchanged = ModifiedAt(keys.NODES + session.node, session.registered_at)
            put = Put(keys.NODES + session.node, new.to_bytes())
            session.registered_at = await self._store.commit(Txn((unchanged,), (put,)))
            session.status = new

    async def _adopt(
        self, status: NodeStatus, revision: Revision, connection: Connection, *, is_reboot: bool
    ) -> LiveSession:
        facts, now = status.facts, self._clock.now_s()
        former = self._sessions.get(facts.name)
        session = LiveSession(
            facts.name, facts.agent_id, status.session, status, revision, now, connection, is_reboot=is_reboot
        )
        self._sessions[session.node] = session
        log.info("node registered", node=session.node, session=session.number, revision=revision, rebooted=is_reboot)
        if former and former.connection:
            await former.connection.close()
        return session

    async def heard(self, session: LiveSession) -> None:
        """Note that the node is alive. Raises ConflictError if it was marked lost before this could be stored."""
        session.heard_at_s = self._clock.now_s()
        if session.is_suspect:
            try:
                await self._write(session, {"liveness": Liveness.READY, "message": "", "silent_s": 0.0})
            except UnavailableError:
                return  # the next word tries again
            session.is_suspect = False
            log.info("node was heard again", node=session.node, session=session.number)

    def may_acknowledge(self, session: LiveSession) -> bool:
        """Say whether the node may believe that the cluster knows it to be alive."""
        return not session.is_suspect and self._has_store()

    def disconnected(self, session: LiveSession) -> None:
        """The connection is gone; the node may come back in time, here or elsewhere."""
        session.connection = None
        session.broke_at_s = self._clock.now_s()

    def is_current(self, session: LiveSession) -> bool:
        return self._sessions.get(session.node) is session

    async def watch_silence(self) -> None:
        """Mark nodes suspect that have been silent for a while, until cancelled."""
        checked_at = self._clock.now_s()
        while True:
            await self._clock.sleep(CHECK_EVERY_S)
            now = self._clock.now_s()
            if now - checked_at > STALLED_S:
                log.warning("this server stalled, and judges no node by that time", seconds=round(now - checked_at, 1))
                self._forgive(now)
            checked_at = now
            self._take_up(now)
            async with TaskGroup() as tasks:
                for session in list(self._sessions.values()):
                    if self._is_over(session):
                        tasks.create_task(self._end(session), name=f"end-{session.node}")
                    elif why := self._silence_of(session, now):
                        tasks.create_task(self._suspect(session, why.strip()), name=f"suspect-{session.node}")

    def _take_up(self, now_s: float) -> None:
        """Watch also over nodes that are ours by their records alone: their connection ended before we knew of it."""
        for name in list(self._state.nodes.ids()):
            record, session = self._state.nodes.get(name), self._sessions.get(name)
            if record is None or record.server != self._server_id or record.liveness is not Liveness.READY:
                continue
            if session is None or session.number < record.session:
                at, agent = self._state.nodes.modified_at(name), record.facts.agent_id
                self._sessions[name] = LiveSession(
                    name, agent, record.session, record, at, now_s, None, broke_at_s=now_s
                )

    def _is_over(self, session: LiveSession) -> bool:
        """Say whether the session may no longer write; take over what the leader wrote while this server was missed."""
        if session.writing.locked() or self._state.is_unreadable(keys.NODES + session.node):
            return False
        record, at = self._state.nodes.get(session.node), self._state.nodes.modified_at(session.node)
        if record is None or record.session != session.number:
            return True
        if at > session.registered_at:
            session.status, session.registered_at = record, at
            session.is_suspect = record.liveness is Liveness.SUSPECT
        return record.liveness is Liveness.LOST

    def _silence_of(self, session: LiveSession, now_s: float) -> str:
        """Return why the node is suspect from now on, a blank if all that is known is its silence; "" if it isn't."""
        if session.is_suspect and session.status.liveness is Liveness.SUSPECT:
            return ""
        if session.connection is None and now_s - session.broke_at_s >= self.lost_after_s * GONE_SHARE:
            return "its connection broke"
        return " " if now_s - session.heard_at_s >= self.lost_after_s * SUSPECT_SHARE else ""

    async def _suspect(self, session: LiveSession, why: str) -> None:
        session.is_suspect = True  # first: nothing is acknowledged from here on
        silent_s = self._clock.now_s() - session.heard_at_s
        marked = marked_silent(session.status, Liveness.SUSPECT, why, silent_s, self._clock.wall_s())
        try:
            await self._write(session, {name: getattr(marked, name) for name in ("liveness", "message", "silent_s")})
            log.warning("node is suspect", node=session.node, why=marked.silence())
        except ConflictError:
            log.info("node had moved on", node=session.node)
        except UnavailableError:
            return  # nobody is suspect while the store can't be told; the next look tries again

    async def _end(self, session: LiveSession) -> None:
        """Let go of a session that another one has followed, or whose node was marked lost: its agent begins anew."""
        if self.is_current(session):
            del self._sessions[session.node]
        if session.connection:
            await session.connection.close()

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
            session.heard_at_s = session.broke_at_s = now_s

    async def close(self) -> None:
        """Send all agents elsewhere."""
        async with TaskGroup() as tasks:
            for session in self._sessions.values():
                if session.connection:
                    tasks.create_task(session.connection.close(), name=f"close-{session.node}")
