"""A cluster that goes its own way: the watch cache and the ledger of one moment, on which writes have their effect.

Nothing of it reaches a store. Records are shared with what it was made from, which may go on meanwhile: so it is made
between awaits, and may then be worked on in another thread.
"""

from collections.abc import AsyncIterator, Sequence

from control_plane.controllers.standing import Standing
from control_plane.state import ClusterState
from control_plane.store.protocol import Change, Changes, Delete, Entry, Lease, Page, Put, Revision, Txn
from manifests.errors import ConflictError, UnavailableError


class JumpingClock:
    """A clock that stands still until it is told to jump."""

    def __init__(self, wall_s: float) -> None:
        self._now_s, self._begun_s = 0.0, wall_s

    def now_s(self) -> float:
        return self._now_s

    def wall_s(self) -> float:
        return self._begun_s + self._now_s

    def boot_s(self) -> float:
        return self._now_s

    async def sleep(self, seconds: float) -> None:
        raise UnavailableError("nothing waits in a rehearsal", why=f"something wanted to for {seconds} s")

    def jump(self, seconds: float) -> None:
        self._now_s += seconds


class Fork:
    """Writes are taken in as a store would give them back, each call at the next revision."""

    def __init__(self, state: ClusterState, standing: Standing, wall_s: float) -> None:
        self.clock = JumpingClock(wall_s)
        self.state = state.fork(self.clock)
        self.standing = standing.fork(self.state)
        self.state.subscribe(self.standing.on_batch)
        self.begun_at = self.state.revision

    def write(self, writes: Sequence[Put | Delete]) -> Revision:
        revision = Revision(self.state.revision + 1)
        self.state.take_in([self._change(write, revision) for write in writes], revision)
        return revision

    def _change(self, write: Put | Delete, revision: Revision) -> Change:
        if isinstance(write, Delete):
            return Change(write.key, None, revision)
        stored = self.state.find(write.key)
        return Change(
            write.key, Entry(write.key, write.value, stored.created_at if stored else revision, revision), revision
        )


class CacheStore:
    """A store that answers what a cache holds and takes nothing: for writers that are to draft and not to commit."""

    def __init__(self, state: ClusterState | None = None) -> None:
        self._state = state

    async def get(self, key: str) -> Entry | None:
        if self._state is None or self._state.is_unreadable(key):
            raise ConflictError("what would be can't be told", why=f"the record at {key} can't be read")
        stored = self._state.find(key)
        return Entry(key, stored.value.to_bytes(), stored.created_at, stored.modified_at) if stored else None

    async def list_prefix(
        self, prefix: str, *, at: Revision | None = None, start: str | None = None, limit: int = 500
    ) -> Page:
        raise _OUT_OF_PLACE

    async def commit(self, txn: Txn) -> Revision:
        raise _OUT_OF_PLACE

    def watch(self, prefix: str, *, after: Revision) -> AsyncIterator[Changes]:
        raise _OUT_OF_PLACE

    async def lease(self, *, ttl_s: float) -> Lease:
        raise _OUT_OF_PLACE

    async def compact(self, revision: Revision) -> None:
        raise _OUT_OF_PLACE

    async def close(self) -> None:
        """Nothing is held."""


_OUT_OF_PLACE = UnavailableError("a rehearsal has no store")
