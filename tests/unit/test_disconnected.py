"""What onDisconnect makes of a service's and a job's allocations, case by case."""

from dataclasses import replace
from typing import Any

from control_plane.controllers.decision import Decision, Seen
from control_plane.controllers.disconnected import SETTLE_S
from control_plane.controllers.reconcile import Sight, reconcile
from manifests.allocations import Desired, Phase
from manifests.workloads import WorkloadRecord
from scheduler.model import Eligibility
from tests.builders import record, seen, version_record

LOST = Eligibility.LOST


def decide(of: WorkloadRecord, *allocations: Seen) -> Decision:
    versions = {v: version_record(of, v) for v in range(1, of.version + 1)}
    return reconcile(Sight(of, allocations, [], None, versions, [], was_blocked=False))


def asked(decision: Decision) -> list[int]:
    return sorted(index for ask in decision.asks for index in ask.indexes)


def web(replicas: int = 1, version: int = 1, **policy: Any) -> WorkloadRecord:
    return record(replicas=replicas, version=version, onDisconnect=policy, stop={"grace": "10s"})


def lost(of: WorkloadRecord, index: int = 0, for_s: float = 0.0, **given: Any) -> Seen:
    return replace(seen(of, index, node_is=LOST, **given), lost_for_s=for_s)


def spare(of: WorkloadRecord, index: int = 0, *, attempt: int = 1, back_for_s: float = SETTLE_S, **given: Any) -> Seen:
    """Return an original whose slot went to another; by default its node is back, and it runs in its first attempt."""
    s = seen(of, index, desired=Desired.STOP, **given)
    allocation = s.allocation.model_copy(update={"desired": Desired.SPARE, "spared_attempt": 1, "id": f"spare-{index}"})
    status = s.status and s.status.model_copy(update={"attempt": attempt})
    return replace(s, allocation=allocation, status=status, back_for_s=back_for_s)


def test_by_default_a_lost_allocation_is_replaced_at_once() -> None:
    decision = decide(web(), lost(web()))
    assert (asked(decision), len(decision.stops), decision.turns) == ([0], 1, ())


def test_until_replace_after_it_is_waited_for_and_that_is_said() -> None:
    of = web(replaceAfter="1m")
    decision = decide(of, lost(of, for_s=20.0))
    assert (asked(decision), decision.stops) == ([], ())
    assert decision.again_after_s == 40.0
    assert "its node n1 is lost; it is replaced 1m after that, unless the node is back before" in decision.messages[0]


def test_after_replace_after_it_is_replaced() -> None:
    of = web(replaceAfter="1m")
    assert asked(decide(of, lost(of, for_s=60.0))) == [0]


def test_an_original_to_be_kept_becomes_a_spare_and_tells_what_ran() -> None:
    of = web(keep="longestRunning")
    (turned,) = decide(of, lost(of)).turns
    assert (turned.desired, turned.spared_attempt) == (Desired.SPARE, 1)
    assert decide(of, lost(of, ready=False)).turns[0].spared_attempt == 0


def test_a_spare_gets_its_slot_back_once_its_node_has_settled() -> None:
    of = web(keep="original")
    holder = seen(of, 0, node="n22")
    early = decide(of, spare(of, back_for_s=0.5), holder)
    assert (early.turns, early.stops, early.again_after_s) == ((), (), SETTLE_S - 0.5)
    decision = decide(of, spare(of), holder)
    assert [a.desired for a in decision.turns] == [Desired.RUN]
    assert [stop.allocation.id for stop in decision.stops] == [holder.id]
    assert "keep: original" in decision.stops[0].reason


def test_a_spare_that_is_not_healthy_gives_way() -> None:
    of = web(keep="original")
    decision = decide(of, spare(of, ready=False), seen(of, 0, node="n22"))
    assert [stop.allocation.id for stop in decision.stops] == ["spare-0"]
    assert "not healthy" in decision.stops[0].reason


def test_what_ran_through_has_run_longest_and_ties_go_to_the_replacement() -> None:
    of = web(keep="longestRunning")
    holder = seen(of, 0, node="n22")
    assert [a.id for a in decide(of, spare(of), holder).turns] == ["spare-0"]
    restarted = decide(of, spare(of, attempt=2), holder)
    assert (restarted.turns, [s.allocation.id for s in restarted.stops]) == ((), ["spare-0"])
    starting = seen(of, 0, node="n22", ready=False)
    assert [a.id for a in decide(of, spare(of, attempt=2), starting).turns] == ["spare-0"]


