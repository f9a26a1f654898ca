"""What holds for every proposal of moves, checked against the naive reading of the rules in `test_place`."""

from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.placement import Policy
from manifests.workloads import Kind
from scheduler.ledger import Ledger
from scheduler.make_way import make_way
from scheduler.model import Ask, Eligibility, NodeView, PlacedAllocation, Snapshot
from scheduler.moves import Move, Proposal
from scheduler.rebalance import pack
from tests.property.test_place import can_take
from tests.strategies import WORKLOADS, asks, snapshots

World = tuple[Snapshot, dict[str, Ask]]
budgets = st.sampled_from((20, 20, 3, 2, 1))


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Return a cluster, and what most of its allocations ask for: those may be moved."""
    snapshot = draw(snapshots())
    specs = {ref: replace(draw(asks()), workload=ref, only_node=None, avoid=frozenset()) for ref in WORKLOADS}
    specs = {ref: replace(ask, reserved=replace(ask.reserved, devices=())) for ref, ask in specs.items()}
    allocations, movable = [], {}
    for a in snapshot.allocations:
        ask = specs[a.workload]
        a = replace(a, version=ask.version, reserved=ask.reserved, ports=(), is_leaving=not a.is_wanted)
        allocations.append(a)
        if a.is_wanted and draw(st.integers(0, 5)):
            movable[a.id] = replace(ask, indexes=(a.index,))
    return replace(snapshot, allocations=tuple(allocations)), movable


def without(snapshot: Snapshot, allocation_id: str) -> Snapshot:
    return replace(snapshot, allocations=tuple(a for a in snapshot.allocations if a.id != allocation_id))


def after(snapshot: Snapshot, move: Move) -> Snapshot:
    moved = replace(move.allocation, node=move.to)
    return replace(snapshot, allocations=(*without(snapshot, moved.id).allocations, moved))


def carried_out(snapshot: Snapshot, proposal: Proposal, movable: dict[str, Ask]) -> Snapshot:
    """Make the moves one by one, and check that each is possible by then, with the old one there and without."""
    views = {node.name: node for node in snapshot.nodes}
    for move in proposal.moves:
        ask = movable[move.allocation.id]
        assert move.allocation in snapshot.allocations
        assert move.to != move.allocation.node
        assert move.gain > 0
        assert move.reason
        assert can_take(views[move.to], ask, snapshot), "while the old one is there"
        assert can_take(views[move.to], ask, without(snapshot, move.allocation.id)), "once the old one is gone"
        snapshot = after(snapshot, move)
    assert len({move.allocation.id for move in proposal.moves}) == len(proposal.moves)
    return snapshot


def used(snapshot: Snapshot) -> set[str]:
    """Return the open nodes that hold what stays."""
    is_open = {n.name for n in snapshot.nodes if n.eligibility is Eligibility.READY}
    return {a.node for a in snapshot.allocations if a.node in is_open and not a.is_leaving}


@given(worlds(), budgets)
@settings(max_examples=300)
def test_packing_frees_what_it_says_by_moves_that_are_all_possible(world: World, budget: int) -> None:
    snapshot, movable = world
    proposal = pack(Ledger.of(snapshot), movable, max_moves=budget)
    assert len(proposal.moves) <= budget
    then = carried_out(snapshot, proposal, movable)
    assert used(then) == used(snapshot) - set(proposal.freed)
    assert len(used(then)) == len(used(snapshot)) - len(proposal.freed)
    assert {m.to for m in proposal.moves} <= used(then)
    assert all(movable[m.allocation.id].policy is not Policy.SPREAD for m in proposal.moves)


@given(worlds(), budgets)
def test_packing_crowds_no_workload_more_than_it_was_anywhere(world: World, budget: int) -> None:
    snapshot, movable = world
    then = carried_out(snapshot, pack(Ledger.of(snapshot), movable, max_moves=budget), movable)
    for ref in WORKLOADS:
        before, now = (
            max(Counter(a.node for a in s.allocations if a.is_wanted and a.workload == ref).values(), default=0)
            for s in (snapshot, then)
        )
        assert now <= before


@given(worlds())
@settings(max_examples=300)
def test_a_second_look_after_the_moves_proposes_nothing(world: World) -> None:
    snapshot, movable = world
    proposal = pack(Ledger.of(snapshot), movable, max_moves=100)
    then = carried_out(snapshot, proposal, movable)
    again = pack(Ledger.of(then), movable, max_moves=100)
    assert again.moves == ()
    assert proposal.beyond == 0


@given(worlds())
def test_a_proposal_does_not_depend_on_the_order_of_records(world: World) -> None:
    snapshot, movable = world
    turned = replace(snapshot, nodes=snapshot.nodes[::-1], allocations=snapshot.allocations[::-1])
    backwards = dict(reversed(movable.items()))
    expected = pack(Ledger.of(snapshot), movable, max_moves=20)
    assert pack(Ledger.of(turned), backwards, max_moves=20) == expected


@given(worlds(), asks(), budgets)
@settings(max_examples=300)
def test_moves_make_the_room_that_they_say_and_none_is_without_use(world: World, ask: Ask, budget: int) -> None:
    snapshot, movable = world
    ref = WORKLOADS[0].model_copy(update={"name": "new", "uid": "new"})
    one = replace(ask, workload=ref, indexes=(100,), spread=(), only_node=None)
    proposal = make_way([one], Ledger.of(snapshot), movable, max_moves=budget)
    assert len(proposal.moves) <= budget
    assert len(proposal.rooms) + proposal.short == 1
    then = carried_out(snapshot, proposal, movable)
    views: dict[str, NodeView] = {node.name: node for node in snapshot.nodes}
    for name in proposal.rooms:
        assert can_take(views[name], one, then)
    if any(can_take(node, one, snapshot) for node in snapshot.nodes):
        assert (proposal.moves, len(proposal.rooms)) == ((), 1)
    for move in proposal.moves:
        back = replace(move.allocation, node=move.allocation.node)
        kept = replace(then, allocations=(*without(then, back.id).allocations, back))
        assert not can_take(views[proposal.rooms[0]], one, kept), "it would have fit without that move"


@given(worlds(), asks())
def test_what_no_single_move_helps_is_not_promised_less_than_one_move(world: World, ask: Ask) -> None:
    """Where one move suffices, one is proposed: the fewest."""
    snapshot, movable = world
    ref = WORKLOADS[0].model_copy(update={"name": "new", "uid": "new"})
    one = replace(ask, workload=ref, indexes=(100,), spread=(), neighbours=(), only_node=None)
    proposal = make_way([one], Ledger.of(snapshot), movable, max_moves=20)
    if any(can_take(node, one, snapshot) for node in snapshot.nodes):
        return
    if any(_helps(a, snapshot, movable, one) for a in snapshot.allocations if a.id in movable):
        assert len(proposal.moves) == 1


def _helps(a: PlacedAllocation, snapshot: Snapshot, movable: dict[str, Ask], one: Ask) -> bool:
    """Say whether moving it somewhere, as the rules let, makes room for the one where it was."""
    if a.workload.kind is not Kind.SERVICE:
        return False
    gone = without(snapshot, a.id)
    own = next((n for n in snapshot.nodes if n.name == a.node), None)
    if own is None:
        return False
    for node in snapshot.nodes:
        if node.name != a.node and can_take(node, movable[a.id], snapshot) and can_take(node, movable[a.id], gone):
            moved = replace(gone, allocations=(*gone.allocations, replace(a, node=node.name)))
            if can_take(own, one, moved):
                return True
    return False
