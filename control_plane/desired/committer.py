"""How every write of users' desires is made: read from the store, decide, commit with compares, again if overtaken.

Each write compares what it was decided on, read from the store itself and not from the cache, so that two users at two
servers can't overwrite each other unseen.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from control_plane import keys
from control_plane.desired.actor import current_actor
from control_plane.records import DeletionRecord
from control_plane.state import ClusterState
from control_plane.store.protocol import Compare, Delete, Put, Revision, Store, Txn
from foundation.clock import Clock
from manifests.errors import ConflictError

TRIES = 5
PAUSE_S = 0.05
T = TypeVar("T")


class StaleError(ConflictError):
    """The user's own expectation fails: trying again would not help."""


class Committer:
    def __init__(self, store: Store, state: ClusterState, clock: Clock) -> None:
        self.store, self.state, self._clock = store, state, clock

    async def commit(self, compares: Sequence[Compare], writes: Sequence[Put | Delete]) -> Revision:
        """Commit, and return once this server's cache has it, so that the user reads what they wrote."""
        revision = await self.store.commit(Txn(tuple(compares), tuple(writes)))
        await self.state.wait_for(revision)
        return revision

    def deletion(self, place: str) -> Put:
        """Return the note of who deletes what lives there: part of the deletion, for the leader to tell."""
        record = DeletionRecord(place=place, changed_by=current_actor(), at_s=self._clock.wall_s())
        return Put(keys.DELETIONS + place, record.to_bytes())

    async def retried(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Try again when someone else wrote in between: each attempt reads afresh."""
        for _ in range(TRIES - 1):
            try:
                return await attempt()
            except StaleError:
                raise
            except ConflictError:
                await self._clock.sleep(PAUSE_S)
        return await attempt()
