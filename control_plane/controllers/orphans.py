"""Watches over nodes whose server is gone: if no other server has taken their session in time, they are lost.

A node belongs to the server that its status names. That server marks it lost when it falls silent. When the server
itself is gone, nobody would; so the leader starts the same clock when it first misses the server. A missing lease is
only a hint: a server that is alive takes a new lease and appears again, well within that time.
"""

from control_plane import keys
from control_plane.state import ClusterState
from control_plane.store.protocol import CreatedAt, ModifiedAt, Put, Store, Txn
from foundation.clock import Clock
from foundation.logs import Log
from manifests.errors import ConflictError
from manifests.nodes import Liveness, NodeStatus

log = Log(__name__)

CHECK_EVERY_S = 0.5
STALLED_S = 2.0  # a loop that slept that long judges nobody by the time that went by


class OrphanWatch:
    def __init__(self, store: Store, state: ClusterState, clock: Clock, *, lost_after_s: float) -> None:
        self._store, self._state, self._clock, self._lost_after_s = store, state, clock, lost_after_s
        self._missed_since: dict[str, float] = {}  # by node

    async def run(self, fence: CreatedAt) -> None:
        checked_at = self._clock.now_s()
        while True:
            await self._clock.sleep(CHECK_EVERY_S)
            now = self._clock.now_s()
            if now - checked_at > STALLED_S:
                self._missed_since.clear()
            checked_at = now
            for status in self._overdue(now):
                await self._mark_lost(fence, status)

    def _overdue(self, now_s: float) -> list[NodeStatus]:
        orphans = {
            n.facts.name: n
            for n in self._state.nodes.values()
            if n.liveness is Liveness.READY and n.server not in self._state.servers
        }
        self._missed_since = {name: self._missed_since.get(name, now_s) for name in orphans}
        return [n for name, n in orphans.items() if now_s - self._missed_since[name] >= self._lost_after_s]

    async def _mark_lost(self, fence: CreatedAt, status: NodeStatus) -> None:
        name = status.facts.name
        lost = lost_status(status, "its server is gone, and it has come to no other", self._clock.wall_s())
        unchanged = ModifiedAt(keys.NODES + name, self._state.nodes.modified_at(name))
        try:
            revision = await self._store.commit(Txn((fence, unchanged), (Put(keys.NODES + name, lost.to_bytes()),)))
        except ConflictError:
            return  # it has come back, or this server is deposed: either way the next look tells
        log.warning("node lost", node=name, revision=revision, why=lost.message)
        await self._state.wait_for(revision)


def lost_status(status: NodeStatus, message: str, wall_s: float) -> NodeStatus:
    return status.model_copy(update={"liveness": Liveness.LOST, "message": message, "changed_s": wall_s})
