"""What follows for allocations on lost nodes, and on nodes that are back: onDisconnect, for services and jobs. Pure.

It stands around the reconciler of a kind, which knows nothing of it. Before: an allocation that is still waited for is
shown as one that holds its slot and isn't ready. After: an original that may come back is set aside (desired: spare)
and not stopped; a spare that is back is chosen for its slot, or stopped; and a slot under stopAfter is asked for only
once nothing of it can run any more. docs/decisions/0013-at-most-once.md argues why that is so.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from control_plane.controllers.decision import Decision, Seen, Stop, Succession, soonest
from manifests.allocations import Allocation, Desired, Phase
from manifests.policies import Keep
from manifests.quantities import render_duration
from manifests.workloads import JobSpec, VersionRecord, WorkloadRecord, WorkloadSpec
from scheduler.model import Eligibility

KILL_S = 2.0  # within that a node has killed what it began to kill: its guard looks up every quarter of a second
MARGIN_S = 2.0  # for what was acknowledged while the node was being called lost
DRIFT = 0.001  # two machines' clocks differ by less, each second
SETTLE_S = 2.0  # after a node is back, its statuses are those of before for a moment
_SILENT = (Eligibility.LOST, Eligibility.SUSPECT)

Reconcile = Callable[[Sequence[Seen]], Decision]


def surely_dead_after_s(spec: WorkloadSpec) -> float | None:
    """Return for how long its node must be known to be lost before nothing of an allocation runs; None: who knows."""
    silent_s = spec.dead_after_s
    return None if silent_s is None else silent_s * (1 + DRIFT) + KILL_S + MARGIN_S


def replaced_after_s(spec: WorkloadSpec, version: WorkloadSpec) -> float:
    """Return how long after its node was lost an allocation is replaced; `version` is the spec that it was made of."""
    return max(spec.on_disconnect.replace_after_s, surely_dead_after_s(version) or 0.0)


def reconcile_around(
    record: WorkloadRecord, seen: Sequence[Seen], versions: Mapping[int, VersionRecord], reconcile: Reconcile
) -> Decision:
    """Return what the kind's reconciler decides, but for what onDisconnect says otherwise."""
    policy = _Policy(record, versions)
    awaited = {s.id for s in seen if s.is_wanted and s.is_out_of_reach and policy.replaced_in_s(s) > 0}
    shown = [replace(s, is_awaited=True) if s.id in awaited else s for s in seen if not _is_spare(s)]
    choice = _Choice(policy, reconcile(shown), {s.id: s for s in seen}, shown)
    choice.set_aside_the_lost(awaited)
    for spare in _oldest_first([s for s in seen if _is_spare(s)]):
        choice.judge(spare)
    choice.hold_back(seen)
    choice.name_predecessors()
    waiting = [s for s in seen if s.id in awaited]
    again_after_s = choice.decision.again_after_s
    waits = [*choice.waits, *(policy.replaced_in_s(s) for s in waiting)]
    waits.append(math.inf if again_after_s is None else again_after_s)
    messages = (*choice.decision.messages, *choice.messages, *(_awaited(s, policy) for s in waiting[:3]))
    return replace(
        choice.decision,
        stops=tuple(choice.stops),
        turns=tuple(choice.turns),
        messages=tuple(dict.fromkeys(messages)),
        again_after_s=soonest(wait for wait in waits if math.isfinite(wait)),
    )


def _is_spare(s: Seen) -> bool:
    return s.allocation.desired is Desired.SPARE and not s.has_ended


def _oldest_first(spares: Sequence[Seen]) -> list[Seen]:
    """Order them by who took over from whom."""
    before = {s.id: s.allocation.replaces for s in spares}

    def age(s: Seen) -> int:
        ancestor, count = before.get(s.id), 0
        while ancestor in before and count < len(before):
            ancestor, count = before[ancestor], count + 1
        return count

    return sorted(spares, key=lambda s: (age(s), s.id))


def _awaited(s: Seen, policy: "_Policy") -> str:
    after = render_duration(round(replaced_after_s(policy.record.workload.spec, policy.spec_of(s))))
    node = f"node {s.allocation.node} is {'deleted' if s.node is None else 'lost'}"
    return f"{s.id}: its {node}; it is replaced {after} after that, unless the node is back before"


