"""What was there when a rehearsal began, of all that it changes. Subscribed to the fork; it costs what changes."""

from typing import TypeVar

from control_plane.state import Batch, ClusterState, Table
from manifests.allocations import Allocation, Desired
from manifests.base import Model
from manifests.nodes import Liveness

T = TypeVar("T", bound=Model)


class Memory:
    def __init__(self, state: ClusterState) -> None:
        self._state = state
        self._first: dict[tuple[str, str], Model | None] = {}

    def on_batch(self, batch: Batch) -> None:
        for change in batch.changes:
            self._first.setdefault((change.table, change.id), change.old)

    def changed(self, table: Table[T]) -> list[str]:
        """Return the ids of all records of the table that are new, changed or gone, in the order of their changes."""
        return [id_ for name, id_ in self._first if name == table.name]

    def before(self, table: Table[T], id_: str) -> T | None:
        """Return the record as it was in the beginning."""
        if (table.name, id_) not in self._first:
            return table.get(id_)
        old = self._first[table.name, id_]
        assert old is None or isinstance(old, table.model)
        return old

    def ran(self, allocation_id: str) -> Allocation | None:
        """Return the allocation as it was if it ran, or was to, on a node that was there."""
        state = self._state
        a, status = self.before(state.allocations, allocation_id), self.before(state.statuses, allocation_id)
        if a is None or a.desired is not Desired.RUN or (status is not None and status.is_terminal):
            return None
        node = self.before(state.nodes, a.node)
        return a if node is not None and node.liveness is not Liveness.LOST else None
