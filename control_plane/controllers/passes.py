"""One pass: decide about the workloads that were marked, place what they ask for, and turn it all into writes.

It reads the watch cache between awaits and writes nothing. The leader commits what it returns under its fence; a
rehearsal applies the same to a fork of the cache. So what is foretold is what is done.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from control_plane import keys
from control_plane.controllers.ages import Ages
from control_plane.controllers.asks import resolved
from control_plane.controllers.bursts import MOST_PER_PASS, REST_HOLDS_S, Portion, Rest, Rests, portion_of, with_left
from control_plane.controllers.cron_writes import cron_sight_of, cron_units
from control_plane.controllers.decision import Decision, Stop, due_stops
from control_plane.controllers.dirty import DirtySet
from control_plane.controllers.failing import CALMED, calmed, failing_of
from control_plane.controllers.freeze import NOT_FROZEN, held_back, is_frozen
from control_plane.controllers.history import kept_of
from control_plane.controllers.moving import with_moves
from control_plane.controllers.pinning import pinned_of
from control_plane.controllers.progress import ProgressClock
from control_plane.controllers.reconcile import Sight, progress_of, reconcile
from control_plane.controllers.snapshot import kept_since_restore, seen_of
from control_plane.controllers.standing import Standing, overfull
from control_plane.controllers.writes import (
    Unit,
    Writes,
    adoption_unit,
    eviction_units,
    placement_unit,
    removal_unit,
    status_unit,
    stop_unit,
    turn_unit,
)
from control_plane.dependencies import dependencies_of, unmet
from control_plane.state import ClusterState
from control_plane.store.protocol import Compare
from foundation.clock import Clock
from foundation.logs import Log
from manifests.allocations import Desired
from manifests.status import WorkloadStatus
from scheduler.ledger import Ledger
from scheduler.model import Ask, Plan
from scheduler.place import place

log = Log(__name__)


@dataclass(frozen=True, slots=True)
class Pass:
    """What one pass came to. `also` is what all its writes depend on beside their own compares."""

    decisions: Mapping[str, Decision]
    plan: Plan
    rests: Mapping[str, Rest]  # by workload: what is left for the next passes
    reused: frozenset[str]  # workloads that weren't decided about now, but by what was left of an earlier decision
    writes: Writes
    also: tuple[Compare, ...]


class Passes:
    """Makes passes over a cache. The same cache, ages and marks give the same pass."""

    def __init__(
        self,
        state: ClusterState,
        standing: Standing,
        ages: Ages,
        progress: ProgressClock,
        clock: Clock,
        *,
        most: int = MOST_PER_PASS,
    ) -> None:
        """`most` of one workload are placed in one pass."""
        self._state, self._standing, self._clock = state, standing, clock
        self._ages, self._progress = ages, progress
        self._most = most
        self._rests = Rests()

    def make(self, marked: Iterable[str], dirty: DirtySet) -> Pass:
        """Return what to do about the marked workloads, and about those for which room is coming."""
        workloads = dict.fromkeys((*marked, *sorted(dirty.expecting)))
        ledger, has_kept = self._standing.ledger(), any(node.kept for node in self._state.nodes.values())
        without = frozenset(overfull(ledger)) if has_kept else None
        taken = self._take_rests(workloads)
        decisions = {
            w: taken[w].decision if w in taken else self._decide(w, without, is_blocked=w in dirty.blocked)
            for w in workloads
        }
        frozen = is_frozen(self._state)
        going = {keys.id_of_ref(record.ref) for decision in decisions.values() for record in decision.deletes}
        asks = [ask for workload, decision in decisions.items() if workload not in going for ask in decision.asks]
        portion = Portion(tuple(asks), {}) if frozen else portion_of(asks, self._most)
        then = _without_stopped(ledger, decisions.values(), frozen=frozen)
        plan, failing = self._plan(with_moves(resolved(portion.asks, self._state), self._state), then, frozen=frozen)
        for workload in failing:
            decisions[workload] = replace(decisions[workload], messages=(*decisions[workload].messages, CALMED))
        plan = with_left(plan, portion.left)
        if frozen:
            held = {w: held_back(d, plan, w, self._state.workload_statuses.get(w)) for w, d in decisions.items()}
            units = [u for w, d in held.items() for u in self._status_units(w, d, plan)]
            return Pass(decisions, plan, {}, frozenset(taken), Writes(statuses=tuple(units)), ())
        writes = self._writes(decisions, plan, ledger.revision)
        return Pass(decisions, plan, self._rests_of(portion, decisions, taken), frozenset(taken), writes, (NOT_FROZEN,))

    def note(self, dirty: DirtySet, made: Pass) -> None:
        """Remember what is to be looked at again because of the pass, and when."""
        blocked = {keys.id_of_ref(b.workload) for b in made.plan.blocked}
        for workload in sorted(blocked - dirty.blocked):
            dirty.mark(workload)  # knowing that it is, its rollout may have another way
        dirty.blocked = (dirty.blocked - made.decisions.keys()) | blocked
        dirty.expecting = {keys.id_of_ref(b.workload) for b in made.plan.blocked if b.blocked.waits}
        for workload, decision in made.decisions.items():
            dirty.waiting.pop(workload, None)
            record = self._state.workloads.get(workload)
            if decision.is_waiting and record:
                dirty.waiting[workload] = frozenset(dependencies_of(record.workload))
            dirty.mark_after(workload, decision.again_after_s)
        for workload in sorted(made.reused):
            dirty.mark(workload)  # what marked it for this pass was not looked at
        for workload, rest in made.rests.items():
            if workload not in blocked:
                self._rests.keep(workload, rest)
                dirty.mark(workload)

    def after_conflict(self) -> None:
        """Decide everything anew: not all is as it was planned."""
        self._rests.forget()

    def _take_rests(self, workloads: Iterable[str]) -> dict[str, Rest]:
        now_s, revision_of = self._clock.now_s(), self._state.workloads.modified_at
        rests = ((w, self._rests.take(w, revision_of(w), now_s)) for w in workloads)
        return {workload: rest for workload, rest in rests if rest}

    def _rests_of(
        self, portion: Portion, decisions: Mapping[str, Decision], taken: Mapping[str, Rest]
    ) -> dict[str, Rest]:
        """Return what is left of the decisions; what was a rest already holds no longer for it."""
        until_s = self._clock.now_s() + REST_HOLDS_S
        return {
            workload: Rest(
                replace(decisions[workload], asks=asks),
                self._state.workloads.modified_at(workload),
                taken[workload].until_s if workload in taken else until_s,
            )
            for workload, asks in portion.rests.items()
        }

    def _plan(self, asks: Sequence[Ask], ledger: Ledger, *, frozen: bool) -> tuple[Plan, set[str]]:
        """Return the plan, and the workloads that would evict others but fail too often for that."""
        if frozen:
            asks = [replace(ask, preempts=False) for ask in asks]
        failing: set[str] = set()
        while True:
            plan = place(calmed(asks, failing), ledger, seed=ledger.revision)
            more = failing_of(self._state, (e.by for e in plan.evictions), self._clock.wall_s())
            if not more:
                return plan, failing
            failing |= more

    def _decide(self, workload: str, without: frozenset[str] | None, *, is_blocked: bool) -> Decision:
        """Return what to do about one workload. One that can't be decided about never stops the others.

        `without` are the nodes that take nothing over from before a restore; None: no node keeps anything from then.
        """
        if self._state.is_unreadable(keys.WORKLOADS + workload):
            return Decision()  # whatever it says, it doesn't say that all of it is to be stopped
        record = self._state.workloads.get(workload)
        sight = Sight(
            record=record,
            seen=seen_of(self._state, workload, self._ages),
            nodes=self._standing.views(),
            said=self._state.workload_statuses.get(workload),
            versions=self._state.versions_of(workload),
            kept=kept_since_restore(self._state, workload, without) if without is not None else (),
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

    def _writes(self, decisions: Mapping[str, Decision], plan: Plan, revision: int) -> Writes:
        """Return all writes, stops first: they free what placements may need next."""
        units = [stop_unit(self._state, stop) for stop in self._stops(decisions, plan)]
        units += eviction_units(self._state, plan.evictions)
        units += [turn_unit(self._state, a) for d in decisions.values() for a in d.turns]
        for d in decisions.values():
            history = kept_of(self._state, d.removals, self._clock.wall_s())
            units += [removal_unit(self._state, a, history.get(a.id)) for a in d.removals]
        units += [adoption_unit(self._state, a) for d in decisions.values() for a in d.adoptions]
        units += cron_units(self._state, decisions, self._clock.wall_s())
        statuses = [u for workload, decision in decisions.items() for u in self._status_units(workload, decision, plan)]
        return Writes(tuple(units), tuple(self._placements(decisions, plan, revision)), tuple(statuses))

    def _placements(self, decisions: Mapping[str, Decision], plan: Plan, revision: int) -> Iterator[Unit]:
        for placement in plan.placements:
            succession = decisions[keys.id_of_ref(placement.workload)].successions.get(placement.index)
            yield placement_unit(self._state, placement, succession, revision=revision, wall_s=self._clock.wall_s())

    def _stops(self, decisions: Mapping[str, Decision], plan: Plan) -> Iterator[Stop]:
        placed: defaultdict[str, set[int]] = defaultdict(set)
        for placement in plan.placements:
            placed[keys.id_of_ref(placement.workload)].add(placement.index)
        for workload, decision in decisions.items():
            statuses = (self._state.statuses.get(stop.allocation.id) for stop in decision.stops)
            ended = {status.id for status in statuses if status and status.is_terminal}
            yield from due_stops(decision, placed[workload], ended)

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
            pinned=pinned_of(self._state, workload, record, said),
        )
        return [status_unit(self._state, workload, status)] if status != said else []


def _without_stopped(ledger: Ledger, decisions: Iterable[Decision], *, frozen: bool) -> Ledger:
    """Return the ledger in which what is being stopped still holds its resources, but is no longer wanted.

    In a frozen cluster nothing is stopped yet, so that no room comes of it.
    """
    stopped = [stop.allocation for d in decisions for stop in d.stops]
    turned = [a for d in decisions for a in d.turns if a.desired is not Desired.RUN]
    if not (stopped or turned):
        return ledger
    fork = ledger.fork()
    for allocation in stopped:
        fork.no_longer_wanted(allocation.node, allocation.id, is_leaving=not frozen)
    for allocation in turned:
        is_leaving = allocation.desired is Desired.STOP and not frozen
        fork.no_longer_wanted(allocation.node, allocation.id, is_leaving=is_leaving)
    return fork
