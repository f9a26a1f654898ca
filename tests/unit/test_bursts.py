"""Bursts: what of them is placed in one pass, and what becomes of the rest."""

import pytest

from control_plane import keys
from control_plane.controllers.asks import ask_of
from control_plane.controllers.bursts import Rest, Rests, portion_of, with_left
from control_plane.controllers.decision import Decision, Succession
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


def test_the_rest_of_a_burst_is_what_its_portion_left() -> None:
    portion = portion_of([ask_of(BIG, [9]), ask_of(BIG, range(5)), ask_of(SMALL, [0])], most=3)
    assert [ask.indexes for ask in portion.rests[BIG_ID]] == [(2, 3, 4)]
    assert portion.rests.keys() == {BIG_ID}


@pytest.mark.parametrize(
    ("revision", "now_s", "holds"),
    [(7, 3.0, True), (8, 3.0, False), (7, 5.1, False)],
    ids=["as it was", "the workload was changed", "too late"],
)
def test_a_rest_holds_for_the_record_it_was_decided_by_and_not_for_long(
    revision: int, now_s: float, *, holds: bool
) -> None:
    rests, rest = Rests(), Rest(Decision(asks=(ask_of(BIG, range(4)),)), revision=7, until_s=5.0)
    rests.keep(BIG_ID, rest)
    assert rests.take(BIG_ID, revision, now_s) == (rest if holds else None)
    assert rests.take(BIG_ID, 7, 3.0) is None, "it was taken, or is over"


def test_no_rest_is_kept_of_a_decision_that_takes_over_slots_or_of_one_whose_writes_failed() -> None:
    asks = (ask_of(BIG, range(4)),)
    rests = Rests()
    rests.keep(BIG_ID, Rest(Decision(asks=asks, successions={0: Succession("a")}), revision=7, until_s=5.0))
    assert rests.take(BIG_ID, 7, 3.0) is None
    rests.keep(BIG_ID, Rest(Decision(asks=asks), revision=7, until_s=5.0))
    rests.forget()
    assert rests.take(BIG_ID, 7, 3.0) is None
