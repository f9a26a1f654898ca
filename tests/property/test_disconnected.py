"""Any history of nodes lost and back, crashes, rollouts and scalings, under each policy: who runs in the end.

On top of the model of test_convergence, nodes here go on running what they were told while they are lost, and end by
themselves what is under stopAfter; time passes, and statuses reach the store only while a node is there.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from control_plane.controllers.decision import Decision, Seen
from control_plane.controllers.disconnected import reconcile_around, surely_dead_after_s
from control_plane.controllers.reconcile import Sight, reconcile
from manifests.allocations import TERMINAL, Allocation, Desired, Phase
from manifests.workloads import Job, ServiceSpec, WorkloadRecord
from scheduler.model import Eligibility
from tests.builders import record, seen, status, version_record
from tests.property.test_convergence import World, happen

STOP_AFTER_S, GRACE_S = 20.0, 5.0
STEP_S = 4.0


@dataclass
class Cut(World):
    """`truth` is what runs on the nodes, `lost_at` since when they are lost, `back_at` since when they are there."""

    truth: dict[str, Phase] = field(default_factory=dict)
    lost_at: dict[str, float] = field(default_factory=dict)
    back_at: dict[str, float] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    now_s: float = 1000.0

    @property
    def is_at_most_once(self) -> bool:
        return self.record.workload.spec.on_disconnect.stop_after_s is not None

    def seen(self) -> list[Seen]:
        return [
            Seen(
                a,
                self._status(a),
                self.nodes.get(a.node),
                ended_for_s=1e6,
                ready_for_s=1e6,
                lost_for_s=self.now_s - self.lost_at[a.node] if a.node in self.lost_at else 0.0,
                back_for_s=self.now_s - self.back_at.get(a.node, 0.0) if a.node not in self.lost_at else 0.0,
            )
            for a in sorted(self.allocations.values(), key=lambda a: a.id)
        ]

    def _status(self, a: Allocation):  # type: ignore[no-untyped-def]
        phase = self.phases.get(a.id)
        said = status(a, phase) if phase else None
        return said.model_copy(update={"attempt": self.attempts.get(a.id, 1)}) if said else None

    def decide(self) -> Decision:
        self.versions[self.record.version] = version_record(self.record, self.record.version)
        bare = super().decide
        sight = self.seen()

        def by_kind(shown):  # type: ignore[no-untyped-def]
            self.seen = lambda: shown  # type: ignore[method-assign]
            try:
                return bare()
            finally:
                del self.seen

        return reconcile_around(self.record, sight, self.versions, by_kind)

    def _apply(self, decision: Decision, plan) -> None:  # type: ignore[no-untyped-def]
        for turned in decision.turns:
            self.allocations[turned.id] = turned
        super()._apply(decision, plan)
        for new in self.allocations.values():
            if new.id not in self.truth and (before := decision.successions.get(new.index)) is not None:
                self.allocations[new.id] = new.model_copy(update={"replaces": before.replaces})
        self.act_on_nodes()

    def act_on_nodes(self, *, failing: bool = False) -> None:
        """Each node does what it was told last; only those that are there are told, and tell."""
        for a in list(self.allocations.values()):
            is_there = self.nodes.get(a.node) is not Eligibility.LOST
            now = self.truth.get(a.id)
            if is_there and now not in TERMINAL and a.desired is Desired.STOP:
                self.truth[a.id] = Phase.STOPPED
            elif is_there and now is None:
                self.truth[a.id] = Phase.RUNNING
            elif is_there and failing and now is Phase.RUNNING:
                self.truth[a.id] = Phase.FAILED
            elif is_there and now is Phase.BACKOFF:
                self.truth[a.id] = Phase.RUNNING
                self.attempts[a.id] = self.attempts.get(a.id, 1) + 1
            elif not is_there and now is Phase.RUNNING and self._is_overdue(a.node):
                self.truth[a.id] = Phase.BACKOFF
            if is_there and a.id in self.truth:
                self.phases[a.id] = self.truth[a.id]
        self.check_runs()

    def _is_overdue(self, node: str) -> bool:
        return self.is_at_most_once and self.now_s - self.lost_at[node] >= STOP_AFTER_S + GRACE_S

    def check_runs(self) -> None:
        running = [self.allocations[i] for i, p in self.truth.items() if p is Phase.RUNNING and i in self.allocations]
        if self.is_at_most_once:
            slots = Counter(a.index for a in running)
            assert all(count == 1 for count in slots.values()), f"slot ran twice: {slots}"

    def agents_act(self, *, failing: bool = False) -> None:
        if isinstance(self.record.workload, Job) and not failing:
            for a in self.allocations.values():
                is_there = self.nodes.get(a.node) is not Eligibility.LOST
                if is_there and self.truth.get(a.id) is Phase.RUNNING and a.desired is not Desired.STOP:
                    self.truth[a.id] = Phase.SUCCEEDED
                    self.succeeded.add(a.index)
        self.act_on_nodes(failing=failing)

    def end_unheard(self) -> None:
        for a in self.allocations.values():
            if self.nodes.get(a.node) is Eligibility.LOST and self.truth.get(a.id) is Phase.RUNNING:
                self.truth[a.id] = Phase.SUCCEEDED

    def come_back(self, node: str) -> None:
        if self.nodes[node] is Eligibility.LOST:
            self.back_at[node] = self.now_s
            self.lost_at.pop(node, None)
        self.nodes[node] = Eligibility.READY
        for a in self.allocations.values():
            if a.node == node and self.truth.get(a.id) is Phase.SUCCEEDED:
                self.phases[a.id] = Phase.SUCCEEDED
                self.succeeded.add(a.index)

    def crash(self, number: int) -> None:
        """Something on a lost node crashes and is restarted in place."""
        there = [a.id for a in self.allocations.values() if self.truth.get(a.id) is Phase.RUNNING]
        if there:
            chosen = sorted(there)[number % len(there)]
            self.attempts[chosen] = self.attempts.get(chosen, 1) + 1

    def step(self, event: tuple[str, int]) -> None:
        name, number = event
        node = sorted(self.nodes)[number % len(self.nodes)]
        match name:
            case "lose" if self.nodes[node] is not Eligibility.LOST:
                self.nodes[node] = Eligibility.LOST
                self.lost_at[node] = self.now_s
            case "drain" | "cordon" if self.nodes[node] is Eligibility.LOST:
                pass
            case "wait":
                self.now_s += STEP_S * (1 + number)
            case "crash":
                self.crash(number)
            case "lose":
                pass
            case _:
                happen(self, event)
        self.now_s += STEP_S
        self.act_on_nodes()
        self.one_pass()


def policies(**fixed: Any) -> st.SearchStrategy[dict[str, Any]]:
    keep = st.sampled_from(["replacement", "original", "longestRunning"])
    free = {"keep": keep, "replaceAfter": st.sampled_from(["0s", "10s", "60s"])} | fixed
    return st.fixed_dictionaries(free)


AT_MOST_ONCE = policies(stopAfter=st.just(f"{STOP_AFTER_S:g}s"))
NAMES = [
    "act",
    "act",
    "fail",
    "lose",
    "lose",
    "back",
    "back",
    "wait",
    "crash",
    "end-unheard",
    "drain",
    "cordon",
    "change",
    "scale",
]
EVENTS = st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 20)), max_size=30)


def records(policy: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[WorkloadRecord]:
    stop = {"grace": f"{GRACE_S:g}s"}
    services = st.builds(lambda n, p: record(replicas=n, onDisconnect=p, stop=stop), st.integers(0, 5), policy)
    jobs = st.builds(
        lambda n, p, d: record("Job", completions=n, parallelism=p, retries=3, onDisconnect=d, stop=stop),
        st.integers(1, 4),
        st.integers(1, 4),
        policy,
    )
    return st.one_of(services, jobs)


def heal(world: Cut) -> None:
    """Bring every node back, let time pass, and let everything come to rest."""
    for node in world.nodes:
        world.come_back(node)
    for _ in range(80):
        world.now_s += STEP_S
        world.agents_act()
        if not world.one_pass() and not (isinstance(world.record.workload, Job) and not world.decide().is_complete):
            break


ORIGINAL = record(replicas=1, onDisconnect={"keep": "original", "replaceAfter": "0s"}, stop={"grace": "5s"})


@given(records(st.one_of(policies(), AT_MOST_ONCE)), EVENTS, st.integers(2, 4))
@example(ORIGINAL, [("act", 0)] * 10 + [("lose", 0), ("lose", 1), ("lose", 2), ("back", 1), ("lose", 1)], 3)
@example(ORIGINAL, [("act", 0), ("cordon", 0), ("change", 0), ("lose", 1)], 2)
@settings(max_examples=500, deadline=None)
def test_whatever_is_lost_and_back_one_survives_in_each_slot(
    of: WorkloadRecord, events: list[tuple[str, int]], size: int
) -> None:
    world = Cut(of, {f"n{i}": Eligibility.READY for i in range(size)})
    for event in events:
        world.step(event)
    heal(world)

    assert not world.one_pass(), "it never comes to rest"
    assert not world.ran_twice, "a completed index ran again"
    undecided = [a for a in world.allocations.values() if a.desired is Desired.SPARE]
    assert all(world.phases[a.id] in TERMINAL for a in undecided), "a spare is left"
    wanted = [a for a in world.allocations.values() if a.desired is Desired.RUN]
    spec = world.record.workload.spec
    if isinstance(spec, ServiceSpec):
        assert len(wanted) == spec.replicas == len(world.allocations)
        assert all(world.truth[a.id] is Phase.RUNNING for a in wanted)
    else:
        assert world.decide().is_complete


@given(records(AT_MOST_ONCE), EVENTS, st.integers(2, 4))
@settings(max_examples=500, deadline=None)
def test_under_stop_after_no_slot_ever_runs_twice(of: WorkloadRecord, events: list[tuple[str, int]], size: int) -> None:
    world = Cut(of, {f"n{i}": Eligibility.READY for i in range(size)})
    for event in events:
        world.step(event)  # each step checks what runs
    heal(world)


def test_the_margin_covers_the_nodes_own_end() -> None:
    spec = record(onDisconnect={"stopAfter": "1h"}, stop={"grace": "10s"}).workload.spec
    assert (surely_dead_after_s(spec) or 0) > 3600 + 10 + 2 + 3600 * 0.0005
    assert surely_dead_after_s(record().workload.spec) is None


def test_a_daemon_waits_on_its_node_whatever_its_policy() -> None:
    daemon = record("Daemon", onDisconnect={"keep": "original"})
    lost = seen(daemon, 0, node_is=Eligibility.LOST)
    decision = reconcile(Sight(daemon, [lost], [], None, {}, [], was_blocked=False))
    assert (decision.turns, decision.asks) == ((), ())
