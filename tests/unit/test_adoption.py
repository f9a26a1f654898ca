"""What becomes, after a restore, of what nodes keep running and the restored state doesn't know."""

from typing import Any

from control_plane.controllers.adoption import adopt
from control_plane.controllers.decision import Decision, Seen
from manifests.allocations import Allocation, Desired, Phase
from manifests.workloads import VersionRecord, WorkloadRecord
from scheduler.model import Eligibility
from tests.builders import record, seen, workload

VERSIONS = {1: VersionRecord(uid="u1", version=1, created_s=0.0, workload=workload())}


def kept(of: WorkloadRecord, index: int, **changes: Any) -> Allocation:
    allocation = seen(of, index, node="kept-node").allocation
    return allocation.model_copy(update={"id": f"kept-{index}", "desired": Desired.STOP, **changes})


def adopted(of: WorkloadRecord, present: list[Seen], *allocations: Allocation) -> Decision:
    return adopt(of, present, allocations, VERSIONS) or Decision()


def test_what_runs_gets_its_empty_slot_back() -> None:
    web = record(replicas=2)
    decision = adopted(web, [seen(web, 0)], kept(web, 1))
    assert [(a.id, a.desired) for a in decision.adoptions] == [("kept-1", Desired.RUN)]
    assert decision.stops == ()


def test_what_was_only_about_to_start_in_its_slot_makes_way() -> None:
    web = record(replicas=1)
    restored = seen(web, 0, Phase.PENDING)
    decision = adopted(web, [restored], kept(web, 0))
    assert [a.id for a in decision.adoptions] == ["kept-0"]
    assert [stop.allocation.id for stop in decision.stops] == [restored.id]


def test_a_slot_whose_holder_is_out_of_reach_goes_to_the_one_that_runs() -> None:
    web = record(replicas=1)
    decision = adopted(web, [seen(web, 0, node_is=Eligibility.LOST)], kept(web, 0))
    assert [a.id for a in decision.adoptions] == ["kept-0"]


def test_a_slot_that_runs_keeps_its_holder_and_the_other_one_is_neither_adopted_nor_stopped() -> None:
    web = record(replicas=1)
    assert adopted(web, [seen(web, 0)], kept(web, 0)) == Decision()


def test_of_two_that_run_for_one_slot_the_newer_is_adopted() -> None:
    web = record(replicas=1)
    decision = adopted(web, [], kept(web, 0, id="older", created_s=1.0), kept(web, 0, id="newer", created_s=2.0))
    assert [a.id for a in decision.adoptions] == ["newer"]


def test_what_is_of_another_life_or_an_unknown_version_or_beyond_the_replicas_is_left_alone() -> None:
    web = record(replicas=1)
    other = web.ref.model_copy(update={"uid": "another"})
    strangers = (kept(web, 0, workload=other), kept(web, 0, version=9), kept(web, 5))
    assert adopted(web, [], *strangers) == Decision()


def test_an_index_of_a_job_that_has_succeeded_is_not_adopted() -> None:
    job = record("Job", completions=2)
    decision = adopted(job, [seen(job, 0, Phase.SUCCEEDED)], kept(job, 0), kept(job, 1))
    assert [a.id for a in decision.adoptions] == ["kept-1"]


def test_adopting_twice_changes_nothing_more() -> None:
    web = record(replicas=1)
    first = adopted(web, [], kept(web, 0)).adoptions[0]
    there = Seen(first, None, Eligibility.READY)
    assert adopted(web, [there], kept(web, 0)) == Decision()
