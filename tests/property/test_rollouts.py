"""Rollouts under any history of changes, pauses, crashes, lost nodes and new leaders: always safe, and they end."""

from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.rollouts import RolloutState
from manifests.workloads import WorkloadRecord
from scheduler.model import Eligibility, Vector
from tests.builders import record
from tests.property.rollout_world import RolloutWorld

DEADLINE_S = 60.0
BOUND_S = 60.0
Event = tuple[str, int]


@st.composite
def updates(draw: st.DrawFn) -> dict[str, object]:
    surge, unavailable = draw(st.sampled_from([(1, 0), (0, 1), (2, 1), (1, 1), (3, 0)]))
    return {
        "maxSurge": surge,
        "maxUnavailable": unavailable,
        "minHealthyTime": draw(st.sampled_from(["0s", "5s"])),
        "progressDeadline": "60s",
        "canary": draw(st.sampled_from([0, 0, 1, 2])),
        "autoPromote": draw(st.booleans()),
        "autoRevert": draw(st.sampled_from([True, True, False])),
    }


@st.composite
def services(draw: st.DrawFn) -> WorkloadRecord:
    return record(replicas=draw(st.integers(1, 6)), update=draw(updates()))


daemons = st.builds(
    lambda n: record("Daemon", update={"maxUnavailable": n, "progressDeadline": "60s"}), st.integers(1, 2)
)
HAPPENINGS = (
    *("act", "act", "act", "partly", "tick", "tick", "wait", "good", "bad", "doomed", "scale", "pause", "resume"),
    *("promote", "crash", "crash", "kill", "lose", "drain", "back", "lead"),
)
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(HAPPENINGS),
        st.integers(0, 20),
    ),
    max_size=40,
)


def happen(world: RolloutWorld, event: Event) -> None:
    name, number = event
    node = sorted(world.nodes)[number % len(world.nodes)]
    match name:
        case "act":
            world.act()
        case "partly":
            world.act(skip=number % 7)
        case "tick":
            world.clock.advance(number / 2)
        case "wait":
            world.clock.advance(DEADLINE_S + 1)
        case "good" | "bad" | "doomed":
            world.change(bad=name == "bad", doomed=name == "doomed")
        case "scale" if world.record.workload.kind == "Service":
            world.scale(1 + number % 6)
        case "pause" | "resume":
            world.pause(name == "pause")
        case "promote":
            world.promote()
        case "crash" | "kill":
            world.crash(number, for_good=name == "kill")
        case "lose" | "drain" | "back":
            is_ = {"lose": Eligibility.LOST, "drain": Eligibility.DRAINING, "back": Eligibility.READY}
            world.nodes[node] = is_[name]
        case "lead":
            world.lead()


def grown(of: WorkloadRecord, size: int = 3) -> RolloutWorld:
    """Return a world in which version 1 is rolled out and healthy."""
    world = RolloutWorld(of, {f"n{i}": Eligibility.READY for i in range(size)})
    world.settle()
    assert world.rollout_state is RolloutState.COMPLETE
    return world


@given(st.one_of(services(), services(), daemons), EVENTS, st.booleans())
@settings(max_examples=200, deadline=None)
def test_a_rollout_is_safe_at_every_step_and_ends(of: WorkloadRecord, events: list[Event], is_grown: bool) -> None:
    world = grown(of) if is_grown else RolloutWorld(of, {f"n{i}": Eligibility.READY for i in range(3)})
    for event in events:
        happen(world, event)
        world.one_pass()
    world.nodes = dict.fromkeys(world.nodes, Eligibility.READY)
    world.pause(False)
    world.promote()

    took_s = world.settle()

    assert world.said is not None
    rollout = world.said.rollout
    assert rollout is not None
    steps = 7  # each that makes progress starts the deadline anew
    assert took_s <= 2 * steps * (DEADLINE_S + BOUND_S)
    is_sick = world.record.version in world.bad | world.doomed
    has_waited = any(name in ("wait", "tick") for name, _ in events)  # even what works may have met its deadline
    assert is_sick or has_waited or rollout.state is RolloutState.COMPLETE
    if rollout.state is RolloutState.COMPLETE or rollout.state is RolloutState.REVERTED:
        assert {a.version for a in world.wanted()} == {rollout.target}
        assert world.serving() == len(world.wanted())
    if rollout.state is not RolloutState.COMPLETE and rollout.healthy and world.record.workload.spec.update.auto_revert:  # type: ignore[union-attr]
        assert rollout.state is RolloutState.REVERTED
        assert rollout.target == rollout.last_healthy
    # Without anything to go back to, what ends at once is tried again for ever, after ever longer backoffs.
    assert rollout.state is RolloutState.FAILED or not world.one_pass(), "it goes on although nothing happens"


