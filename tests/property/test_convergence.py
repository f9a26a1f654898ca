"""Any history of changes and faults, then quiet: reconcile and place bring every workload to rest, safe at each step.

The model stands for store, nodes and agents at once: it applies what the pure parts decide, and lets chosen things
happen in between. It checks after every step that no node is over-committed and no slot is doubled.
"""

from collections import Counter
from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.controllers.daemons import reconcile_daemon
from control_plane.controllers.decision import Decision, Seen, Stop, due_stops
from control_plane.controllers.jobs import reconcile_job
from control_plane.controllers.rollouts import Course, course_of
from control_plane.controllers.services import reconcile_service
from control_plane.controllers.snapshot import placed
from control_plane.controllers.writes import allocation_of
from manifests.allocations import TERMINAL, Allocation, Desired, Phase
from manifests.reasons import Blocked
from manifests.rollouts import Rollout
from manifests.workloads import Daemon, Job, JobSpec, ServiceSpec, VersionRecord, WorkloadRecord
from scheduler.model import NOTHING, Eligibility, NodeView, Plan, Snapshot, Vector, vector_of
from scheduler.place import place
from tests.builders import record, status, stopping, version_record

ROOM = Vector(400, 2**29, 1000, 2**40)  # four of the default reservation by cpu


@dataclass
class World:
    """One workload on some nodes."""

    record: WorkloadRecord
    nodes: dict[str, Eligibility]
    allocations: dict[str, Allocation] = field(default_factory=dict)
    phases: dict[str, Phase] = field(default_factory=dict)
    revision: int = 1
    blocked: tuple[Blocked, ...] = ()
    rollout: Rollout | None = None
    versions: dict[int, VersionRecord] = field(default_factory=dict)
    ran_twice: bool = False
    succeeded: set[int] = field(default_factory=set)
    most_tries: int = 0  # of one index of a job
    unheard: dict[str, Phase] = field(default_factory=dict)  # how things ended on lost nodes

    def seen(self) -> list[Seen]:
        return [
            Seen(a, self._status(a), self.nodes.get(a.node), ended_for_s=1e6, ready_for_s=1e6)
            for a in sorted(self.allocations.values(), key=lambda a: a.id)
        ]

    def _status(self, a: Allocation):  # type: ignore[no-untyped-def]
        phase = self.phases.get(a.id)
        return status(a, phase) if phase else None

    def views(self) -> list[NodeView]:
        return [NodeView(name, e, {}, {}, ROOM) for name, e in sorted(self.nodes.items())]

    def decide(self) -> Decision:
        seen = self.seen()
        self.versions[self.record.version] = version_record(self.record, self.record.version)
        match self.record.workload:
            case Job():
                return reconcile_job(self.record, seen)
            case Daemon():
                return reconcile_daemon(self.course(), seen, self.views(), blocked=self.blocked)
            case _:
                return reconcile_service(self.course(), seen, blocked=self.blocked)

    def course(self) -> Course:
        return course_of(self.record, self.rollout, self.versions)

    def one_pass(self) -> bool:
        """Decide, place and apply; return whether anything changed."""
        decision = self.decide()
        plan = place(decision.asks, self._snapshot(decision), seed=self.revision)
        self.blocked = tuple(b.blocked for b in plan.blocked)
        self.rollout = decision.rollout
        self._apply(decision, plan)
        self.check()
        return bool(self._stops(decision, plan) or decision.removals or decision.turns or plan.placements)

    def _snapshot(self, decision: Decision) -> Snapshot:
        stops = {s.allocation.id for s in decision.stops}
        held = tuple(
            placed(stopping(a) if a.id in stops else a)
            for a in self.allocations.values()
            if self.phases.get(a.id) not in TERMINAL
        )
        return Snapshot(self.revision, tuple(self.views()), held)

    def _stops(self, decision: Decision, plan: Plan) -> list[Stop]:
        ended = {id_ for id_, phase in self.phases.items() if phase in TERMINAL}
        return due_stops(decision, {p.index for p in plan.placements}, ended)

    def _apply(self, decision: Decision, plan: Plan) -> None:
        for stop in self._stops(decision, plan):
            self.allocations[stop.allocation.id] = stopping(stop.allocation)
        for removed in decision.removals:
            del self.allocations[removed.id]
            self.phases.pop(removed.id, None)
        for p in plan.placements:
            new = allocation_of(p, decision.successions.get(p.index), revision=self.revision, wall_s=0.0)
            self.ran_twice |= p.index in self.succeeded
            self.most_tries = max(self.most_tries, new.reschedules)
            self.allocations[new.id] = new
        self.revision += 1

    def check(self) -> None:
        wanted = [a for a in self.allocations.values() if a.desired is Desired.RUN]
        slots = Counter(a.index for a in wanted)
        assert all(count == 1 for count in slots.values()), "a slot is doubled"
        for name in self.nodes:
            here = [a for a in self.allocations.values() if a.node == name and self.phases.get(a.id) not in TERMINAL]
            used = sum((vector_of(a.reserved) for a in here), NOTHING)
            assert used.fits(ROOM), "a node is over-committed"
        spec = self.record.workload.spec
        if isinstance(spec, ServiceSpec):
            new = [a for a in wanted if self.phases.get(a.id) not in TERMINAL and a.version == self.record.version]
            assert len(new) <= spec.replicas + spec.update.max_surge or self.revision < 3

    def agents_act(self, *, failing: bool = False) -> None:
        """Every node in reach does what it is told, all at once."""
        for a in self.allocations.values():
            if self.nodes.get(a.node) in (None, Eligibility.LOST) or self.phases.get(a.id) in TERMINAL:
                continue
            if a.desired is Desired.STOP:
                self.phases[a.id] = Phase.STOPPED
            elif failing:
                self.phases[a.id] = Phase.FAILED
            elif isinstance(self.record.workload, Job) and self.phases.get(a.id) is Phase.RUNNING:
                self.phases[a.id] = Phase.SUCCEEDED
                self.succeeded.add(a.index)
            else:
                self.phases[a.id] = Phase.RUNNING

    def end_unheard(self) -> None:
        """What runs on lost nodes ends well; nobody hears of it yet."""
        for a in self.allocations.values():
            if self.nodes.get(a.node) is Eligibility.LOST and self.phases.get(a.id) is Phase.RUNNING:
                self.unheard[a.id] = Phase.SUCCEEDED

    def come_back(self, node: str) -> None:
        """The node is back, and says how what it held has ended, of which there still is a record."""
        self.nodes[node] = Eligibility.READY
        for a in [a for a in self.allocations.values() if a.node == node and a.id in self.unheard]:
            self.phases[a.id] = self.unheard.pop(a.id)
            self.succeeded.add(a.index)


