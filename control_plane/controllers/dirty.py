"""What the leader must look at again: workloads marked by changes, by timers, or all of them now and then."""

import asyncio
import contextlib
import math

from control_plane import keys
from control_plane.controllers.snapshot import workload_ids
from control_plane.state import Batch, ClusterState, ObjectChange
from foundation.clock import Clock
from manifests.allocations import Allocation, AllocationStatus
from manifests.moves import MoveRecord
from manifests.workloads import Kind, WorkloadRecord

RESYNC_S = 30.0  # so that a lost event costs time and not truth


class DirtySet:
    """Marks without order of urgency but in order of age; a workload is in it once, however often it is marked."""

    def __init__(self, state: ClusterState, clock: Clock, *, is_thorough: bool = True) -> None:
        """Begin with all workloads; not `is_thorough`: with none, and without looking at all of them ever again."""
        self._state, self._clock, self._is_thorough = state, clock, is_thorough
        self._marked: dict[str, None] = {}
        self._timers: dict[str, float] = {}
        self._resync_at = clock.now_s() + RESYNC_S if is_thorough else math.inf
        self._woken = asyncio.Event()
        self.blocked: set[str] = set()  # looked at again whenever something may have become free
        self.expecting: set[str] = set()  # room comes for them: looked at in each pass, as they claim it
        self.waiting: dict[str, frozenset[str]] = {}  # workloads, and those that they are to start after
        if is_thorough:
            self.mark_all()

    def mark(self, workload: str) -> None:
        self._marked.setdefault(workload)
        self._woken.set()

    def mark_all(self) -> None:
        for workload in sorted(workload_ids(self._state)):
            self.mark(workload)

    def mark_after(self, workload: str, delay_s: float | None) -> None:
        """Mark it once that time has passed; None: no timer. The latest call counts."""
        self._timers.pop(workload, None)
        if delay_s is not None:
            self._timers[workload] = self._clock.now_s() + delay_s

    def on_batch(self, batch: Batch) -> None:
        """Mark what a batch of changes concerns."""
        for change in batch.changes:
            match change.table:
                case "workload" | "version" | "workloadStatus":
                    workload = "/".join(change.id.split("/")[:3])
                    if change.table != "workloadStatus":
                        self.mark(workload)
                    self._mark_others(workload, change)
                case "allocation" | "status":
                    self._mark_allocation(change)
                case "move":
                    self._mark_moved(change)
                case "node" | "intent" | "freeze" if self._is_thorough:
                    self.mark_all()
                case "node" | "intent":
                    self._mark_concerned(change)
                case "settings":
                    self._mark_blocked()  # they may evict now, or go elsewhere; what has its place keeps it

    def _mark_concerned(self, change: ObjectChange) -> None:
        """Mark what has something on the node, what lacks room, and of a new node the daemons."""
        for allocation in self._state.allocations_on(change.id):
            self.mark(keys.id_of_ref(allocation.workload))
        self._mark_blocked()
        if change.table == "node" and change.old is None:
            daemons = (r.ref for r in self._state.workloads.values() if r.ref.kind is Kind.DAEMON)
            for workload in sorted(map(keys.id_of_ref, daemons)):
                self.mark(workload)

    def _mark_blocked(self) -> None:
        for workload in sorted(self.blocked):
            self.mark(workload)

    def _mark_others(self, workload: str, change: ObjectChange) -> None:
        """Mark what looks at this workload: those that wait for it, and the CronJob that it was made for."""
        for waiting in [w for w, others in self.waiting.items() if workload in others]:
            self.mark(waiting)
        known = (change.old, change.new, self._state.workloads.get(workload))
        for owner in {keys.id_of_ref(r.owner) for r in known if isinstance(r, WorkloadRecord) and r.owner}:
            self.mark(owner)

    def _mark_allocation(self, change: ObjectChange) -> None:
        known = change.new or change.old
        if isinstance(known, Allocation | AllocationStatus):
            self.mark(keys.id_of_ref(known.workload))
            self._mark_others(keys.id_of_ref(known.workload), change)
        freed = change.new is None or (isinstance(change.new, AllocationStatus) and change.new.is_terminal)
        if freed and isinstance(known, Allocation | AllocationStatus):
            self._mark_daemons_on(known.node)
            self._mark_blocked()

    def _mark_moved(self, change: ObjectChange) -> None:
        known = change.new or change.old
        if isinstance(known, MoveRecord):
            self.mark(keys.id_of_ref(known.workload))

    def _mark_daemons_on(self, node: str) -> None:
        """Mark those that leave a drained node last: perhaps nothing else is left there now."""
        intent = self._state.intents.get(node)
        if intent and intent.is_draining:
            for allocation in self._state.allocations_on(node):
                if allocation.workload.kind is Kind.DAEMON:
                    self.mark(keys.id_of_ref(allocation.workload))

    async def take(self) -> list[str]:
        """Wait until something is marked, or due by a timer, and return it all, oldest first."""
        while not (taken := self.take_now()):
            due_s = self.due_at_s() - self._clock.now_s()
            if due_s > 0:
                self._woken.clear()
                await _wait(self._woken, due_s)
        return taken

    def take_now(self) -> list[str]:
        """Return what is marked, or due by a timer, oldest first; nothing if nothing is."""
        if not self._marked:
            self._fire_timers()
        taken = list(self._marked)
        self._marked.clear()
        return taken

    def due_at_s(self) -> float:
        """Return when the next timer fires; infinity if there is none."""
        return min([self._resync_at, *self._timers.values()])

    def _fire_timers(self) -> None:
        now = self._clock.now_s()
        for workload in [w for w, due in self._timers.items() if due <= now]:
            del self._timers[workload]
            self.mark(workload)
        if self._resync_at <= now:
            self._resync_at = now + RESYNC_S
            self.mark_all()


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()
