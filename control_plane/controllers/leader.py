"""What a server does while it leads: look at what changed, decide, place, and commit under the fence. Over and over.

All deciding is pure and elsewhere; here it meets the cache, the store and the clock. Nothing is kept that a new leader
couldn't find again: only how long things have been so, and what was blocked in the last pass.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from control_plane import keys
from control_plane.controllers.ages import Ages
from control_plane.controllers.asks import resolved
from control_plane.controllers.bookkeeping import Bookkeeping
from control_plane.controllers.bursts import Portion, portion_of, with_left
from control_plane.controllers.cron_writes import cron_sight_of, cron_units
from control_plane.controllers.decision import Decision
from control_plane.controllers.dirty import DirtySet
from control_plane.controllers.failing import CALMED, calmed, failing_of
from control_plane.controllers.freeze import NOT_FROZEN, held_back, is_frozen
from control_plane.controllers.history import kept_of
from control_plane.controllers.losses import LossWatch
from control_plane.controllers.progress import ProgressClock
from control_plane.controllers.reconcile import Sight, progress_of, reconcile
from control_plane.controllers.snapshot import kept_since_restore, seen_of
from control_plane.controllers.standing import Standing, overfull
from control_plane.controllers.writes import (
    Unit,
    adoption_unit,
    eviction_units,
    placement_unit,
    removal_unit,
    status_unit,
    stop_unit,
    transactions,
    turn_unit,
)
from control_plane.dependencies import dependencies_of, unmet
from control_plane.state import ClusterState
from control_plane.store.protocol import Compare, CreatedAt, Store, Txn
from foundation.clock import Clock
from foundation.logs import Log
from foundation.tasks import TaskGroup
from manifests.allocations import Desired
from manifests.errors import ConflictError
from manifests.status import WorkloadStatus
from scheduler.ledger import Ledger
from scheduler.model import Ask, Plan
from scheduler.place import place

log = Log(__name__)

PASS_GAP_S = 0.01  # a burst of events makes few passes
REST_SHARE = 3.0  # after a pass that took long to decide, so many times as long is left to the sessions
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
        preemption: bool = True,
    ) -> None:
        self._store, self._state, self._clock, self._bookkeeping = store, state, clock, bookkeeping
        self._standing, self._preemption = standing, preemption
        self._losses = LossWatch(store, state, clock, lost_after_s=lost_after_s)
        self._decided_in_s = 0.0  # the last pass

    async def lead(self, fence: CreatedAt) -> None:
        self._ages = Ages(self._state, self._clock)
        self._progress = ProgressClock(self._clock)
        dirty = DirtySet(self._state, self._clock)
        unsubscribe = [self._state.subscribe(subscriber) for subscriber in (dirty.on_batch, self._ages.on_batch)]
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
                for workload in workloads:
                    dirty.mark(workload)
                pause_s = CONFLICT_PAUSE_S
            await self._clock.sleep(pause_s)
            leader = self._state.leader.stored("")
            if leader is not None and leader.created_at > fence.revision:
                return

    async def _pass(self, fence: CreatedAt, dirty: DirtySet, workloads: Sequence[str]) -> None:
        began_s = self._clock.now_s()
        workloads = [*workloads, *sorted(dirty.expecting.difference(workloads))]
        ledger = self._standing.ledger()
        decisions = {w: self._decide(w, ledger, is_blocked=w in dirty.blocked) for w in workloads}
        frozen = is_frozen(self._state)
        going = {keys.id_of_ref(record.ref) for decision in decisions.values() for record in decision.deletes}
        asks = [ask for workload, decision in decisions.items() if workload not in going for ask in decision.asks]
        asks = resolved(asks, self._state.workloads)
        portion = Portion(tuple(asks), {}) if frozen else portion_of(asks)
        plan, failing = self._plan(portion.asks, _without_stopped(ledger, decisions.values()), frozen=frozen)
        for workload in failing:
            decisions[workload] = replace(decisions[workload], messages=(*decisions[workload].messages, CALMED))
        plan = with_left(plan, portion.left)
        self._decided_in_s = self._clock.now_s() - began_s
        blocked = {keys.id_of_ref(b.workload) for b in plan.blocked}
        for workload in sorted(blocked - dirty.blocked):
            dirty.mark(workload)  # knowing that it is, its rollout may have another way
        dirty.blocked = (dirty.blocked - decisions.keys()) | blocked
        dirty.expecting = {keys.id_of_ref(b.workload) for b in plan.blocked if b.blocked.waits}
        self._note_waiting(dirty, decisions)
        for workload, decision in decisions.items():
            dirty.mark_after(workload, decision.again_after_s)
        for workload in portion.left.keys() - blocked:
            dirty.mark(workload)
        if frozen:
            held = {w: held_back(d, plan, w, self._state.workload_statuses.get(w)) for w, d in decisions.items()}
            await self._commit(fence, [u for w, d in held.items() for u in self._status_units(w, d, plan)])
        else:
            await self._commit(fence, self._units(decisions, plan, ledger.revision), also=(NOT_FROZEN,))

    def _plan(self, asks: Sequence[Ask], ledger: Ledger, *, frozen: bool) -> tuple[Plan, set[str]]:
        """Return the plan, and the workloads that would evict others but fail too often for that."""
        may_evict = self._preemption and not frozen
        failing: set[str] = set()
        while True:
            plan = place(calmed(asks, failing), ledger, seed=ledger.revision, may_evict=may_evict)
            more = failing_of(self._state, plan.evictions, self._clock.wall_s())
            if not more:
                return plan, failing
            failing |= more

    def _note_waiting(self, dirty: DirtySet, decisions: Mapping[str, Decision]) -> None:
        """Remember whose changes are to be noticed on behalf of others."""
        for workload, decision in decisions.items():
            dirty.waiting.pop(workload, None)
            record = self._state.workloads.get(workload)
            if decision.is_waiting and record:
                dirty.waiting[workload] = frozenset(dependencies_of(record.workload))

    def _decide(self, workload: str, ledger: Ledger, *, is_blocked: bool) -> Decision:
        """Return what to do about one workload. One that can't be decided about never stops the others."""
        if self._state.is_unreadable(keys.WORKLOADS + workload):
            return Decision()  # whatever it says, it doesn't say that all of it is to be stopped
        record = self._state.workloads.get(workload)
        sight = Sight(
            record=record,
            seen=seen_of(self._state, workload, self._ages),
            nodes=self._standing.views(),
            said=self._state.workload_statuses.get(workload),
            versions=self._state.versions_of(workload),
            kept=kept_since_restore(self._state, workload, set(overfull(ledger))) if self._has_kept() else (),
            was_blocked=is_blocked,
            cron=cron_sight_of(self._state, workload, self._clock.wall_s()),
            waits_for=unmet(self._state, record) if record else (),
        )
        try:
            progress = None if is_frozen(self._state) else progress_of(sight)
            stalled_for_s = self._progress.stalled_for_s(workload, progress)
            return reconcile(replace(sight, stalled_for_s=stalled_for_s))
        except Exception as error:
            log.error("a workload could not be reconciled", workload=workload, exc_info=error)
            return Decision(messages=(f"it can't be reconciled, which is a bug: {error}",))

    def _has_kept(self) -> bool:
        return any(node.kept for node in self._state.nodes.values())

    def _units(self, decisions: dict[str, Decision], plan: Plan, revision: int) -> list[Unit]:
        """Return all writes, stops first: they free what placements may need next."""
        units = [stop_unit(self._state, stop) for d in decisions.values() for stop in d.stops]
        units += eviction_units(self._state, plan.evictions)
        units += [turn_unit(self._state, a) for d in decisions.values() for a in d.turns]
        for d in decisions.values():
            kept = kept_of(self._state, d.removals, self._clock.wall_s())
            units += [removal_unit(self._state, a, kept.get(a.id)) for a in d.removals]
        units += [adoption_unit(self._state, a) for d in decisions.values() for a in d.adoptions]
        units += cron_units(self._state, decisions, self._clock.wall_s())
        for placement in plan.placements:
            succession = decisions[keys.id_of_ref(placement.workload)].successions.get(placement.index)
            unit = placement_unit(self._state, placement, succession, revision=revision, wall_s=self._clock.wall_s())
            units.append(unit)
        for workload, decision in decisions.items():
            units += self._status_units(workload, decision, plan)
        return units

    def _status_units(self, workload: str, decision: Decision, plan: Plan) -> list[Unit]:
        record = self._state.workloads.get(workload)
        if record is None:
            return []  # the collector takes what is left over
        said = self._state.workload_statuses.get(workload)
        status = WorkloadStatus(
            ref=record.ref,
            generation=record.generation,
            blocked=tuple(b.blocked for b in plan.blocked if keys.id_of_ref(b.workload) == workload),
            messages=decision.messages,
            is_complete=decision.is_complete,
            is_failed=decision.is_failed,
            is_waiting=decision.is_waiting,
            rollout=decision.rollout or (said.rollout if said and said.ref.uid == record.uid else None),
        )
        return [status_unit(self._state, workload, status)] if status != said else []

    async def _commit(self, fence: CreatedAt, units: list[Unit], *, also: Sequence[Compare] = ()) -> None:
        """Commit everything, and wait until the cache has it: the next pass must see what this one did."""
        revision = self._state.revision
        try:
            for txn in transactions(fence, units, also=also):
                revision = await self._store.commit(txn)
                _log_writes(txn, revision)
        finally:
            await self._state.wait_for(revision)


class _DeposedError(Exception):
    """Another server leads."""


def _without_stopped(ledger: Ledger, decisions: Iterable[Decision]) -> Ledger:
    """Return the ledger in which what is being stopped still holds its resources, but is no longer wanted."""
    stopped = [stop.allocation for d in decisions for stop in d.stops]
    turned = [a for d in decisions for a in d.turns if a.desired is not Desired.RUN]
    if not (stopped or turned):
        return ledger
    fork = ledger.fork()
    for allocation in stopped:
        fork.no_longer_wanted(allocation.node, allocation.id)
    for allocation in turned:
        is_leaving = allocation.desired is Desired.STOP
        fork.no_longer_wanted(allocation.node, allocation.id, is_leaving=is_leaving)
    return fork


def _log_writes(txn: Txn, revision: int) -> None:
    allocations = sum(write.key.startswith(keys.ALLOCATIONS) for write in txn.writes)
    if allocations:
        log.info("allocations changed", count=allocations, revision=revision)
