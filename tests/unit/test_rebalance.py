"""Which moves are proposed, by examples, to be read as a manual; and what may be moved at all, by the records."""

from dataclasses import replace

from manifests.placement import Policy
from scheduler.even import even
from scheduler.ledger import Ledger
from scheduler.make_way import make_way
from scheduler.model import Ask, Neighbour, NodeView, PlacedAllocation, Spread, Vector
from scheduler.moves import Proposal
from scheduler.rebalance import pack
from tests.unit.test_place import MEBIBYTE, ask, held, node, ref, snapshot


def small(on: str, workload: str, index: int = 0, cpu_m: int = 250) -> PlacedAllocation:
    return held(on, workload=workload, index=index, reserved=Vector(cpu_m, MEBIBYTE, 1))


def movable(*here: PlacedAllocation, **more: object) -> dict[str, Ask]:
    """Return what they ask for, with more said of all of them."""
    asks = {a.id: Ask(a.workload, a.version, (a.index,), a.reserved) for a in here}
    return {id_: replace(one, **more) for id_, one in asks.items()}  # type: ignore[arg-type]  # of a test's own words


def lines(proposal: Proposal) -> list[str]:
    return [f"{m.allocation.id} -> {m.to}: {m.reason} ({m.gain:.2f})" for m in proposal.moves]


def packed(members: list[NodeView | PlacedAllocation], asks: dict[str, Ask], max_moves: int = 20) -> Proposal:
    return pack(Ledger.of(snapshot(*members)), asks, max_moves=max_moves)


A, B, C = small("n1", "a"), small("n2", "b"), small("n2", "c")
NODES: list[NodeView | PlacedAllocation] = [node("n1", cpu_m=1000), node("n2", cpu_m=1000), node("n3", cpu_m=1000)]


def test_the_node_with_the_fewest_is_emptied_onto_one_in_use() -> None:
    proposal = packed([*NODES, A, B, C], movable(A, B, C))
    assert lines(proposal) == ["a-0-n1 -> n2: frees n1 (1.00)"]
    assert (proposal.freed, proposal.has_more) == (("n1",), False)


def test_a_node_is_emptied_wholly_or_not_at_all() -> None:
    assert packed([*NODES, A, B, C], movable(A, B)).freed == ("n1",), "n2 holds what must stay"
    assert packed([*NODES, A, B, C], movable(B)).moves == ()
    full, wide = small("n2", "d", cpu_m=500), small("n1", "e", cpu_m=500)
    assert packed([*NODES, A, wide, B, C, full], movable(A, wide, B, C, full)).moves == ()


def test_the_gain_of_a_node_is_shared_by_its_moves_and_the_budget_is_kept() -> None:
    more = small("n1", "d"), small("n1", "e")
    there = [*more, small("n2", "b", cpu_m=500)]
    assert lines(packed([*NODES, *there], movable(*more))) == [
        "d-0-n1 -> n2: frees n1 with 1 more (0.50)",
        "e-0-n1 -> n2: frees n1 with 1 more (0.50)",
    ]
    short = packed([*NODES, *there], movable(*more), max_moves=1)
    assert (short.moves, short.has_more) == ((), True)


def test_packing_does_not_undo_what_a_workload_wants() -> None:
    twins = small("n1", "a", 0), small("n2", "a", 1)
    assert packed([*NODES, *twins], movable(*twins)).moves == (), "they stand apart"
    assert packed([*NODES, A, B, C], movable(A, B, C, policy=Policy.SPREAD)).moves == ()
    zones = [node("n1", cpu_m=1000, zone="a"), node("n2", cpu_m=1000, zone="b"), node("n3", cpu_m=1000, zone="a")]
    siblings = small("n1", "a", 0), small("n3", "b", 0), small("n2", "b", 1)
    asks = movable(*siblings, spread=(Spread("node.labels.zone"),))
    proposal = packed([*zones, *siblings], asks)
    assert [(m.allocation.workload.name, m.to) for m in proposal.moves if m.allocation.workload.name == "b"] == []


ZONES: list[NodeView | PlacedAllocation] = [node("n1", zone="a"), node("n2", zone="b"), node("n3", zone="b")]


def test_a_spread_is_evened_out_by_the_move_that_gains_most() -> None:
    here = [small("n1", "a", index) for index in range(4)]
    asks = movable(*here, spread=(Spread("node.labels.zone"),))
    proposal = even(Ledger.of(snapshot(*ZONES, *here)), asks, max_moves=20)
    assert [(m.gain > 2, m.reason) for m in proposal.moves] == [
        (True, "node.labels.zone a has 4 of service/a, b has 0"),
        (False, "node.labels.zone a has 3 of service/a, b has 1"),
    ]
    assert {m.to for m in proposal.moves} == {"n2", "n3"}
    assert even(Ledger.of(snapshot(*ZONES, *here)), asks, max_moves=1).has_more


def test_what_is_to_be_spread_over_nodes_goes_to_the_emptier_one_and_what_is_packed_stays() -> None:
    here = small("n1", "a"), small("n1", "b", cpu_m=3000)
    cluster = Ledger.of(snapshot(*ZONES, *here))
    (move,) = even(cluster, movable(*here, policy=Policy.SPREAD), max_moves=20).moves
    assert move.reason == f"n1 is fuller than {move.to}"
    assert even(cluster, movable(*here), max_moves=20).moves == ()


def test_a_move_that_gains_little_is_not_made() -> None:
    here = small("n1", "a"), small("n1", "b", cpu_m=10)
    cluster = Ledger.of(snapshot(*ZONES, *here))
    assert even(cluster, movable(here[0], policy=Policy.SPREAD), max_moves=20).moves == ()


def test_room_is_made_by_the_fewest_moves() -> None:
    here = small("n1", "a", cpu_m=250), small("n1", "b", cpu_m=500), small("n2", "c", cpu_m=750)
    cluster = snapshot(node("n1", cpu_m=1000), node("n2", cpu_m=1250), *here)
    wanted = ask(workload="db", reserved=Vector(750, MEBIBYTE, 1))
    proposal = make_way([wanted], Ledger.of(cluster), movable(*here), max_moves=20)
    assert lines(proposal) == ["b-0-n1 -> n2: makes room for service/db on n1 (1.00)"]
    assert (proposal.rooms, proposal.short) == (("n1",), 0)


def test_room_that_is_there_already_takes_no_moves_and_what_has_none_is_told() -> None:
    here = [small("n1", "a")]
    cluster = Ledger.of(snapshot(node("n1", cpu_m=1000), node("n2", cpu_m=500), *here))
    db = ask(workload="db")
    wants = [replace(db, indexes=(i,), reserved=Vector(m, MEBIBYTE, 1)) for i, m in enumerate((750, 800))]
    proposal = make_way(wants, cluster, movable(*here), max_moves=20)
    assert (proposal.moves, proposal.rooms, proposal.short, proposal.has_more) == ((), ("n1",), 1, False)
    tight = make_way([wants[1]], cluster, movable(*here), max_moves=20)
    assert lines(tight) == ["a-0-n1 -> n2: makes room for service/db on n1 (1.00)"]


def test_who_must_be_beside_the_newcomer_does_not_make_way_for_it() -> None:
    here = small("n1", "a", cpu_m=500), small("n2", "b", cpu_m=250)
    cluster = Ledger.of(snapshot(node("n1", cpu_m=1000), node("n2", cpu_m=1000), *here))
    beside = replace(ask(workload="db", reserved=Vector(750, MEBIBYTE, 1)), neighbours=(Neighbour(ref("a")),))
    assert make_way([beside], cluster, movable(*here), max_moves=20).short == 1
