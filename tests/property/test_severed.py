"""Any history of word and silence, with all that else happens to an allocation under stopAfter: when it may run."""

from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.driver import ContainerState
from agent.reconcile import Start, decide
from agent.severed import released
from agent.tracked import Moment, Tracked, newly_assigned, with_sight
from manifests.allocations import Phase
from tests.property.test_agent_reconcile import FAULTS, ORDERS, World, follows_the_table
from tests.scripted_server import assigned

STOP_AFTER_S = 7.0
WORDS = ("ack", "word", "wait", "wait", "ack")


@dataclass
class Leashed(World):
    """`heard_s` is when the last acknowledged heartbeat was sent; `may_begin`: there was word since it was severed."""

    heard_s: float = 0.0
    may_begin: bool = True

    @property
    def silent_s(self) -> float:
        return self.now_s - self.heard_s

    @property
    def is_over(self) -> bool:
        return self.silent_s >= STOP_AFTER_S

    def settle(self) -> None:
        self.may_begin &= not self.is_over
        self.was_condemned |= self.is_over
        moment = Moment(self.now_s, self.now_s + 1000, self.silent_s)
        new, actions = decide(self.tracked, moment)
        assert decide(new, moment) == (new, ()), "deciding twice changes nothing more"
        self.tracked = new
        for action in actions:
            assert self.may_begin or not isinstance(action, Start), "it began without word"
            self.actions.append(action)
            self._begin(action)
        self.phases.append((new.status.attempt, new.status.phase))

    def happen(self, what: str) -> None:
        match what:
            case "ack":
                self.settle()  # as the agent does before it takes word in
                self.heard_s = self.now_s
                self.settle()
            case "word" if not self.is_over:
                self.may_begin = True
                self.tracked = released(self.tracked)
                self.settle()
            case _:
                super().happen(what)


def leashed(kind: str) -> Leashed:
    wanted = assigned("web-0-a", kind=kind, onDisconnect={"stopAfter": f"{STOP_AFTER_S:g}s"})
    made = Leashed(replace(with_sight(newly_assigned(wanted), None, attempt=1), is_admitted=True))
    made.settle()
    return made


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(["Service", "Job"]), st.lists(st.sampled_from(FAULTS + ORDERS + WORDS * 2), max_size=50))
def test_without_word_it_ends_and_none_begins(kind: str, history: list[str]) -> None:
    made = leashed(kind)
    for what in history:
        if not made.is_forgotten:
            made.happen(what)
    assert follows_the_table(made.phases)

    made.now_s += STOP_AFTER_S
    for _ in range(10):
        if not made.is_forgotten:
            made.settle()
            made.finish_work()
    assert not [c for c in made.containers.values() if c.state is ContainerState.RUNNING], made.tracked


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(("start works", "exit 1", "agent restarts", *WORDS)), max_size=30))
def test_with_word_again_it_runs_again(history: list[str]) -> None:
    made = leashed("Service")
    for what in history:
        made.happen(what)
    for _ in range(60):
        made.happen("ack")
        made.happen("word")
        made.finish_work()
        if made.tracked.status.phase in (Phase.RUNNING, Phase.FAILED):
            break
    assert made.tracked.status.phase in (Phase.RUNNING, Phase.FAILED), made.tracked


def test_to_be_severed_is_no_failure_of_its_own() -> None:
    made = leashed("Service")
    for _ in range(20):
        made.happen("start works")
        made.now_s += STOP_AFTER_S
        made.settle()
        made.finish_work()
        assert ending_of(made.tracked) == "disconnected"
        made.happen("ack")
        made.happen("word")
    made.happen("start works")
    assert made.tracked.status.phase is Phase.RUNNING
    assert made.tracked.failures == ()


def ending_of(tracked: Tracked) -> str:
    return tracked.status.last_ending.reason if tracked.status.last_ending else ""
