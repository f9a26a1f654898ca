"""How long nodes have been silent, as this server knows it: by its own clock, from what it saw in the store.

It listens for as long as the server runs, so that a server that takes the lead knows what was lost just before. The
time by which suspect nodes are judged begins anew then, from what their records say.
"""

import math
from collections.abc import Iterator

from control_plane.state import Batch, ClusterState
from foundation.clock import Clock
from manifests.nodes import Liveness, NodeStatus


class Silences:
    def __init__(self, state: ClusterState, clock: Clock) -> None:
        self._state, self._clock = state, clock
        self._unheard_since: dict[str, float] = {}
        self._counted_since: dict[str, float] = {}  # the same, or later
        state.subscribe(self._on_batch)

    def unheard_for_s(self, node: str) -> float:
        """Return how long nothing was heard of a node that is suspect or lost; infinity if nobody here knows."""
        return self._age(self._unheard_since.get(node))

    def silent_for_s(self, node: str) -> float:
        """Return by how long a silence the node may be judged."""
        return self._age(self._counted_since.get(node))

    def begin_anew(self) -> None:
        """Count none of the time that went by: this server was not the one to judge then, or it slept."""
        now = self._clock.now_s()
        for name, silent_s in self._suspects():
            self._unheard_since.setdefault(name, now - silent_s)
            self._counted_since[name] = now - silent_s

    def give_time(self) -> None:
        """Judge suspect nodes as if they had been heard just now: others that fell silent with them come back."""
        now = self._clock.now_s()
        self._counted_since.update((name, now) for name, _ in self._suspects())

    def _suspects(self) -> Iterator[tuple[str, float]]:
        return (
            (name, status.silent_s)
            for name in self._state.nodes.ids()
            if (status := self._state.nodes.get(name)) and status.liveness is Liveness.SUSPECT
        )

    def _age(self, since: float | None) -> float:
        return math.inf if since is None else self._clock.now_s() - since

    def _on_batch(self, batch: Batch) -> None:
        for change in batch.changes:
            if change.table == "node":
                self._note(change.id, change.new if isinstance(change.new, NodeStatus) else None, batch)

    def _note(self, node: str, status: NodeStatus | None, batch: Batch) -> None:
        for since in (self._unheard_since, self._counted_since):
            if status is None or status.liveness is Liveness.READY:
                since.pop(node, None)
            elif status.liveness is Liveness.SUSPECT or not batch.is_first:
                since.setdefault(node, self._clock.now_s() - status.silent_s)  # lost before this server began: long ago