@given(services(), st.sampled_from(["bad", "doomed"]), EVENTS)
@settings(max_examples=150, deadline=None)
def test_a_version_that_never_works_takes_nothing_from_the_old_whatever_crashes(
    of: WorkloadRecord, how: str, events: list[Event]
) -> None:
    world = grown(of, size=4)
    happen(world, (how, 0))
    for event in events:
        if event[0] in ("act", "partly", "tick", "crash", "kill", "lead", "drain", "back"):
            happen(world, event)
            world.one_pass()
    world.nodes = dict.fromkeys(world.nodes, Eligibility.READY)

    for _ in range(30):  # what crashed comes again; the deadline may pass or not
        world.act()
        world.one_pass()
        world.clock.advance(1)

    spec = world.record.workload.spec
    assert world.serving() >= spec.replicas - spec.update.max_unavailable  # type: ignore[union-attr]


@given(services(), EVENTS, st.integers(0, 12))
@settings(max_examples=200, deadline=None)
def test_while_it_is_paused_nothing_is_renewed(of: WorkloadRecord, events: list[Event], after: int) -> None:
    world = grown(of)
    world.change()
    for _ in range(after):
        world.act()
        world.one_pass()
        world.clock.advance(1)
    world.pause(True)
    world.one_pass()
    before = [a.id for a in world.wanted()]
    is_over = world.rollout_state is RolloutState.COMPLETE
    world.act()
    world.one_pass()

    for name, number in events:
        if name in ("act", "partly", "tick", "wait", "lead"):
            happen(world, (name, number))
            world.one_pass()
        if not is_over and world.rollout_state is not RolloutState.COMPLETE:
            assert [a.id for a in world.wanted()] == before

    world.pause(False)
    world.promote()
    world.settle()
    assert world.rollout_state is RolloutState.COMPLETE


@given(st.one_of(services(), daemons), EVENTS)
@settings(max_examples=150, deadline=None)
def test_a_full_cluster_fails_no_rollout_however_long_it_is_full(of: WorkloadRecord, events: list[Event]) -> None:
    world = grown(of)
    before = len(world.targets)
    room, world.room = world.room, Vector(50, 2**20, 1, 2**20)
    world.change()
    for event in events:
        for _ in range(4):
            world.act()
            world.one_pass()
        if event[0] in ("tick", "wait", "lead", "promote", "pause", "resume"):
            happen(world, event)
    assert not {RolloutState.FAILED, RolloutState.REVERTED} & set(world.states)
    assert set(world.targets[before:]) <= {2}

    world.room = room
    world.pause(False)
    world.promote()
    world.settle()
    assert world.rollout_state is RolloutState.COMPLETE
    assert {a.version for a in world.wanted()} == {2}


@given(services(), EVENTS)
@settings(max_examples=200, deadline=None)
def test_a_rollout_never_goes_back_and_forth(of: WorkloadRecord, events: list[Event]) -> None:
    world = grown(of)
    world.change(bad=True)
    for event in events:
        if event[0] not in ("good", "bad", "doomed"):
            happen(world, event)
            world.one_pass()

    targets = [t for t, before in zip(world.targets[1:], world.targets, strict=False) if t != before]
    assert targets in ([], [2], [2, 1])


@given(services(), st.integers(1, 30))
@settings(max_examples=100, deadline=None)
def test_a_new_leader_in_the_middle_of_a_rollout_makes_no_gap(of: WorkloadRecord, at: int) -> None:
    world = grown(of)
    world.change()
    world.promote()
    spec = world.record.workload.spec
    floor = spec.replicas - spec.update.max_unavailable  # type: ignore[union-attr]
    for step in range(60):
        if step % at == 0:
            world.lead()
        world.act()
        world.one_pass()
        world.clock.advance(1)
        assert world.serving() >= floor
    world.settle()
    assert world.rollout_state is RolloutState.COMPLETE
