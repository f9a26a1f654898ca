"""Which marked allocations move, what is asked for in their place, and when a mark is over: by records alone."""

from typing import Any

import pytest

from control_plane import keys
from control_plane.controllers.asks import ask_of
from control_plane.controllers.garbage import garbage_of
from control_plane.controllers.movable import movable
from control_plane.controllers.moving import is_over, moving, with_moves
from control_plane.store.protocol import Delete, Put
from manifests.allocations import Allocation, Desired, Phase
from manifests.base import Model
from manifests.moves import MoveRecord
from manifests.nodes import Liveness, NodeIntent, NodeStatus
from manifests.reasons import Blocked
from manifests.rollouts import Rollout, RolloutState
from manifests.status import WorkloadStatus
from manifests.workloads import WorkloadRecord
from tests.builders import record, seen, status
from tests.cache import Cache
from tests.scripted import facts

WEB = "default/service/web"


class Rig:
    """A service `web` of two, at rest on n1 and n2, and n3 that is free."""

    def __init__(self, **spec: Any) -> None:
        self.cache, self.of = Cache(), record(**{"replicas": 2, **spec})
        self.state = self.cache.state
        for name in ("n1", "n2", "n3"):
            self.node(name)
        self.put(keys.WORKLOADS + WEB, self.of)
        self.rollout(RolloutState.COMPLETE)
        self.held = [self.run(index, f"n{index + 1}") for index in range(2)]

    def put(self, key: str, model: Model) -> None:
        self.cache.write([Put(key, model.to_bytes())])

    def node(self, name: str, liveness: Liveness = Liveness.READY) -> None:
        self.put(
            keys.NODES + name, NodeStatus(facts=facts(name), liveness=liveness, server="", session=1, changed_s=0.0)
        )

    def rollout(self, state: RolloutState, *, blocked: tuple[Blocked, ...] = ()) -> None:
        rollout = Rollout(version=self.of.version, target=self.of.version, state=state, healthy=(1,))
        said = WorkloadStatus(ref=self.of.ref, generation=1, rollout=rollout, blocked=blocked)
        self.put(keys.WORKLOAD_STATUSES + WEB, said)

    def change(self, **changes: Any) -> WorkloadRecord:
        self.of = self.of.model_copy(update=changes)
        self.put(keys.WORKLOADS + WEB, self.of)
        return self.of

    def run(self, index: int, node: str, *, desired: Desired = Desired.RUN, ready: bool = True) -> Allocation:
        a = seen(self.of, index, node=node).allocation.model_copy(update={"desired": desired})
        place = keys.placed_id(a.node, a.id)
        self.put(keys.ALLOCATIONS + place, a)
        self.put(keys.STATUSES + place, status(a, Phase.RUNNING, ready=ready))
        return a

    def mark(self, a: Allocation, to: str = "n3") -> MoveRecord:
        move = MoveRecord(
            allocation=a.id, workload=a.workload, version=a.version, from_node=a.node, to_node=to, why="w", since_s=0.0
        )
        self.put(keys.MOVES + a.id, move)
        return move

    def garbage(self) -> set[str]:
        return {w.key for unit in garbage_of(self.state) for w in unit.writes if isinstance(w, Delete)}


def test_one_at_a_time_moves_and_in_its_place_the_target_is_preferred() -> None:
    rig = Rig()
    assert moving(rig.state, WEB) is None
    moves = sorted((rig.mark(a) for a in rig.held), key=lambda move: move.allocation)
    assert moving(rig.state, WEB) == moves[0]
    (ask,) = with_moves([ask_of(rig.of, [2])], rig.state)
    assert (ask.prefer, ask.avoid, ask.preempts) == (frozenset({"n3"}), frozenset({"n1", "n2"}), False)
    assert rig.garbage() == set()


@pytest.mark.parametrize("why", ["not ready", "paused", "in a rollout", "scaled up", "node lost"])
def test_nothing_moves_while_the_workload_has_enough_to_do(why: str) -> None:
    rig = Rig()
    move = rig.mark(rig.held[0])
    match why:
        case "not ready":
            rig.run(1, "n2", ready=False)
        case "paused":
            rig.change(paused=True)
        case "in a rollout":
            rig.rollout(RolloutState.PROGRESSING)
        case "scaled up":
            spec = rig.of.workload.spec.model_copy(update={"replicas": 3})
            rig.change(workload=rig.of.workload.model_copy(update={"spec": spec}))
        case _:
            rig.node("n2", Liveness.LOST)
    assert moving(rig.state, WEB) is None
    assert not is_over(rig.state, move), "it waits"
    assert with_moves([ask_of(rig.of, [2])], rig.state)[0].preempts


@pytest.mark.parametrize("why", ["new version", "gone", "other life", "target cordoned", "target lost", "done"])
def test_a_mark_that_matters_no_more_goes(why: str) -> None:
    rig = Rig()
    a = rig.held[0]
    move = rig.mark(a)
    match why:
        case "new version":
            rig.change(version=2)
        case "gone":
            rig.cache.write([Delete(keys.WORKLOADS + WEB)])
        case "other life":
            rig.change(uid="u2")
        case "target cordoned":
            rig.put(keys.NODE_INTENTS + "n3", NodeIntent(name="n3", is_cordoned=True))
        case "target lost":
            rig.node("n3", Liveness.LOST)
        case _:
            rig.cache.write([Delete(keys.ALLOCATIONS + keys.placed_id(a.node, a.id))])
    assert is_over(rig.state, move)
    assert moving(rig.state, WEB) is None
    assert keys.MOVES + a.id in rig.garbage()


def test_while_the_old_one_stops_first_its_place_is_kept_in_mind() -> None:
    rig = Rig(update={"maxSurge": 0, "maxUnavailable": 1})
    move = rig.mark(rig.held[0])
    stopped = rig.held[0].model_copy(update={"desired": Desired.STOP})
    rig.put(keys.ALLOCATIONS + keys.placed_id("n1", stopped.id), stopped)
    assert not is_over(rig.state, move)
    (ask,) = with_moves([ask_of(rig.of, [0])], rig.state)
    assert (ask.prefer, ask.avoid, ask.preempts) == (frozenset({"n3"}), frozenset({"n1"}), True)


def test_what_has_no_other_place_stays_and_its_mark_goes() -> None:
    rig = Rig()
    rig.mark(rig.held[0])
    rig.rollout(RolloutState.COMPLETE, blocked=(Blocked(1, 1, ()),))
    assert keys.MOVES + rig.held[0].id in rig.garbage()


def test_services_at_rest_may_be_moved_and_nothing_else() -> None:
    rig = Rig()
    assert set(movable(rig.state)) == {a.id for a in rig.held}
    other = record(name="near", uid="u9", placement={"together": [{"service": "web"}]})
    rig.put(keys.WORKLOADS + "default/service/near", other)
    assert movable(rig.state) == {}, "others must be together with it"


@pytest.mark.parametrize("why", ["paused", "in a rollout", "not ready", "node suspect", "node drained"])
def test_what_is_not_at_rest_is_not_moved(why: str) -> None:
    rig = Rig()
    match why:
        case "paused":
            rig.change(paused=True)
        case "in a rollout":
            rig.rollout(RolloutState.PROGRESSING)
        case "not ready":
            rig.run(1, "n2", ready=False)
        case "node suspect":
            rig.node("n2", Liveness.SUSPECT)
        case _:
            rig.put(keys.NODE_INTENTS + "n2", NodeIntent(name="n2", is_cordoned=True, is_draining=True))
    assert movable(rig.state) == {}