def happen(world: World, event: tuple[str, int]) -> None:
    name, number = event
    node = sorted(world.nodes)[number % len(world.nodes)]
    match name:
        case "act":
            world.agents_act()
        case "fail":
            world.agents_act(failing=True)
        case "end-unheard" if isinstance(world.record.workload, Job):
            world.end_unheard()
        case "lose":
            world.nodes[node] = Eligibility.LOST
        case "drain":
            world.nodes[node] = Eligibility.DRAINING
        case "cordon":
            world.nodes[node] = Eligibility.CORDONED
        case "back":
            world.come_back(node)
        case "change" if not isinstance(world.record.workload, Job):
            world.record = world.record.model_copy(update={"version": world.record.version + 1})
        case "scale":
            world.record = _scaled(world.record, number)


def _scaled(of: WorkloadRecord, number: int) -> WorkloadRecord:
    spec = of.workload.spec
    if not isinstance(spec, ServiceSpec):
        return of
    changed = of.workload.model_copy(update={"spec": spec.model_copy(update={"replicas": number % 7})})
    return of.model_copy(update={"workload": changed})


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["act", "act", "fail", "lose", "end-unheard", "drain", "cordon", "back", "change", "scale"]),
        st.integers(0, 20),
    ),
    max_size=25,
)
RECORDS = st.one_of(
    st.builds(lambda n: record(replicas=n), st.integers(0, 6)),
    st.builds(lambda n: record(replicas=n, update={"maxSurge": 0, "maxUnavailable": 1}), st.integers(0, 6)),
    st.builds(
        lambda n, p, r: record("Job", completions=n, parallelism=p, retries=r),
        st.integers(1, 6),
        st.integers(1, 4),
        st.integers(0, 3),
    ),
    st.just(record("Daemon")),
)


@given(RECORDS, EVENTS, st.integers(2, 4))
@settings(max_examples=300, deadline=None)
def test_whatever_happens_it_comes_to_rest_as_desired(
    of: WorkloadRecord, events: list[tuple[str, int]], size: int
) -> None:
    world = World(of, {f"n{i}": Eligibility.READY for i in range(size)})
    for event in events:
        happen(world, event)
        world.one_pass()
    for node in world.nodes:
        world.come_back(node)

    for _ in range(60):
        world.agents_act()
        changed = world.one_pass()
        if not changed and not (isinstance(world.record.workload, Job) and not world.decide().is_complete):
            break

    assert not world.one_pass(), "it never comes to rest"
    assert not world.ran_twice, "a completed index ran again"
    wanted = [a for a in world.allocations.values() if a.desired is Desired.RUN]
    match world.record.workload.spec:
        case ServiceSpec(replicas=replicas):
            assert len(wanted) == replicas
            assert all(a.version == world.record.version for a in wanted)
            assert len(world.allocations) == replicas, "something is left over"
        case spec if isinstance(world.record.workload, Daemon):
            assert sorted(a.node for a in wanted) == sorted(world.nodes), spec
        case JobSpec(retries=retries, completions=completions):
            decision = world.decide()
            assert decision.is_complete
            assert decision.is_failed or world.succeeded == set(range(completions))
            assert world.most_tries <= retries, "an index was tried again too often"
        case spec:
            raise AssertionError(spec)


@given(
    st.sampled_from([record(replicas=2), record("Daemon")]),
    st.lists(st.tuples(st.sampled_from(["fail", "act", "cordon", "back"]), st.integers(0, 1)), max_size=30),
)
@settings(deadline=None)
def test_a_slot_s_failures_are_counted_also_while_its_next_try_has_no_place(
    of: WorkloadRecord, events: list[tuple[str, int]]
) -> None:
    world = World(of, {"n0": Eligibility.READY, "n1": Eligibility.READY})
    failures: Counter[str | int] = Counter()

    def slot(a: Allocation) -> str | int:
        return a.node if isinstance(of.workload, Daemon) else a.index

    for event in events:
        before, ended = set(world.allocations), {a for a, phase in world.phases.items() if phase in TERMINAL}
        happen(world, event)
        failed = {a for a, phase in world.phases.items() if phase is Phase.FAILED} - ended
        failures.update(slot(world.allocations[a]) for a in failed)
        world.one_pass()
        for new in world.allocations.keys() - before:
            assert world.allocations[new].reschedules == failures[slot(world.allocations[new])]


def test_reconciling_twice_changes_nothing_more() -> None:
    world = World(record(replicas=3), {"n1": Eligibility.READY, "n2": Eligibility.READY})
    assert world.one_pass()
    assert not world.one_pass()
    assert not replace(world).one_pass()
