"""Watch caches: one without a store, filled by hand a revision at a time, for pure parts; and those that follow one."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from control_plane.state import ClusterState
from control_plane.store.protocol import Change, Delete, Entry, Put, Revision
from tests.clocks import StepClock


@contextlib.asynccontextmanager
async def following(state: ClusterState) -> AsyncIterator[None]:
    """Have it keep up with its store for the block; it must be loaded."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(state.follow(), name="follow")
        yield
        task.cancel()


class Cache:
    """Takes writes as a store would give them back, each call at the next revision."""

    def __init__(self) -> None:
        self.state = ClusterState(None, StepClock())  # type: ignore[arg-type]  # nothing here reads from a store
        self.entries: dict[str, Entry] = {}
        self.revision = Revision(1)

    def write(self, writes: Sequence[Put | Delete]) -> Revision:
        """Apply the writes as one revision."""
        self.revision = Revision(self.revision + 1)
        changes = [self._change(write) for write in writes]
        applying = self.state._apply(changes, self.revision, is_first=False)
        with contextlib.suppress(StopIteration):  # it waits for nothing: a loop for each revision would be slow
            applying.send(None)
        return self.revision

    def _change(self, write: Put | Delete) -> Change:
        old = self.entries.pop(write.key, None)
        if isinstance(write, Delete):
            return Change(write.key, None, self.revision)
        created = old.create_revision if old else self.revision
        self.entries[write.key] = Entry(write.key, write.value, created, self.revision)
        return Change(write.key, self.entries[write.key], self.revision)
