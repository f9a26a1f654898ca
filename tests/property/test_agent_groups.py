"""Any history of a group: exits, failed starts, a lost sandbox, orders, agent restarts; what must always hold."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.driver import ContainerState
from agent.reconcile import Start, Stop
from agent.tracked import SANDBOX, Work
from manifests.allocations import NEXT, Phase
from tests.agent_world import World
from tests.scripted_server import assigned, grouped

NAMES = (SANDBOX, "log", "copy", "app", "api")
FAULTS = (
    "start works",
    "start works",
    "start works",
    "start fails",
    "manager away",
    "exit 0",
    "exit 1",
    "stop works",
    "healthy",
    "condemned",
    "agent restarts",
    "state is lost",
    "wait",
    "look",
)
SILENCE = ("start works", "wait", "look", "agent restarts", "state is lost", "healthy")
IDLE = (Work.NONE, Work.FORGOTTEN)
ORDERS = ("stop", "withdraw")
steps = st.tuples(st.sampled_from(FAULTS), st.sampled_from(NAMES))
orders = st.tuples(st.sampled_from(ORDERS), st.just(SANDBOX))
kinds = st.sampled_from(("Service", "Job"))


def made(kind: str) -> World:
    app = {"name": "app", "image": "i", "restart": {"attempts": 2, "window": "60s"}}
    log = {"name": "log", "image": "i", "sidecar": True, "health": {"readiness": {"tcp": {"port": 80}}}}
    return World.of(grouped(app, log, {**app, "name": "api"}, inits=("copy",), kind=kind))


def happen(world: World, what: str, name: str) -> None:
    if world.is_forgotten:
        return
    match what:
        case "start works":
            world.start_works(name)
        case "start fails":
            world.start_fails(name)
        case "manager away":
            world.manager_is_away(name)
        case "exit 0" | "exit 1":
            world.exits(name, int(what[-1]))
        case "stop works":
            world.stop_works(name)
        case "healthy":
            world.is_healthy(name)
        case "condemned":
            world.is_condemned(name)
        case "agent restarts":
            world.agent_restarts()
        case "state is lost":
            world.state_is_lost()
        case "wait":
            world.wait(5.0)
        case "look":
            world.look()
        case "stop":
            world.stop()
        case "withdraw":
            world.withdraw()
    check(world)


def check(world: World) -> None:
    """Say what holds at every instant."""
    running = [container for container in world.containers.values() if container.state is ContainerState.RUNNING]
    assert len(running) == len({container.name for container in running}), "one of them runs twice"
    if not world.group.status.is_terminal or world.is_forgotten:
        return
    assert not running or any(member.work is Work.STOP for member in world.group.members), "it has ended and runs"


def come_to_rest(world: World) -> None:
    for _ in range(400):
        if world.is_forgotten:
            return
        world.look()
        world.works()
        for name in NAMES:
            world.is_healthy(name)
        if world.member("copy").has_running_container:
            world.exits("copy", 0)
        at_s = world.next_look_s()
        if at_s is None and not any(member.work not in IDLE for member in world.group.members):
            return
        world.wait(max((at_s or world.now_s) - world.now_s, 0.01))
    raise AssertionError(f"it never comes to rest: {world.phases()}")


def reachable(phase: Phase) -> set[Phase]:
    found, todo = {phase}, [phase]
    while todo:
        new = NEXT[todo.pop()] - found
        found |= new
        todo += new
    return found


@settings(max_examples=120, deadline=None)
@given(kinds, st.lists(st.one_of(steps, steps, steps, orders), max_size=60))
def test_every_history_comes_to_rest_with_all_or_nothing_running(kind: str, history: list[tuple[str, str]]) -> None:
    world = made(kind)
    for what, name in history:
        happen(world, what, name)
    come_to_rest(world)
    phase = world.group.status.phase
    if world.is_forgotten:
        assert world.containers == {}
        return
    assert phase is Phase.RUNNING or world.group.status.is_terminal, world.phases()
    if phase is Phase.RUNNING:
        wanted = {m.name for m in world.group.members if m.status.phase is Phase.RUNNING}
        assert set(world.running()) == wanted
        assert wanted >= {SANDBOX, "log"}
        assert world.member("copy").status.phase is Phase.SUCCEEDED
        sandbox = world.member(SANDBOX).container
        assert sandbox is not None
        joined = {c.network_of for c in world.containers.values() if c.state is ContainerState.RUNNING} - {""}
        assert joined == {sandbox.id}, "one lives in a network that is gone"
    else:
        assert world.running() == []


@settings(max_examples=120, deadline=None)
@given(kinds, st.lists(st.one_of(steps, steps, steps, orders), max_size=60))
def test_phases_go_forward_within_an_attempt(kind: str, history: list[tuple[str, str]]) -> None:
    world = made(kind)
    for what, name in history:
        if what != "state is lost":  # then what was said before is not known
            happen(world, what, name)
    for (attempt, phase), (next_attempt, next_phase) in pairwise(world.history):
        assert next_attempt >= attempt
        assert next_attempt > attempt or next_phase in reachable(phase), (phase, next_phase)


@settings(max_examples=120, deadline=None)
@given(kinds, st.lists(steps, max_size=60))
def test_nothing_starts_before_its_turn(kind: str, history: list[tuple[str, str]]) -> None:
    world = made(kind)
    for what, name in history:
        before = {member.name: member for member in world.group.members}
        seen = len(world.actions)
        happen(world, what, name)
        starts = [a.container.partition("/")[2] for a in world.actions[seen:] if isinstance(a, Start)]
        for started in set(starts) - {SANDBOX}:
            assert world.member(SANDBOX).has_running_container
            if not before[started].has_begun and started in ("app", "api"):
                assert world.member("copy").status.phase is Phase.SUCCEEDED
            if not before[started].has_begun and started == "copy":
                assert world.member("log").status.is_ready


WILD = {"attempts": 1000, "backoff": "100ms", "maxBackoff": "100ms"}
LOOPS = ("start works", "start fails", "exit 1", "exit 0", "stop works", "condemned", "agent restarts", "wait", "hop")


@settings(max_examples=60, deadline=None)
@given(st.booleans(), st.lists(st.tuples(st.sampled_from(LOOPS), st.sampled_from(NAMES)), min_size=30, max_size=100))
def test_no_manifest_makes_a_hot_loop(is_alone: bool, history: list[tuple[str, str]]) -> None:
    app = {"name": "app", "image": "i", "restart": WILD}
    wanted = assigned("web-0-a", restart=WILD) if is_alone else grouped(app, {**app, "name": "api"})
    world = World.of(wanted)
    names = [member.name for member in world.group.members]
    for what, name in history:
        if what == "hop":
            world.wait(0.1)
        else:
            happen(world, what, name if name in names else names[-1])
        world.works()
    times = [at_s for at_s, _ in world.starts]
    most = 10 + len(names) - 1
    assert all(sum(one <= other < one + 60.0 for other in times) <= most for one in times)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(("start works", "wait", "look", "agent restarts", "state is lost", "healthy")),
            st.sampled_from(NAMES),
        ),
        max_size=40,
    )
)
def test_silence_and_restarts_of_the_agent_stop_nothing(history: list[tuple[str, str]]) -> None:
    world = made("Service")
    for what, name in history:
        happen(world, what, name)
    assert not any(isinstance(action, Stop) for action in world.actions)
