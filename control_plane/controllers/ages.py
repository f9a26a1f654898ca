"""How long this leader has known certain things: on its own clock, from when it first saw them.

A new leader begins to count anew, so that nothing is decided by clocks of other machines, or by time that nobody saw.
"""

from collections import defaultdict
from typing import NamedTuple

from control_plane.state import Batch, ClusterState
from foundation.clock import Clock
from manifests.allocations import Allocation, AllocationStatus
from manifests.base import Model
from manifests.nodes import Liveness, NodeIntent, NodeStatus


class Known(NamedTuple):
    """For how long this leader has known these, in seconds; 0.0 if it isn't so now."""

    ended_for_s: float
    ready_for_s: float
    lost_for_s: float  # its node, or that there is no such node
    back_for_s: float


class Ages:
    """Subscribe `on_batch` to the cache; ask for the ages between awaits."""

    def __init__(self, state: ClusterState, clock: Clock, *, known_for_s: float = 0.0) -> None:
        """Begin now; what is found then, and nobody told of, counts as known for so long: but for drains."""
        self._state, self._clock, self._known_for_s = state, clock, known_for_s
        self._now_s = clock.now_s()  # when the last batch came
        self._since: dict[str, dict[str, float]] = defaultdict(dict)  # what, then by the id of an allocation or node

    def on_batch(self, batch: Batch) -> None:
        self._now_s = self._clock.now_s()  # one object for all: a large cluster has many
        for change in batch.changes:
            match change.new:
                case AllocationStatus() as status:
                    self._note("ended", change.id, is_so=status.is_terminal)
                    self._note("ready", change.id, is_so=status.is_ready)
                case NodeStatus() as node:
                    self._note("lost", change.id, is_so=node.liveness is Liveness.LOST)
                    self._note("back", change.id, is_so=node.liveness is Liveness.READY)
                case NodeIntent() as intent:
                    self._note_drain(change.old, intent)
                case None if change.table == "intent":
                    self._note("draining", change.id, is_so=False)
                case None if change.table == "status":
                    self._note("ended", change.id, is_so=False)
                    self._note("ready", change.id, is_so=False)
                case None if change.table == "node":
                    self._note("lost", change.id, is_so=False)
                    self._note("back", change.id, is_so=False)
                case _:
                    pass

    def of(self, a: Allocation, status: AllocationStatus | None, host: NodeStatus | None) -> Known:
        """Return how long it has been known of an allocation and its node, of those statuses now, how they are."""
        has_ended, is_ready = (status.is_terminal, status.is_ready) if status else (False, False)
        liveness, now_s = host.liveness if host else Liveness.LOST, self._clock.now_s()
        return Known(
            self._age("ended", a.id, now_s) if has_ended else self._forget("ended", a.id),
            self._age("ready", a.id, now_s) if is_ready else self._forget("ready", a.id),
            self._age("lost", a.node, now_s) if liveness is Liveness.LOST else self._forget("lost", a.node),
            self._age("back", a.node, now_s) if liveness is Liveness.READY else self._forget("back", a.node),
        )

    def draining_for_s(self, node: str) -> float:
        """Return for how long it has been known that the node is to be drained by its present deadline."""
        intent = self._state.intents.get(node)
        is_so = intent is not None and intent.is_draining
        return self._age("draining", node, self._clock.now_s()) if is_so else self._forget("draining", node)

    def _note_drain(self, old: Model | None, intent: NodeIntent) -> None:
        if isinstance(old, NodeIntent) and old.drain_deadline_s != intent.drain_deadline_s:
            self._note("draining", intent.name, is_so=False)
        self._note("draining", intent.name, is_so=intent.is_draining)

    def _age(self, what: str, of: str, now_s: float) -> float:
        """Return for how long it has been so: it is so now."""
        since = self._since[what]
        since_s = since.get(of)
        if since_s is None:
            since_s = since[of] = now_s - (self._known_for_s if what != "draining" else 0.0)
        return now_s - since_s

    def _forget(self, what: str, of: str) -> float:
        """Note that it isn't so now."""
        self._since[what].pop(of, None)
        return 0.0

    def _note(self, what: str, of: str, *, is_so: bool) -> None:
        if is_so:
            self._since[what].setdefault(of, self._now_s)
        else:
            self._since[what].pop(of, None)