def test_a_spare_waits_as_long_as_its_node_is_lost_or_suspect() -> None:
    of = web(keep="original")
    for node_is in (LOST, Eligibility.SUSPECT):
        decision = decide(of, spare(of, node_is=node_is), seen(of, 0, node="n22"))
        assert (decision.turns, decision.stops) == ((), ())


def test_where_no_node_had_room_for_another_the_original_just_goes_on() -> None:
    of = web(keep="original")
    decision = decide(of, spare(of))
    assert ([a.desired for a in decision.turns], asked(decision)) == ([Desired.RUN], [])


def test_a_rollout_or_a_smaller_service_ends_a_spare() -> None:
    of = web(version=2, keep="original")
    decision = decide(of, spare(of, version=1), seen(of, 0, node="n22"))
    assert "version 2 replaces version 1" in decision.stops[0].reason
    smaller = web(replicas=0, keep="original")
    assert "isn't needed" in decide(smaller, spare(smaller)).stops[0].reason


def test_the_oldest_of_several_originals_that_are_back_gets_the_slot() -> None:
    of = web(keep="original")
    first, second = spare(of), spare(of, node="n22")
    second = replace(second, allocation=second.allocation.model_copy(update={"id": "a", "replaces": "spare-0"}))
    decision = decide(of, second, first, seen(of, 0, node="n333"))
    assert [a.id for a in decision.turns] == ["spare-0"]
    assert sorted(s.allocation.id for s in decision.stops)[0] == "a"
    assert len(decision.stops) == 2
    later = decide(of, second, replace(first, allocation=decision.turns[0]))
    assert ([s.allocation.id for s in later.stops], later.turns) == (["a"], ())


def test_under_stop_after_a_slot_waits_until_its_last_holder_has_surely_ended() -> None:
    of = web(stopAfter="30s")
    waiting = decide(of, lost(of, for_s=40.0))
    assert (asked(waiting), waiting.stops) == ([], ())
    assert 4.0 <= (waiting.again_after_s or 0) < 4.1
    decision = decide(of, lost(of, for_s=44.1))
    assert (asked(decision), len(decision.stops), decision.turns) == ([0], 1, ())


def test_how_long_one_may_run_without_word_is_that_of_its_own_version() -> None:
    old, new = web(stopAfter="30s"), web(version=2)
    sight = Sight(new, [lost(old, for_s=10.0)], [], None, {1: version_record(old, 1)}, [], was_blocked=False)
    assert 0 not in asked(reconcile(sight))
    much_later = replace(sight, seen=[lost(old, for_s=60.0)])
    assert 0 in asked(reconcile(much_later))


def test_a_slot_whose_last_holder_still_stops_within_reach_stays_empty_under_stop_after() -> None:
    of = web(stopAfter="30s")
    decision = decide(of, seen(of, 0, Phase.STOPPING, desired=Desired.STOP))
    assert asked(decision) == []
    assert "stays empty until" in decision.messages[0]


def test_the_record_of_what_may_still_run_is_kept() -> None:
    of = web(stopAfter="30s")
    gone = replace(seen(of, 0, node_is=None, desired=Desired.STOP), lost_for_s=10.0)
    assert decide(of, gone).removals == ()
    assert decide(of, replace(gone, lost_for_s=50.0)).removals == (gone.allocation,)


def test_what_is_under_stop_after_never_becomes_a_spare() -> None:
    of = web(stopAfter="30s", keep="original")
    decision = decide(of, lost(of, for_s=60.0))
    assert (decision.turns, len(decision.stops)) == ((), 1)


def test_a_jobs_spare_ends_once_its_index_has_succeeded() -> None:
    job = record("Job", completions=2, parallelism=2, onDisconnect={"keep": "original"})
    done = seen(job, 0, Phase.SUCCEEDED, node="n22")
    decision = decide(job, spare(job), done, seen(job, 1, node="n333"))
    assert [s.allocation.id for s in decision.stops] == ["spare-0"]
    assert "succeeded" in decision.stops[0].reason


def test_deciding_is_the_same_whatever_the_order() -> None:
    of = web(replicas=2, keep="original")
    some = [spare(of), seen(of, 0, node="n22"), lost(of, 1)]
    assert decide(of, *some) == decide(of, *some)
