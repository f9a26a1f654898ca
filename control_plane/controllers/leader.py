"""What a server does while it leads: look at what changed, decide, place, and commit under the fence. Over and over.

All deciding is elsewhere (`passes`); here it meets the store and the clock. Nothing is kept that a new leader
couldn't find again: only how long things have been so, and what was blocked in the last pass.
"""

import asyncio
from collections.abc import Sequence

from control_plane import keys
from control_plane.controllers.ages import Ages
from control_plane.controllers.bookkeeping import Bookkeeping
from control_plane.controllers.bursts import MOST_PER_PASS
from control_plane.controllers.dirty import DirtySet
from control_plane.controllers.losses import LossWatch
from control_plane.controllers.passes import Pass, Passes
from control_plane.controllers.progress import ProgressClock
from control_plane.controllers.standing import Standing
from control_plane.controllers.writes import batches
from control_plane.state import ClusterState
from control_plane.store.protocol import CreatedAt, Store, Txn
from foundation.clock import Clock
from foundation.logs import Log
from foundation.tasks import TaskGroup
from manifests.errors import ConflictError

log = Log(__name__)

PASS_GAP_S = 0.01  # a burst of events makes few passes
COMMITS_AT_ONCE = 4  # of placements: etcd takes in the next while it writes one
REST_SHARE = 1.0  # after a pass that took long to decide, so many times as long is left to the sessions
LONGEST_REST_S = 0.25
CONFLICT_PAUSE_S = 0.05


class Leader:
    """Leads the cluster under one fence, from `lead` until cancelled or deposed."""

    def __init__(
        self,
        store: Store,
        state: ClusterState,
        standing: Standing,
        clock: Clock,
        bookkeeping: Bookkeeping,
        *,
        lost_after_s: float,
        portion: int = MOST_PER_PASS,
    ) -> None:
        """`portion` is how many allocations of one workload are placed in one pass at most."""
        self._store, self._state, self._clock, self._bookkeeping = store, state, clock, bookkeeping
        self._standing, self._portion = standing, portion
        self._losses = LossWatch(store, state, clock, lost_after_s=lost_after_s)
        self._decided_in_s = 0.0  # the last pass

    async def lead(self, fence: CreatedAt) -> None:
        ages = Ages(self._state, self._clock)
        self._pass_maker = Passes(
            self._state,
            self._standing,
            ages,
            ProgressClock(self._clock),
            self._clock,
            most=self._portion,
        )
        dirty = DirtySet(self._state, self._clock)
        unsubscribe = [self._state.subscribe(subscriber) for subscriber in (dirty.on_batch, ages.on_batch)]
        try:
            async with TaskGroup() as tasks:
                tasks.create_task(self._losses.run(fence), name="loss-watch")
                tasks.create_task(self._bookkeeping.run(fence), name="bookkeeping")
                await self._passes(fence, dirty)
                raise _DeposedError
        except* _DeposedError:
            log.warning("was deposed", revision=fence.revision)
        finally:
            for end in unsubscribe:
                end()

    async def _passes(self, fence: CreatedAt, dirty: DirtySet) -> None:
        """Make passes until deposed."""
        while True:
            workloads = await dirty.take()
            try:
                await self._pass(fence, dirty, workloads)
                pause_s = max(PASS_GAP_S, min(REST_SHARE * self._decided_in_s, LONGEST_REST_S))
            except ConflictError:
                self._pass_maker.after_conflict()
                for workload in workloads:
                    dirty.mark(workload)
                pause_s = CONFLICT_PAUSE_S
            await self._clock.sleep(pause_s)
            leader = self._state.leader.stored("")
            if leader is not None and leader.created_at > fence.revision:
                return

    async def _pass(self, fence: CreatedAt, dirty: DirtySet, workloads: Sequence[str]) -> None:
        began_s = self._clock.now_s()
        made = self._pass_maker.make(workloads, dirty)
        self._decided_in_s = self._clock.now_s() - began_s
        self._pass_maker.note(dirty, made)
        await self._commit(fence, made)

    async def _commit(self, fence: CreatedAt, made: Pass) -> None:
        """Commit everything, and wait until the cache has it: the next pass must see what this one did."""
        revision = self._state.revision
        try:
            for batch in batches(fence, made.writes, also=made.also, at_once=COMMITS_AT_ONCE):
                outcomes = await asyncio.gather(*map(self._store.commit, batch), return_exceptions=True)
                revision = max([revision, *(o for o in outcomes if isinstance(o, int))])
                for txn, outcome in zip(batch, outcomes, strict=True):
                    if isinstance(outcome, int):
                        _log_writes(txn, outcome)
                failures = [o for o in outcomes if isinstance(o, BaseException)]
                if failures:  # a conflict is tried again, so anything worse comes first
                    raise min(failures, key=lambda failure: isinstance(failure, ConflictError))
        finally:
            await self._state.wait_for(revision)


class _DeposedError(Exception):
    """Another server leads."""


def _log_writes(txn: Txn, revision: int) -> None:
    allocations = sum(write.key.startswith(keys.ALLOCATIONS) for write in txn.writes)
    if allocations:
        log.info("allocations changed", count=allocations, revision=revision)
