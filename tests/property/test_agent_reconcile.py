"""Any history of orders, exits, failed starts, absences and restarts of the agent: what must always hold of decide."""

from dataclasses import dataclass, field, replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.driver import Container, ContainerId, ContainerState
from agent.group import Group
from agent.reconcile import Action, Discard, Forget, Remove, Start, Stop, decide
from agent.state_file import SavedAllocation, to_group, to_saved
from agent.tracked import (
    Failure,
    Moment,
    Tracked,
    Work,
    condemned,
    newly_assigned,
    with_delay,
    with_failure,
    with_sight,
    without_work,
)
from manifests.allocations import NEXT, Desired, Phase
from tests.scripted_server import assigned

ATTEMPTS, WINDOW_S = 2, 60.0
FAULTS = (
    "start works",
    "start fails",
    "manager away",
    "exit 0",
    "exit 1",
    "unhealthy",
    "agent restarts",
    "wait",
    "look",
)
ORDERS = ("stop", "withdraw")


@dataclass
class World:
    """One allocation, the containers that exist of it, and what was done about it."""

    tracked: Tracked
    now_s: float = 0.0
    containers: dict[str, Container] = field(default_factory=dict)
    starts: list[tuple[float, int]] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    phases: list[tuple[int, Phase]] = field(default_factory=list)
    is_forgotten: bool = False
    was_ordered: bool = False
    was_condemned: bool = False

    def settle(self) -> None:
        """Decide, and check that deciding again changes nothing and that the life went by the table."""
        new, actions = decide(self.tracked, Moment(self.now_s, self.now_s))
        assert decide(new, Moment(self.now_s, self.now_s)) == (new, ())
        self.tracked = new
        for action in actions:
            self.actions.append(action)
            self._begin(action)
        self.phases.append((new.status.attempt, new.status.phase))

    def _begin(self, action: Action) -> None:
        match action:
            case Start():
                self.starts.append((self.now_s, self.tracked.status.attempt))
            case Stop():
                assert self.was_ordered or self.was_condemned, "silence stopped it"
            case Discard(containers):
                for container in containers:
                    self.containers.pop(container, None)
            case Remove() | Forget():
                assert self.was_ordered
                self.is_forgotten |= isinstance(action, Forget)

    def current(self) -> Container | None:
        return self.containers.get(f"c{self.tracked.status.attempt}")

    def happen(self, what: str) -> None:
        """Let one thing happen; what can't happen now doesn't."""
        tracked, work = self.tracked, self.tracked.work
        match what:
            case "start works" if work is Work.START:
                name = f"c{tracked.status.attempt}"
                self.containers[name] = Container(ContainerId(name), name, {}, "i", ContainerState.RUNNING)
                self._see(without_work(tracked))
            case "start fails" if work is Work.START:
                self.tracked = with_failure(tracked, Failure("startFailed", "no"), None)
            case "manager away" if work is not Work.NONE:
                self.tracked = with_delay(tracked, retry_s=self.now_s + 1.0, message="away")
            case "exit 0" | "exit 1":
                self._exit(int(what[-1]))
            case "unhealthy" if tracked.status.phase is Phase.RUNNING and not tracked.doom:
                self.was_condemned = True
                self.tracked = condemned(tracked, "bad")
            case "agent restarts":
                saved = SavedAllocation.read(to_saved(Group(tracked.status, (tracked,))).to_bytes())
                self._see(to_group(saved).first)
            case "wait":
                self.now_s += 5.0
            case "stop" | "withdraw":
                self._order(what)
        self.settle()

    def _exit(self, code: int) -> None:
        current = self.current()
        if current is not None and current.state is ContainerState.RUNNING:
            self.containers[current.id] = replace(current, state=ContainerState.EXITED, exit_code=code)
            if self.tracked.work is Work.NONE:
                self._see(self.tracked)

    def _order(self, what: str) -> None:
        self.was_ordered = True
        if what == "withdraw":
            self.tracked = replace(self.tracked, is_withdrawn=True)
            return
        allocation = self.tracked.assigned.allocation.model_copy(update={"desired": Desired.STOP})
        wanted = self.tracked.assigned.model_copy(update={"allocation": allocation})
        self.tracked = replace(self.tracked, assigned=wanted)

    def _see(self, tracked: Tracked) -> None:
        current = self.current()
        earlier = tuple(c.id for c in self.containers.values() if current is None or c.id != current.id)
        self.tracked = with_sight(tracked, current, attempt=tracked.status.attempt, earlier=earlier)

    def finish_work(self) -> None:
        """The machine does what it was asked to, at last."""
        match self.tracked.work:
            case Work.START:
                self.happen("start works")
            case Work.STOP:
                self._exit(143)
                self._see(without_work(self.tracked))
                self.settle()
            case Work.REMOVE:
                self.containers.clear()
                self.tracked = replace(without_work(self.tracked), container=None, earlier=())
                self.settle()
            case _:
                self.happen("wait")

    def is_at_rest(self) -> bool:
        phase = self.tracked.status.phase
        if self.tracked.is_withdrawn:
            return self.is_forgotten
        is_right = self.tracked.status.is_terminal or (phase is Phase.RUNNING and not self.tracked.must_end)
        return is_right and self.tracked.work is Work.NONE