@dataclass(frozen=True, slots=True)
class _Policy:
    """The workload's policy; how long an allocation may run without word is that of its own version."""

    record: WorkloadRecord
    versions: Mapping[int, VersionRecord]

    @property
    def keep(self) -> Keep:
        return self.record.workload.spec.on_disconnect.keep

    @property
    def is_job(self) -> bool:
        return isinstance(self.record.workload.spec, JobSpec)

    def spec_of(self, s: Seen) -> WorkloadSpec:
        version = self.versions.get(s.allocation.version)
        own: WorkloadSpec = version.workload.spec if version else self.record.workload.spec
        return own

    def replaced_in_s(self, s: Seen) -> float:
        """Return how much longer the allocation of a lost node is waited for."""
        return replaced_after_s(self.record.workload.spec, self.spec_of(s)) - s.lost_for_s

    def dead_in_s(self, s: Seen) -> float:
        """Return in how long nothing of it can run any more where that matters; infinity: once its node says so."""
        after_s = surely_dead_after_s(self.spec_of(s))
        if after_s is None or s.has_ended:
            return 0.0
        return max(0.0, after_s - s.lost_for_s) if s.node in (None, Eligibility.LOST) else math.inf

    def may_come_back(self, s: Seen) -> bool:
        """Say whether it is worth waiting for: what may run only with word has been ended by then."""
        return self.keep is not Keep.REPLACEMENT and self.spec_of(s).on_disconnect.stop_after_s is None

    def still_runs(self, s: Seen) -> bool:
        return s.is_ready or (self.is_job and s.phase is Phase.RUNNING and s.node not in _SILENT)

    def prefers(self, spare: Seen, holder: Seen | None) -> bool:
        """Say whether the slot goes back to the spare, whose node is there again."""
        if holder is None or not self.still_runs(spare):
            return self.still_runs(spare)
        match self.keep:
            case Keep.ORIGINAL:
                return True
            case Keep.LONGEST_RUNNING:
                # In the attempt that ran when its node was lost, it has run since before the other one was placed.
                is_longer = spare.status is not None and spare.status.attempt == spare.allocation.spared_attempt
                return is_longer or not self.still_runs(holder)
            case Keep.REPLACEMENT:
                return False


