"""Which views a change of the cache touches, and who wants to know. Level-triggered: a reader gets the newest of each.

A slow reader's pending changes coalesce by object, so its buffer is bounded by the number of objects.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from control_plane import keys
from control_plane.event_log import EventLog, LiveEvent
from control_plane.state import Batch, ClusterState, ObjectChange
from manifests.allocations import Allocation, AllocationStatus
from manifests.errors import CompactedError
from manifests.workloads import WorkloadRecord

View: TypeAlias = dict[str, Any]
ViewKey: TypeAlias = tuple[str, str]  # type and id

MOST_BATCHES = 4096  # that a reader can go back
MOST_EVENTS_WAITING = 1000


@dataclass(slots=True)
class Subscription:
    """What one reader has not been sent yet."""

    touched: dict[ViewKey, None] = field(default_factory=dict)
    events: deque[LiveEvent] = field(default_factory=lambda: deque(maxlen=MOST_EVENTS_WAITING))
    woken: asyncio.Event = field(default_factory=asyncio.Event)

    def touch(self, touched: Iterable[ViewKey]) -> None:
        self.touched.update(dict.fromkeys(touched))
        self.woken.set()

    def tell(self, event: LiveEvent) -> None:
        self.events.append(event)
        self.woken.set()

    def take(self) -> tuple[list[ViewKey], list[LiveEvent]]:
        """Return what is pending, and forget it."""
        taken = list(self.touched), list(self.events)
        self.touched.clear()
        self.events.clear()
        self.woken.clear()
        return taken


class ChangeFeed:
    """Remembers which views the last batches touched, and passes them on."""

    def __init__(self, state: ClusterState, events: EventLog) -> None:
        self._state = state
        self._batches: deque[tuple[int, tuple[ViewKey, ...]]] = deque(maxlen=MOST_BATCHES)
        self._complete_after = 0  # every batch after this revision is remembered
        self._subscriptions: list[Subscription] = []
        state.subscribe(self._on_batch)
        events.listen(self._on_event)

    def subscribe(self, after: int | None) -> tuple[Subscription, Callable[[], None]]:
        """Return a subscription that begins with what was touched after that revision (None: from now on).

        Raises CompactedError if that is too long ago.
        """
        subscription = Subscription()
        if after is not None:
            if after < self._complete_after:
                raise CompactedError(
                    f"the changes since revision {after} are no longer known",
                    why=f"this server remembers them from revision {self._complete_after} on",
                    fix="Watch without `after`, which begins with all there is.",
                )
            for revision, touched in self._batches:
                if revision > after:
                    subscription.touch(touched)
        self._subscriptions.append(subscription)
        return subscription, lambda: self._subscriptions.remove(subscription)

    def _on_batch(self, batch: Batch) -> None:
        if batch.is_first:
            self._complete_after = batch.revision
            return
        touched = tuple(dict.fromkeys(key for change in batch.changes for key in self._touched_by(change)))
        if not touched:
            return
        if len(self._batches) == MOST_BATCHES:
            self._complete_after = self._batches[0][0]
        self._batches.append((batch.revision, touched))
        for subscription in self._subscriptions:
            subscription.touch(touched)

    def _on_event(self, event: LiveEvent) -> None:
        for subscription in self._subscriptions:
            subscription.tell(event)

    def _touched_by(self, change: ObjectChange) -> Iterator[ViewKey]:
        match change.table:
            case "workload" | "workloadStatus" | "cron":
                yield "workload", change.id
                known = (change.old, change.new, self._state.workloads.get(change.id))
                for owner in {keys.id_of_ref(r.owner) for r in known if isinstance(r, WorkloadRecord) and r.owner}:
                    yield "workload", owner
            case "config":
                yield "config", change.id
            case "event" if change.new is not None:
                yield "event", change.id
            case "allocation" | "status":
                told = change.new or change.old
                if isinstance(told, Allocation | AllocationStatus):
                    yield "allocation", change.id
                    yield "workload", keys.id_of_ref(told.workload)
                    yield "node", told.node
            case "move":
                yield "allocation", change.id
            case "brake":
                yield from (("node", name) for name in self._state.nodes.ids())
            case "node" | "intent":
                yield "node", change.id
                for allocation in self._state.allocations_on(change.id):
                    yield "allocation", allocation.id
                    yield "workload", keys.id_of_ref(allocation.workload)
