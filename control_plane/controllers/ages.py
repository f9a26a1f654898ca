"""How long this leader has known certain things: on its own clock, from when it first saw them.

A new leader begins to count anew, so that nothing is decided by clocks of other machines, or by time that nobody saw.
"""

from collections import defaultdict

from control_plane.state import Batch, ClusterState
from foundation.clock import Clock
from manifests.allocations import AllocationStatus
from manifests.base import Model
from manifests.nodes import Liveness, NodeIntent, NodeStatus


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

    def ended_for_s(self, allocation: str, status: AllocationStatus | None) -> float:
        """Return for how long it has been known that the allocation, of that status now, ended; 0.0 if it hasn't."""
        return self._age("ended", allocation, is_so=status is not None and status.is_terminal)

    def ready_for_s(self, allocation: str, status: AllocationStatus | None) -> float:
        return self._age("ready", allocation, is_so=status is not None and status.is_ready)

    def lost_for_s(self, node: str, status: NodeStatus | None) -> float:
        """Return for how long the node, of that status now, has been known to be lost, or gone altogether."""
        return self._age("lost", node, is_so=status is None or status.liveness is Liveness.LOST)

    def back_for_s(self, node: str, status: NodeStatus | None) -> float:
        return self._age("back", node, is_so=status is not None and status.liveness is Liveness.READY)

    def draining_for_s(self, node: str) -> float:
        """Return for how long it has been known that the node is to be drained by its present deadline."""
        intent = self._state.intents.get(node)
        return self._age("draining", node, is_so=intent is not None and intent.is_draining)

    def _note_drain(self, old: Model | None, intent: NodeIntent) -> None:
        if isinstance(old, NodeIntent) and old.drain_deadline_s != intent.drain_deadline_s:
            self._note("draining", intent.name, is_so=False)
        self._note("draining", intent.name, is_so=intent.is_draining)

    def _age(self, what: str, of: str, *, is_so: bool) -> float:
        if not is_so:
            self._since[what].pop(of, None)
            return 0.0
        now_s, since_s = self._clock.now_s(), self._since[what].get(of)
        if since_s is None:
            since_s = self._since[what][of] = now_s - (self._known_for_s if what != "draining" else 0.0)
        return now_s - since_s

    def _note(self, what: str, of: str, *, is_so: bool) -> None:
        if is_so:
            self._since[what].setdefault(of, self._now_s)
        else:
            self._since[what].pop(of, None)
