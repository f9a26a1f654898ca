"""Makes the leader's passes on a fork, with ideal nodes, until nothing changes any more.

What is different from the real thing: nothing takes time but what the rules want to last (minHealthyTime, backoffs,
replaceAfter); no rollout is given up for want of progress, so that the end shows what is blocked; schedules start
nothing; and a freeze is passed over. What is found in the beginning has been so for long.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from control_plane import keys
from control_plane.controllers.ages import Ages
from control_plane.controllers.dirty import DirtySet
from control_plane.controllers.passes import Passes
from control_plane.controllers.progress import ProgressClock
from control_plane.rehearsal.fork import Fork, JumpingClock
from control_plane.rehearsal.memory import Memory
from control_plane.rehearsal.nodes import obeyed
from control_plane.state import Batch
from control_plane.store.protocol import Delete, Put
from manifests.allocations import Allocation, Desired
from manifests.base import Model
from manifests.workloads import Kind

GAP_S = 0.01  # between passes
LATE_S = 0.001  # timers fire that late, so that what they wait for is so
HORIZON_S = 3600.0  # what only time changes, after so long without any change, is left out
LONG_S = 3600.0  # for so long things have been as they are found
MOST_PASSES = 2_000
MOST_LOOKS = 400_000  # at allocations, in all passes


@dataclass(frozen=True, slots=True)
class Step:
    """A pass that changed something of one workload: how many were placed, and how many stopped or set aside."""

    after_s: float
    workload: str
    up: int
    down: int


@dataclass
class Rehearsal:
    """Write to it what is to be different, then `run` it; then the fork is the cluster as it would become."""

    fork: Fork
    steps: list[Step] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)  # why what is no longer wanted isn't, by allocation
    passes: int = 0
    is_whole: bool = False  # it came to its end, and not to a bound

    def __post_init__(self) -> None:
        state, clock = self.fork.state, self.fork.clock
        self.memory = Memory(state)
        self._dirty = DirtySet(state, clock, is_thorough=False)
        ages = Ages(state, clock, known_for_s=LONG_S)
        for subscriber in (self.memory.on_batch, self._dirty.on_batch, ages.on_batch, self._on_batch):
            state.subscribe(subscriber)
        untimed = ProgressClock(JumpingClock(clock.wall_s()))
        self._passes = Passes(state, self.fork.standing, ages, untimed, clock)

    def write(self, writes: Sequence[Put | Delete]) -> None:
        if writes:
            self.fork.write(writes)

    def run(self) -> None:
        """Repeat passes until nothing changes any more, or a bound is reached."""
        state, clock = self.fork.state, self.fork.clock
        if state.freeze.get("") is not None:
            self.write([Delete(keys.FREEZE)])
        self._settle_what_is_on_its_way()
        changed_at, looks = clock.now_s(), 0
        while self.passes < MOST_PASSES and looks < MOST_LOOKS:
            workloads = [w for w in self._dirty.take_now() if keys.KINDS.get(w.split("/")[1]) is not Kind.CRON_JOB]
            if not workloads:
                due_at = self._dirty.due_at_s()
                if due_at - changed_at > HORIZON_S:
                    self.is_whole = True
                    return
                clock.jump(max(0.0, due_at - clock.now_s()) + LATE_S)
                continue
            looks += sum(state.count_of(w) for w in workloads)
            if self._one_pass(workloads):
                changed_at = clock.now_s()
            clock.jump(GAP_S)

    def _settle_what_is_on_its_way(self) -> None:
        """Have nodes do what they were told before, and look at what isn't at rest."""
        state = self.fork.state
        self.write(list(obeyed(state, self.fork.standing.restless())))
        for workload in sorted(w for w in state.workloads.ids() if self._is_unsettled(w)):
            self._dirty.mark(workload)

    def _is_unsettled(self, workload: str) -> bool:
        record, said = self.fork.state.workloads.get(workload), self.fork.state.workload_statuses.get(workload)
        if said is not None and said.blocked:
            self._dirty.blocked.add(workload)
        if record is None or said is None or said.generation != record.generation or said.blocked or said.is_waiting:
            return True
        return said.rollout is not None and not said.rollout.is_over

    def _one_pass(self, workloads: Sequence[str]) -> bool:
        """Make a pass and apply it, and have nodes obey; say whether anything changed."""
        self.passes += 1
        made = self._passes.make(workloads, self._dirty)
        self._passes.note(self._dirty, made)
        writes = {write.key: write for unit in made.writes.units for write in unit.writes}
        if not writes:
            return False
        self.fork.write(list(writes.values()))
        touched = [key.rpartition("/")[2] for key in writes if key.startswith(keys.ALLOCATIONS)]
        self.write(list(obeyed(self.fork.state, touched)))
        return True

    def _on_batch(self, batch: Batch) -> None:
        """Count what is new and what is no longer wanted, and keep why: its record may go."""
        up: Counter[str] = Counter()
        down: Counter[str] = Counter()
        for change in batch.changes:
            old, new = change.old, change.new
            if old is None and isinstance(new, Allocation):
                up[keys.id_of_ref(new.workload)] += 1
            elif isinstance(old, Allocation) and old.desired is Desired.RUN and not _is_wanted(new):
                down[keys.id_of_ref(old.workload)] += 1
                if isinstance(new, Allocation):
                    self.reasons[new.id] = new.stop_reason or new.note
        for workload in sorted(up.keys() | down.keys()):
            self.steps.append(Step(self.fork.clock.now_s(), workload, up[workload], down[workload]))


def _is_wanted(record: Model | None) -> bool:
    return isinstance(record, Allocation) and record.desired is Desired.RUN
