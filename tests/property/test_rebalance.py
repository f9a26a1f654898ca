"""What holds for every proposal of moves, checked against the naive reading of the rules in `test_place`."""

from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from manifests.placement import Policy
from manifests.workloads import WorkloadRef
from scheduler.even import even
from scheduler.ledger import Ledger
from scheduler.make_way import make_way
from scheduler.model import Ask, Eligibility, NodeView, PlacedAllocation, Snapshot, Vector
from scheduler.moves import Move, Proposal
from scheduler.rebalance import pack
from tests.property.test_place import can_take, value_of
from tests.strategies import WORKLOADS, asks, nodes

World = tuple[Snapshot, dict[str, Ask]]
budgets = st.sampled_from((20, 20, 3, 2, 1))


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Return a cluster in which some nodes are nearly full, and what most of its allocations ask for: they may move."""
    views = [draw(nodes(name=f"n{number}", is_ready=bool(number))) for number in range(draw(st.integers(2, 5)))]
    sizes = st.sampled_from((8, 16))
    views = [replace(view, allocatable=_size(draw(sizes)), devices={}) for view in views]
    specs = {ref: _eased(draw(asks()), draw(st.integers(0, 3)), ref) for ref in WORKLOADS}
    free = {view.name: view.allocatable for view in views}
    allocations, movable = [], {}
    for number in range(draw(st.integers(1, 16))):
        ask, node = specs[draw(st.sampled_from(WORKLOADS))], draw(st.sampled_from(views)).name
        is_wanted = bool(draw(st.integers(0, 9)))
        if not ask.reserved.fits(free[node]):
            continue
        free[node] = free[node] - ask.reserved
        a = PlacedAllocation(
            f"old-{number}",
            ask.workload,
            ask.version,
            number,
            node,
            ask.reserved,
            (),
            is_wanted,
            is_leaving=not is_wanted,
        )
        allocations.append(a)
        if is_wanted and draw(st.integers(0, 9)):
            movable[a.id] = replace(ask, indexes=(a.index,))
    return Snapshot(1, tuple(views), tuple(allocations)), movable


@st.composite
def newcomers(draw: st.DrawFn) -> Ask:
    """Return what needs much room of its own."""
    ref = WORKLOADS[0].model_copy(update={"name": "new", "uid": "new"})
    return replace(
        _eased(draw(asks()), draw(st.integers(0, 1)), ref),
        indexes=(99,),
        spread=(),
        reserved=_size(draw(st.integers(5, 16))),
    )


def _size(units: int) -> Vector:
    return Vector(units * 100, units * 64 * 2**20, units * 16, units * 2**30)


def _eased(ask: Ask, rules: int, ref: WorkloadRef) -> Ask:
    """Return it with few rules, so that there is something to move; `rules`: 0 leaves all that were drawn."""
    ask = replace(ask, workload=ref, only_node=None, avoid=frozenset(), reserved=replace(ask.reserved, devices=()))
    if not rules:
        return ask
    eased = Ask(ref, ask.version, (0,), ask.reserved, policy=ask.policy if rules == 1 else Policy.PACK)
    return replace(eased, spread=ask.spread, affinities=ask.affinities) if rules == 2 else eased


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
@settings(max_examples=100)
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


def unevenness(snapshot: Snapshot, ask: Ask, over: str) -> int:
    """Return the sum of the squares of how many of the workload have each value."""
    views = {node.name: node for node in snapshot.nodes}
    mine = (a for a in snapshot.allocations if a.is_wanted and a.workload == ask.workload and a.node in views)
    return sum(n * n for n in Counter(value_of(views[a.node], over) for a in mine).values())


@given(worlds(), budgets)
@settings(max_examples=100)
def test_moves_that_even_out_are_possible_and_each_makes_it_more_even(world: World, budget: int) -> None:
    snapshot, movable = world
    proposal = even(Ledger.of(snapshot), movable, max_moves=budget)
    assert len(proposal.moves) <= budget
    carried_out(snapshot, proposal, movable)
    for move in proposal.moves:
        ask, then = movable[move.allocation.id], after(snapshot, move)
        assert ask.spread or ask.policy is Policy.SPREAD
        if ask.spread:
            before, now = ([unevenness(s, ask, over.over) for over in ask.spread] for s in (snapshot, then))
            per_node = [unevenness(s, ask, "node.name") for s in (snapshot, then)]
            is_better = now < before or (now == before and per_node[1] <= per_node[0])
            assert is_better
        snapshot = then


@given(worlds())
@settings(max_examples=100)
def test_a_second_look_after_evening_out_proposes_nothing(world: World) -> None:
    snapshot, movable = world
    then = carried_out(snapshot, even(Ledger.of(snapshot), movable, max_moves=100), movable)
    assert even(Ledger.of(then), movable, max_moves=100).moves == ()


@given(worlds())
@settings(max_examples=100)
def test_a_second_look_after_the_moves_proposes_nothing(world: World) -> None:
    snapshot, movable = world
    proposal = pack(Ledger.of(snapshot), movable, max_moves=100)
    then = carried_out(snapshot, proposal, movable)
    again = pack(Ledger.of(then), movable, max_moves=100)
    assert again.moves == ()
    assert not proposal.has_more


@given(worlds())
def test_a_proposal_does_not_depend_on_the_order_of_records(world: World) -> None:
    snapshot, movable = world
    turned = replace(snapshot, nodes=snapshot.nodes[::-1], allocations=snapshot.allocations[::-1])
    backwards = dict(reversed(movable.items()))
    expected = pack(Ledger.of(snapshot), movable, max_moves=20)
    assert pack(Ledger.of(turned), backwards, max_moves=20) == expected


@given(worlds(), newcomers(), budgets)
@settings(max_examples=100)
def test_moves_make_the_room_that_they_say_and_none_is_without_use(world: World, one: Ask, budget: int) -> None:
    snapshot, movable = world
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


@given(worlds(), newcomers())
@settings(max_examples=100)
def test_where_one_move_makes_room_one_is_proposed(world: World, one: Ask) -> None:
    snapshot, movable = world
    proposal = make_way([one], Ledger.of(snapshot), movable, max_moves=20)
    if any(can_take(node, one, snapshot) for node in snapshot.nodes):
        return
    if any(_helps(a, snapshot, movable, one) for a in snapshot.allocations if a.id in movable):
        assert len(proposal.moves) == 1


def _helps(a: PlacedAllocation, snapshot: Snapshot, movable: dict[str, Ask], one: Ask) -> bool:
    """Say whether moving it somewhere, as the rules let, makes room for the one where it was."""
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
