"""A cluster as a rollout meets it: time, versions that never get well, crashes in place and for good, new leaders.

It plays store, nodes, agents and leader at once on the pure parts, and checks S2 and S12 after every pass.
"""

from collections import Counter
from dataclasses import dataclass, field, replace

from control_plane.controllers.decision import Decision, Seen, Stop, due_stops
from control_plane.controllers.progress import ProgressClock
from control_plane.controllers.reconcile import Sight, progress_of, reconcile
from control_plane.controllers.rollouts import serves
from control_plane.controllers.snapshot import placed
from control_plane.controllers.writes import allocation_of
from manifests.allocations import Allocation, AllocationStatus, Desired, Phase
from manifests.rollouts import RolloutState
from manifests.status import WorkloadStatus
from manifests.workloads import DaemonSpec, ServiceSpec, VersionRecord, WorkloadRecord
from scheduler.model import Eligibility, NodeView, Plan, Snapshot, Vector
from scheduler.place import place
from tests.builders import status, stopping, version_record
from tests.clocks import StepClock

ROOM = Vector(1000, 2**30, 1000, 2**40)  # ten of the default reservation by cpu


@dataclass
class RolloutWorld:
    """One service or daemon. `bad` versions run but never get ready; `doomed` ones end at once."""

    record: WorkloadRecord
    nodes: dict[str, Eligibility]
    room: Vector = ROOM
    clock: StepClock = field(default_factory=StepClock)
    bad: set[int] = field(default_factory=set)
    doomed: set[int] = field(default_factory=set)
    allocations: dict[str, Allocation] = field(default_factory=dict)
    statuses: dict[str, AllocationStatus] = field(default_factory=dict)
    versions: dict[int, VersionRecord] = field(default_factory=dict)
    said: WorkloadStatus | None = None
    revision: int = 1
    states: list[RolloutState] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.versions[self.record.version] = version_record(self.record, self.record.version)
        self.lead()

    def lead(self) -> None:
        """Have a new leader: it knows the store and no times."""
        self._progress = ProgressClock(self.clock)
        self._since: dict[tuple[str, str], float] = {}

    # What users do.

    def change(self, *, bad: bool = False, doomed: bool = False, **spec: object) -> None:
        version = max(self.versions) + 1
        if bad:
            self.bad.add(version)
        if doomed:
            self.doomed.add(version)
        self._edit(version=version, **spec)
        self.versions[version] = version_record(self.record, version)

    def scale(self, replicas: int) -> None:
        self._edit(replicas=replicas)

    def pause(self, paused: bool) -> None:
        self.record = self.record.model_copy(update={"paused": paused, "generation": self.record.generation + 1})

    def promote(self) -> None:
        update = {"promoted": self.record.version, "generation": self.record.generation + 1}
        self.record = self.record.model_copy(update=update)

    def _edit(self, *, version: int | None = None, **spec: object) -> None:
        workload = self.record.workload
        changed = workload.model_copy(update={"spec": workload.spec.model_copy(update=spec)})
        update = {"workload": changed, "generation": self.record.generation + 1}
        self.record = self.record.model_copy(update=update | ({"version": version} if version else {}))

    # What nodes do.

    def act(self, *, skip: int = -1) -> None:
        """Every node in reach, but one if asked for, does what it is told."""
        for number, a in enumerate(list(self.allocations.values())):
            known = self.statuses.get(a.id)
            if self.is_out_of_reach(a) or (known and known.is_terminal) or number == skip:
                continue
            if a.desired is Desired.STOP:
                self.say(a, Phase.STOPPED)
            elif a.version in self.doomed:
                self.say(a, Phase.FAILED)
            else:
                self.say(a, Phase.RUNNING, ready=a.version not in self.bad)

    def crash(self, number: int, *, for_good: bool = False) -> None:
        """Have one of those that run end: to come again in place, or not."""
        running = [a for a in self.wanted() if (s := self.statuses.get(a.id)) and s.phase is Phase.RUNNING]
        if running:
            self.say(running[number % len(running)], Phase.FAILED if for_good else Phase.BACKOFF)

    def say(self, a: Allocation, phase: Phase, *, ready: bool = True) -> None:
        self.statuses[a.id] = status(a, phase, ready=ready)

    def is_out_of_reach(self, a: Allocation) -> bool:
        return self.nodes.get(a.node) in (None, Eligibility.LOST)

    # What the leader does.

    def seen(self) -> list[Seen]:
        return [self._seen(a) for a in sorted(self.allocations.values(), key=lambda a: a.id)]

    def _seen(self, a: Allocation) -> Seen:
        known = self.statuses.get(a.id)
        ended = self._age("ended", a.id, is_so=known is not None and known.is_terminal)
        ready = self._age("ready", a.id, is_so=known is not None and known.is_ready)
        return Seen(a, known, self.nodes.get(a.node), ended_for_s=ended, ready_for_s=ready)

    def _age(self, what: str, of: str, *, is_so: bool) -> float:
        if not is_so:
            self._since.pop((what, of), None)
            return 0.0
        now_s = self.clock.now_s()
        return now_s - self._since.setdefault((what, of), now_s)

    def sight(self) -> Sight:
        views = [NodeView(name, e, {}, {}, self.room) for name, e in sorted(self.nodes.items())]
        return Sight(self.record, self.seen(), views, self.said, self.versions, (), was_blocked=True)

    def one_pass(self) -> bool:
        """Decide, place, apply and check; say whether anything changed."""
        sight = self.sight()
        stalled_for_s = self._progress.stalled_for_s("w", progress_of(sight))
        decision = reconcile(replace(sight, stalled_for_s=stalled_for_s))
        plan = place(decision.asks, self._snapshot(sight, decision), seed=self.revision)
        self._check(sight, decision, plan)
        self._apply(decision, plan)
        blocked = tuple(b.blocked for b in plan.blocked)
        assert decision.rollout is not None
        said = WorkloadStatus(
            ref=self.record.ref,
            generation=self.record.generation,
            blocked=blocked,
            messages=decision.messages,
            rollout=decision.rollout,
        )
        changed = bool(self._stops(decision, plan) or decision.removals or plan.placements) or said != self.said
        self.said = said
        self.states.append(decision.rollout.state)
        self.targets.append(decision.rollout.target)
        return changed

    def _snapshot(self, sight: Sight, decision: Decision) -> Snapshot:
        stops = {s.allocation.id for s in decision.stops}
        held = tuple(
            placed(stopping(a) if a.id in stops else a)
            for a in self.allocations.values()
            if not ((known := self.statuses.get(a.id)) and known.is_terminal)
        )
        return Snapshot(self.revision, tuple(sight.nodes), held)

    def _stops(self, decision: Decision, plan: Plan) -> list[Stop]:
        ended = {id_ for id_, status in self.statuses.items() if status.is_terminal}
        return due_stops(decision, {p.index for p in plan.placements}, ended)

    def _apply(self, decision: Decision, plan: Plan) -> None:
        for stop in self._stops(decision, plan):
            self.allocations[stop.allocation.id] = stopping(stop.allocation)
        for removed in decision.removals:
            del self.allocations[removed.id]
            self.statuses.pop(removed.id, None)
        for p in plan.placements:
            new = allocation_of(p, decision.successions.get(p.index), revision=self.revision, wall_s=0.0)
            self.allocations[new.id] = new
        self.revision += 1

    # What must hold.

    def _check(self, sight: Sight, decision: Decision, plan: Plan) -> None:
        stopped = {s.allocation.id for s in decision.stops}
        staying = [s for s in sight.seen if s.is_wanted and s.id not in stopped]
        slots = Counter([s.allocation.index for s in staying] + [p.index for p in plan.placements])
        assert all(count == 1 for count in slots.values()), "S2: a slot is doubled"
        spec, rollout = self.record.workload.spec, decision.rollout
        assert rollout is not None
        if isinstance(spec, DaemonSpec):
            homes = Counter([s.allocation.node for s in staying] + [p.node for p in plan.placements])
            assert all(count == 1 for count in homes.values()), "S2: a node has two"
            return
        assert isinstance(spec, ServiceSpec)
        most = spec.replicas + max(spec.update.max_surge, spec.update.canary)
        if plan.placements:
            assert len(staying) + len(plan.placements) <= most, "S2: more than surge"
        floor = spec.replicas - max(spec.update.max_unavailable, rollout.stop_first)
        served = [s for s in sight.seen if s.is_wanted and serves(s)]
        taken = [s for s in served if s.id in stopped]
        assert not taken or len(served) - len(taken) >= floor, "S12: what serves is taken below the floor"

    # What tests ask.

    def wanted(self) -> list[Allocation]:
        found = (a for a in self.allocations.values() if a.desired is Desired.RUN)
        return sorted(found, key=lambda a: (a.index, a.id))

    def of_version(self, version: int) -> int:
        return sum(a.version == version for a in self.wanted())

    def serving(self) -> int:
        return sum(s.is_wanted and serves(s) for s in self.seen())

    @property
    def rollout_state(self) -> RolloutState:
        assert self.said is not None
        assert self.said.rollout is not None
        return self.said.rollout.state

    def settle(self, *, step_s: float = 1.0, passes: int = 400) -> float:
        """Let agents act and time pass until the rollout is over and nothing changes; return how long that took."""
        began, quiet, failed = self.clock.now_s(), 0, 0
        for _ in range(passes):
            self.act()
            quiet = 0 if self.one_pass() else quiet + 1
            failed = failed + 1 if self.rollout_state is RolloutState.FAILED else 0
            if failed > 30:
                return self.clock.now_s() - began
            if quiet > 8 and self.rollout_state not in (RolloutState.PROGRESSING, RolloutState.PAUSED):
                return self.clock.now_s() - began
            self.clock.advance(step_s)
        raise AssertionError(f"it never comes to rest: {self.said}")