def world(kind: str) -> World:
    restart = {"attempts": ATTEMPTS, "window": f"{WINDOW_S:.0f}s"}
    fresh = newly_assigned(assigned("web-0-a", kind=kind, restart=restart))
    made = World(replace(with_sight(fresh, None, attempt=1), is_admitted=True))
    made.settle()
    return made


def follows_the_table(phases: list[tuple[int, Phase]]) -> bool:
    """Within an attempt each phase is reachable from the one before; attempts only rise."""
    for (attempt, phase), (next_one, next_phase) in pairwise(phases):
        if next_one < attempt or (next_one == attempt and next_phase not in reachable(phase)):
            return False
    return True


def reachable(phase: Phase) -> set[Phase]:
    found, todo = {phase}, [phase]
    while todo:
        new = NEXT[todo.pop()] - found
        found |= new
        todo += new
    return found


KINDS = st.sampled_from(["Service", "Job"])


@settings(max_examples=300, deadline=None)
@given(KINDS, st.lists(st.sampled_from(FAULTS + ORDERS), max_size=40))
def test_every_history_follows_the_table_and_comes_to_rest(kind: str, history: list[str]) -> None:
    made = world(kind)
    for what in history:
        if not made.is_forgotten:
            made.happen(what)
    for _ in range(60):
        if made.is_at_rest():
            break
        made.finish_work()
    assert made.is_at_rest(), made.tracked
    assert follows_the_table(made.phases)
    running = [c.id for c in made.containers.values() if c.state is ContainerState.RUNNING]
    assert len(running) == (made.tracked.status.phase is Phase.RUNNING)


@settings(max_examples=300, deadline=None)
@given(KINDS, st.lists(st.sampled_from(FAULTS), max_size=60))
def test_it_never_restarts_more_often_than_allowed_within_a_window(kind: str, history: list[str]) -> None:
    made = world(kind)
    for what in history:
        made.happen(what)
    attempts = sorted({attempt: at_s for at_s, attempt in reversed(made.starts)}.values())
    for at_s in attempts:
        within = [other for other in attempts if at_s <= other < at_s + WINDOW_S]
        assert len(within) <= ATTEMPTS + 1


@settings(max_examples=200, deadline=None)
@given(KINDS, st.lists(st.sampled_from([f for f in FAULTS if f != "unhealthy"]), max_size=40))
def test_silence_never_stops_or_removes_anything(kind: str, history: list[str]) -> None:
    made = world(kind)
    for what in history:
        made.happen(what)
    assert not any(isinstance(action, Stop | Remove | Forget) for action in made.actions)


@settings(max_examples=200, deadline=None)
@given(KINDS, st.lists(st.sampled_from(FAULTS + ORDERS), max_size=40))
def test_what_has_ended_is_never_started_again(kind: str, history: list[str]) -> None:
    made = world(kind)
    for what in history:
        was_terminal, starts = made.tracked.status.is_terminal, len(made.starts)
        if not made.is_forgotten:
            made.happen(what)
        if was_terminal:
            assert made.tracked.status.is_terminal
            assert len(made.starts) == starts
