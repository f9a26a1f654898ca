"""Bursts: what of them is placed in one pass, and what becomes of the rest."""

from control_plane import keys
from control_plane.controllers.asks import ask_of
from control_plane.controllers.bursts import portion_of, with_left
from manifests.reasons import Blocked
from scheduler.model import BlockedAsk, Plan
from tests.builders import record

BIG, SMALL = record(uid="big"), record("Daemon", uid="small")
BIG_ID = keys.id_of_ref(BIG.ref)


def test_a_burst_is_cut_and_everybody_else_is_placed_whole() -> None:
    portion = portion_of([ask_of(BIG, range(10)), ask_of(SMALL, [0, 1])], most=4)
    assert [(ask.workload.uid, ask.indexes) for ask in portion.asks] == [("big", (0, 1, 2, 3)), ("small", (0, 1))]
    assert portion.left == {BIG_ID: 6}


def test_several_asks_of_one_workload_share_its_portion() -> None:
    portion = portion_of([ask_of(BIG, [7]), ask_of(BIG, [8]), ask_of(BIG, range(5))], most=3)
    assert [ask.indexes for ask in portion.asks] == [(7,), (8,), (0,)]
    assert portion.left == {BIG_ID: 4}


def test_what_is_no_burst_has_nothing_left() -> None:
    asks = (ask_of(BIG, range(4)),)
    assert (portion_of(asks, most=4).asks, portion_of(asks, most=4).left) == (asks, {})


def test_the_rest_of_a_burst_that_finds_no_room_is_blocked_with_it_and_counted_once() -> None:
    blocked = [BlockedAsk(BIG.ref, (index,), Blocked(1, 1, ())) for index in (2, 3)]
    other = BlockedAsk(SMALL.ref, (0,), Blocked(1, 1, ()))
    plan = with_left(Plan((), (*blocked, other)), {BIG_ID: 6})
    assert [b.blocked.count for b in plan.blocked] == [7, 1, 1]


def test_a_plan_without_a_burst_stays_as_it_is() -> None:
    plan = Plan((), (BlockedAsk(BIG.ref, (0,), Blocked(1, 1, ())),))
    assert with_left(plan, {}) == plan
