"""Writes what a node observes into the store, on behalf of its session alone.

Each transaction compares that the session still is the node's newest, and that each allocation is still desired: a late
word from a former session, or about an allocation whose record is gone, changes nothing.
"""

from collections.abc import Iterable, Sequence

from control_plane import keys
from control_plane.sessions import LiveSession
from control_plane.state import ClusterState
from control_plane.store.protocol import Compare, Exists, ModifiedAt, Put, Store, Txn
from foundation.clock import Clock
from manifests.allocations import AllocationStatus
from manifests.errors import ConflictError, UnavailableError

CHUNK = 100  # statuses in one transaction, each a write and a compare
TRIES = 10
PAUSE_S = 0.05


class StatusWriter:
    def __init__(self, store: Store, state: ClusterState, clock: Clock) -> None:
        self._store, self._state, self._clock = store, state, clock

    async def write(self, session: LiveSession, statuses: Iterable[AllocationStatus]) -> None:
        """Store the statuses that are news. Raises ConflictError if the node has a newer session."""
        waiting = [s for s in statuses if s.node == session.node]
        for start in range(0, len(waiting), CHUNK):
            await self._write_chunk(session, waiting[start : start + CHUNK])

    async def _write_chunk(self, session: LiveSession, statuses: Sequence[AllocationStatus]) -> None:
        for _ in range(TRIES):
            news = [s for s in statuses if self._is_news(session, s)]
            if not news:
                return
            try:
                async with session.writing:
                    await self._store.commit(_txn(session, news))
                session.told.update((s.id, s) for s in news)
                return
            except ConflictError:
                self._check_newest(session)
                await self._clock.sleep(PAUSE_S)
        raise UnavailableError("statuses can't be stored", why="what they belong to keeps changing", fix="Try again.")

    def _is_news(self, session: LiveSession, status: AllocationStatus) -> bool:
        """Say whether it is to be stored: it is ours, it differs from the last word, and that was not the last of all.

        The cache may lag behind what this session has stored. What has ended stays so, whatever an agent says that has
        lost its memory: it is reminded with its assignments.
        """
        allocation = self._state.allocations.get(status.id)
        if allocation is None or allocation.node != session.node:
            session.told.pop(status.id, None)
            return False
        known = session.told.get(status.id) or self._state.statuses.get(status.id)
        if known is not None and known.is_terminal:
            return (status.phase, status.attempt) == (known.phase, known.attempt) and status != known
        return status != known

    def _check_newest(self, session: LiveSession) -> None:
        found = self._state.nodes.modified_at(session.node)
        if found > session.registered_at:
            raise ConflictError(
                f"session {session.number} of node {session.node} is over",
                why=f"the node's record changed at revision {found}, after this session began",
            )


def _txn(session: LiveSession, statuses: Sequence[AllocationStatus]) -> Txn:
    compares: list[Compare] = [ModifiedAt(keys.NODES + session.node, session.registered_at)]
    compares += [Exists(keys.ALLOCATIONS + keys.placed_id(s.node, s.id)) for s in statuses]
    return Txn(
        tuple(compares), tuple(Put(keys.STATUSES + keys.placed_id(s.node, s.id), s.to_bytes()) for s in statuses)
    )
