"""When a lack of room is no fault of a version, and what becomes of a rollout's deadline then."""

from collections.abc import Sequence
from typing import Any

import pytest

from control_plane.controllers.decision import Seen
from control_plane.controllers.progress import ProgressClock
from control_plane.controllers.rollouts import Course, Progress, course_of
from control_plane.controllers.room import only_lacks_room
from manifests.allocations import Phase
from manifests.reasons import Blocked, Code, Rejection
from manifests.rollouts import Rollout, RolloutState
from scheduler.model import Eligibility, NodeView, Vector
from tests.builders import record, seen, version_record
from tests.clocks import StepClock

NODES = [NodeView("n1", Eligibility.READY, {}, {}, Vector(1000, 2**30, 1000, 2**40))]


def going(before: dict[str, Any] | None = None, **now: Any) -> Course:
    """Return the rollout of version 2 where version 1, with that in its spec, was healthy; None: there was none."""
    of = record(replicas=3, version=2, **now)
    kept = {} if before is None else {1: version_record(record(replicas=3, **before), 1)}
    rollout = Rollout(version=2, target=2, state=RolloutState.PROGRESSING, healthy=tuple(kept))
    return course_of(of, rollout, kept)


def lacking(*codes: Code, version: int = 2) -> list[Blocked]:
    return [Blocked(version, 1, tuple(Rejection(f"n{n}", code) for n, code in enumerate(codes, 1)))]


def is_excused(of: Course, here: Sequence[Seen] = (), blocked: Sequence[Blocked] = ()) -> bool:
    return only_lacks_room(of, here, blocked or lacking(Code.MEMORY), NODES)


@pytest.mark.parametrize("code", [Code.CPU, Code.HOST_PORT, Code.KEPT, Code.MAX_PER_NODE])
def test_a_full_node_is_no_fault_of_a_version(code: Code) -> None:
    assert is_excused(going({}), blocked=lacking(Code.CORDONED, code))


def test_what_no_room_would_help_is_counted() -> None:
    assert not is_excused(going({}), blocked=lacking(Code.CONSTRAINT, Code.CORDONED))
    assert not is_excused(going({}), blocked=[*lacking(Code.CPU), *lacking(Code.CONSTRAINT)])


def test_what_is_blocked_of_another_version_excuses_nothing() -> None:
    assert not is_excused(going({}), blocked=lacking(Code.CPU, version=1))


def test_while_something_of_it_is_on_trial_time_counts() -> None:
    of = going({})
    assert is_excused(of, [seen(of.record, 0), seen(of.record, 1, version=1, ready=False)])
    assert not is_excused(of, [seen(of.record, 0), seen(of.record, 1, ready=False)])
    assert not is_excused(of, [seen(of.record, 0, Phase.FAILED)])


@pytest.mark.parametrize(
    ("before", "now", "is_modest"),
    [
        ({"memory": "200Mi"}, {"memory": "200Mi"}, True),
        ({"memory": "200Mi"}, {"memory": "100Mi", "cpu": "100m"}, True),
        ({"memory": "200Mi"}, {"memory": "201Mi"}, False),
        ({"cpu": "100m"}, {"cpu": "50m", "pids": 200}, False),
        ({}, {"devices": {"gpu": 1}}, False),
    ],
)
def test_what_asks_for_more_than_the_last_healthy_version_has_itself_to_blame(
    before: dict[str, Any], now: dict[str, Any], is_modest: bool
) -> None:
    assert is_excused(going({"resources": before}, resources=now)) is is_modest


def test_a_host_port_that_is_new_is_more_and_one_that_any_free_one_does_for_is_not() -> None:
    port: dict[str, Any] = {"name": "http", "container": 80}
    assert not is_excused(going({}, ports=[{**port, "publish": 8080}]))
    assert is_excused(going({}, ports=[{**port, "publish": "auto"}]))
    assert is_excused(going({"ports": [{**port, "publish": 8080}]}, ports=[{**port, "publish": 8080}]))


@pytest.mark.parametrize(("memory", "is_modest"), [("1Gi", True), ("1025Mi", False)])
def test_a_first_version_may_ask_for_what_a_node_has_at_all(memory: str, is_modest: bool) -> None:
    assert is_excused(going(None, resources={"memory": memory})) is is_modest


def test_time_in_which_only_room_is_lacking_is_left_out_and_what_was_counted_before_is_kept() -> None:
    clock = StepClock()
    watch = ProgressClock(clock)

    def stalled_after(seconds: float, *, only_lacks_room: bool) -> float:
        clock.advance(seconds)
        return watch.stalled_for_s("w", Progress(("1",), 0, 3, only_lacks_room))

    assert stalled_after(0, only_lacks_room=False) == 0.0
    assert stalled_after(10, only_lacks_room=True) == 0.0
    assert stalled_after(1000, only_lacks_room=True) == 0.0
    assert stalled_after(1000, only_lacks_room=False) == 10.0
    assert stalled_after(10, only_lacks_room=False) == 20.0