@dataclass(slots=True)
class _Choice:
    """A decision in the making."""

    policy: _Policy
    decision: Decision
    seen: Mapping[str, Seen]
    shown: Sequence[Seen]
    stops: list[Stop] = field(default_factory=list)
    turns: list[Allocation] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def set_aside_the_lost(self, awaited: set[str]) -> None:
        """Keep what a lost node may bring back, where the kind's reconciler would stop it because it is lost."""
        for stop in self.decision.stops:
            s = self.seen[stop.allocation.id]
            is_lost = s.is_out_of_reach and s.node is not None and s.id not in awaited
            if is_lost and self.policy.may_come_back(s) and not self.decision.is_complete:
                attempt = s.status.attempt if s.status and self._ran(s) else 0
                note = f"node {s.allocation.node} was lost, and its slot goes to another, until the node is back"
                spare = {"desired": Desired.SPARE, "note": note, "spared_attempt": attempt}
                self.turns.append(s.allocation.model_copy(update=spare))
            else:
                self.stops.append(stop)

    def _ran(self, s: Seen) -> bool:
        assert s.status is not None
        return s.status.is_ready or (self.policy.is_job and s.status.phase is Phase.RUNNING)

    def judge(self, spare: Seen) -> None:
        """Give the spare its slot back, stop it, or leave it as it is for now."""
        index = spare.allocation.index
        holder = self._holder(index)
        version = holder.allocation.version if holder else self._asked_version(index)
        if reason := self._unneeded(spare, version):
            self.stops.append(Stop(spare.allocation, reason))
        elif spare.node in _SILENT:
            return
        elif spare.back_for_s < SETTLE_S:
            self.waits.append(SETTLE_S - spare.back_for_s)
            self._withdraw([index])
        elif not self._is_younger(spare, holder) and self.policy.prefers(spare, holder):
            self._give_back(spare, holder)
        elif holder is not None:
            self.stops.append(Stop(spare.allocation, self._outdone(spare, holder)))
        elif not self.policy.is_job or version is not None:
            self.stops.append(Stop(spare.allocation, f"it no longer runs on node {spare.allocation.node}"))

    def _holder(self, index: int) -> Seen | None:
        """Return who has the slot by this decision."""
        going = {s.allocation.id for s in self.stops} | {a.id for a in self.turns}
        back = [self.seen[a.id] for a in self.turns if a.index == index and a.desired is Desired.RUN]
        there = [s for s in self.shown if s.allocation.index == index and s.is_wanted and s.id not in going]
        return next(iter([*back, *there]), None)

    def _is_younger(self, spare: Seen, holder: Seen | None) -> bool:
        """Say whether the spare once took over from who has the slot now: that one came back before it."""
        older: Seen | None = spare
        for _ in range(len(self.seen)):
            older = self.seen.get(older.allocation.replaces or "") if older else None
            if older is not None and holder is not None and older.id == holder.id:
                return True
        return False

    def _asked_version(self, index: int) -> int | None:
        return next((ask.version for ask in self.decision.asks if index in ask.indexes), None)

    def _unneeded(self, spare: Seen, version: int | None) -> str:
        """Return why the spare can't have its slot back whatever becomes of its node, "" if it can."""
        allocation = spare.allocation
        if self.decision.is_complete:
            return "the job has ended"
        if any(s.phase is Phase.SUCCEEDED and s.allocation.index == allocation.index for s in self.shown):
            return "its index has succeeded meanwhile" if self.policy.is_job else "its slot has ended"
        if spare.node is None:
            return f"node {allocation.node} was deleted"
        if spare.node is Eligibility.DRAINING:
            return f"node {allocation.node} is being drained"
        if version is not None and version != allocation.version:
            return f"version {version} replaces version {allocation.version}"
        return "" if version is not None or self.policy.is_job else "its slot isn't needed any more"

    def _give_back(self, spare: Seen, holder: Seen | None) -> None:
        node, keep = spare.allocation.node, self.policy.keep
        note = f"node {node} is back, and it keeps its slot (onDisconnect.keep: {keep})"
        self.turns.append(spare.allocation.model_copy(update={"desired": Desired.RUN, "note": note}))
        self._withdraw([spare.allocation.index])
        if holder is not None:
            self.turns = [turn for turn in self.turns if turn.id != holder.id]
            reason = f"{spare.id}, which it replaced, is back on node {node} (onDisconnect.keep: {keep})"
            self.stops.append(Stop(holder.allocation, reason))

    def _outdone(self, spare: Seen, holder: Seen) -> str:
        taken = f"{holder.id} took its slot while node {spare.allocation.node} was lost"
        if not self.policy.still_runs(spare):
            return f"{taken}, and it is not healthy itself"
        return f"{taken} (onDisconnect.keep: {self.policy.keep})"

    def hold_back(self, seen: Sequence[Seen]) -> None:
        """Ask for no slot in which one may still run that mustn't run twice, and forget no such one."""
        unsure = {s.id: left for s in seen if (left := self.policy.dead_in_s(s)) > 0}
        asked = {index for ask in self.decision.asks for index in ask.indexes}
        held = [self.seen[i] for i in unsure if self.seen[i].allocation.index in asked]
        self._withdraw([s.allocation.index for s in held])
        self.waits += [unsure[s.id] for s in held]
        for s in held[:3]:
            self.messages.append(
                f"slot {s.allocation.index} stays empty until {s.id} on node {s.allocation.node} has surely ended"
            )
        kept = tuple(a for a in self.decision.removals if a.id not in unsure)
        self.decision = replace(self.decision, removals=kept)

    def name_predecessors(self) -> None:
        """Have what is asked for in a spare's slot known as what replaces it: by that the older one is told later."""
        asked = {index for ask in self.decision.asks for index in ask.indexes}
        spares = _oldest_first([s for s in self.seen.values() if _is_spare(s) and s.allocation.index in asked])
        youngest = {s.allocation.index: Succession(s.id, s.allocation.reschedules) for s in spares}
        self.decision = replace(self.decision, successions=youngest | dict(self.decision.successions))

    def _withdraw(self, indexes: Sequence[int]) -> None:
        """Ask for these slots no more."""
        left = (replace(ask, indexes=tuple(i for i in ask.indexes if i not in indexes)) for ask in self.decision.asks)
        self.decision = replace(self.decision, asks=tuple(ask for ask in left if ask.indexes))
