"""What `explain` says of who makes room is so, as the rules are read naively, and it says so whenever it is."""

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.explanations import Room
from scheduler.explain import explain
from scheduler.ledger import Ledger
from scheduler.model import Ask, PlacedAllocation, Snapshot
from scheduler.place import place
from tests.property.test_place import can_take
from tests.property.test_preemption import asks_of_one, crowded, lacks_only_room, sets_of_victims, without


def rooms_for(ask: Ask, snapshot: Snapshot, *, among: Sequence[str] | None = None, forbids: str = "") -> list[Room]:
    told = explain(ask, Ledger.of(snapshot), seed=1, among=among, is_for_each=among is not None, forbids=forbids)
    assert not (told.note and told.rooms)
    return list(told.rooms)


def possible_for(ask: Ask, snapshot: Snapshot) -> list[tuple[PlacedAllocation, ...]]:
    """Return all sets of victims that make room, but where nothing there is of a lower priority."""
    has_lower = any(a.priority < ask.priority and (a.is_leaving or a.is_wanted) for a in snapshot.allocations)
    fits = any(can_take(node, ask, snapshot) for node in snapshot.nodes)
    return [] if fits or not has_lower else list(sets_of_victims(ask, snapshot))


def check(room: Room, ask: Ask, snapshot: Snapshot) -> None:
    there = {a.id: a for a in snapshot.allocations if a.node == room.node}
    victims = [there[v.allocation] for v in room.evicted]
    assert [(v.workload, v.priority) for v in room.evicted] == [(str(a.workload), a.priority) for a in victims]
    assert all(a.is_wanted and a.priority < ask.priority for a in victims)
    assert sorted(room.leaving) == sorted(a.id for a in there.values() if a.is_leaving)
    (node,) = (n for n in snapshot.nodes if n.name == room.node)
    freed = replace(ask, neighbours=(), spread=(), max_per_node=None)
    assert lacks_only_room(node, ask, snapshot)
    assert can_take(node, freed, without(snapshot, victims)), room.sentence()
    assert bool(victims) is not can_take(node, freed, without(snapshot, ())), room.sentence()


@given(asks_of_one(), crowded(), st.booleans(), st.sampled_from(("", "the cluster is frozen")))
@settings(max_examples=300)
def test_who_makes_room_is_told_whenever_somebody_can_and_only_then(
    ask: Ask, snapshot: Snapshot, may_evict: bool, forbids: str
) -> None:
    ask = replace(ask, preempts=may_evict)
    rooms = rooms_for(ask, snapshot, forbids=forbids)
    assert len(rooms) == bool(possible_for(ask, snapshot))
    plan = place([ask], snapshot, seed=1)
    for room in rooms:
        check(room, ask, snapshot)
        is_done = may_evict and not forbids
        assert bool(room.forbids) is (bool(room.evicted) and not is_done)
        if is_done:
            assert [v.allocation for v in room.evicted] == [e.allocation for e in plan.evictions]


@given(asks_of_one(), crowded())
@settings(max_examples=200)
def test_where_each_node_is_to_have_one_each_is_told_of(ask: Ask, snapshot: Snapshot) -> None:
    ask = replace(ask, only_node=None)
    names = [node.name for node in snapshot.nodes]
    rooms = rooms_for(ask, snapshot, among=names)
    expected = {n for n in names if possible_for(replace(ask, only_node=n), snapshot)}
    assert {room.node for room in rooms} == expected
    assert len(rooms) == len(expected)
    for room in rooms:
        check(room, ask, snapshot)
