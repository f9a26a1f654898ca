"""Examples of who makes room for whom, to be read as a manual; and who may be missed, by the records."""

from dataclasses import replace

import pytest

from control_plane.controllers.allowances import may_miss_of
from control_plane.controllers.jobs import reconcile_job
from manifests.allocations import Desired, HostPort, Phase
from manifests.reasons import Wait
from manifests.rollouts import Rollout, RolloutState
from manifests.status import WorkloadStatus
from manifests.workloads import Kind, WorkloadRef
from scheduler.model import Ask, Neighbour, NodeView, PlacedAllocation, Plan, Vector
from scheduler.place import place, with_plan
from scheduler.victims import MOST_STEPS, Candidate, least_victims
from tests.builders import record, seen
from tests.unit.test_place import HTTP, MEBIBYTE, ask, blocked_sentence, held, node, ref, snapshot


def small(
    on: str, workload: str, index: int = 0, *, priority: int = 20, cpu_m: int = 250, born_s: float = 0.0, **has: object
) -> PlacedAllocation:
    one = held(on, workload=workload, index=index, reserved=Vector(cpu_m, MEBIBYTE, 1))
    return replace(one, priority=priority, created_s=born_s, **has)  # type: ignore[arg-type]  # of a test's own words


def of(cpu_m: int, *, priority: int = 80, workload: str = "db", **has: object) -> Ask:
    wanted = ask(workload=workload, reserved=Vector(cpu_m, MEBIBYTE, 1))
    return replace(wanted, priority=priority, **has)  # type: ignore[arg-type]


def full(name: str, *here: PlacedAllocation) -> list[NodeView | PlacedAllocation]:
    return [node(name, cpu_m=sum(a.reserved.cpu_m for a in here)), *here]


def evicted(plan: Plan) -> list[str]:
    return sorted(e.allocation for e in plan.evictions)


def test_one_of_lower_priority_makes_room_and_who_waits_says_where() -> None:
    cluster = snapshot(*full("n1", small("n1", "web")))
    plan = place([of(250)], cluster, seed=1)
    (eviction,) = plan.evictions
    assert (eviction.allocation, eviction.sentence()) == ("web-0-n1", "makes room for service/db, priority 80")
    assert plan.placements == ()
    assert blocked_sentence(plan) == (
        "1 can't be placed: n1 lacks cpu (250m needed, 0 free); room comes on n1, where web-0-n1 makes way"
    )


@pytest.mark.parametrize("priority", [20, 19])
def test_equals_and_betters_stay(priority: int) -> None:
    cluster = snapshot(*full("n1", small("n1", "web")))
    assert place([of(250, priority=priority)], cluster, seed=1).evictions == ()


def test_who_may_not_preempt_has_nothing_evicted() -> None:
    plan = place([of(250, preempts=False)], snapshot(*full("n1", small("n1", "web"))), seed=1)
    assert (plan.evictions, plan.blocked[0].blocked.waits) == ((), ())


def test_nothing_goes_where_it_would_not_help() -> None:
    cluster = snapshot(*full("n1", small("n1", "web")))
    assert place([of(251)], cluster, seed=1).evictions == ()
    picky = ask(workload="db", reserved=Vector(250, MEBIBYTE, 1), constraints=("node.labels.disk == ssd",))
    assert place([replace(picky, priority=80)], cluster, seed=1).evictions == ()


def test_the_fewest_go_first_then_the_lowest_then_the_youngest() -> None:
    two = full("n1", small("n1", "a", priority=0), small("n1", "b", priority=0))
    one = full("n2", small("n2", "c", priority=50, cpu_m=500))
    assert evicted(place([of(500)], snapshot(*two, *one), seed=1)) == ["c-0-n2"]
    lower = full("n3", small("n3", "d", priority=49, cpu_m=500))
    assert evicted(place([of(500)], snapshot(*two, *one, *lower), seed=1)) == ["d-0-n3"]
    younger = full("n4", small("n4", "e", priority=49, cpu_m=500, born_s=9.0))
    assert evicted(place([of(500)], snapshot(*two, *one, *lower, *younger), seed=1)) == ["e-0-n4"]


def test_a_service_that_may_miss_none_gives_only_if_nobody_else_can() -> None:
    fragile, sturdy = full("n1", small("n1", "web")), full("n2", small("n2", "api"), small("n2", "api", 1))
    cluster = replace(snapshot(*fragile, *sturdy), may_miss={ref("web"): 0, ref("api"): 2})
    assert evicted(place([of(250)], cluster, seed=1)) in (["api-0-n2"], ["api-1-n2"])
    assert evicted(place([of(500)], cluster, seed=1)) == ["api-0-n2", "api-1-n2"]
    alone = replace(snapshot(*fragile), may_miss={ref("web"): 0})
    assert evicted(place([of(250)], alone, seed=1)) == ["web-0-n1"]


def test_who_can_be_missed_is_found_in_a_large_cluster_too() -> None:
    fragile = [member for i in range(60) for member in full(f"n{i}", small(f"n{i}", "web", i))]
    sturdy = full("z", small("z", "api", priority=70))
    cluster = replace(snapshot(*fragile, *sturdy), may_miss={ref("web"): 0})
    assert evicted(place([of(250)], cluster, seed=1)) == ["api-0-z"]


def test_of_a_service_that_may_miss_one_two_asks_take_one_each_from_others_too() -> None:
    cluster = snapshot(
        *full("n1", small("n1", "web")), *full("n2", small("n2", "web", 1)), *full("n3", small("n3", "api"))
    )
    plan = place(
        [replace(of(250), indexes=(10, 11))], replace(cluster, may_miss={ref("web"): 1, ref("api"): 1}), seed=1
    )
    assert sorted(e.workload.name for e in plan.evictions) == ["api", "web"]


def test_a_daemon_s_allocation_is_nobody_s_victim_but_a_daemon_may_preempt() -> None:
    agents = WorkloadRef(namespace="default", kind=Kind.DAEMON, name="agents", uid="uid-agents")
    theirs = replace(small("n1", "agents", priority=0), workload=agents)
    assert place([of(250)], snapshot(*full("n1", theirs)), seed=1).evictions == ()
    cluster = snapshot(*full("n1", small("n1", "web")), *full("n2", small("n2", "web", 1)))
    mine = replace(of(250), workload=agents, only_node="n2")
    assert evicted(place([mine], cluster, seed=1)) == ["web-1-n2"]


def test_whoever_holds_a_host_port_that_is_needed_goes() -> None:
    port = HostPort(name="http", container=80, host=8080)
    cluster = snapshot(node("n1"), small("n1", "web", ports=(port,)), small("n1", "api"))
    assert evicted(place([of(250, ports=(HTTP,))], cluster, seed=1)) == ["web-0-n1"]


def test_what_is_on_its_way_out_is_waited_for_and_nothing_more_goes() -> None:
    cluster = snapshot(*full("n1", small("n1", "web")), *full("n2", small("n2", "api")))
    after = with_plan(cluster, place([of(250)], cluster, seed=1))
    for seed in range(5):
        plan = place([of(250)], after, seed=seed)
        assert plan.evictions == ()
        (wait,) = plan.blocked[0].blocked.waits
        assert wait in (Wait("n1", ("web-0-n1",)), Wait("n2", ("api-0-n2",)))


@pytest.mark.parametrize("preempts", [True, False])
def test_room_that_comes_is_kept_from_what_is_lower_and_not_from_equals(preempts: bool) -> None:
    going = small("n1", "web", cpu_m=500, is_wanted=False, is_leaving=True)
    cluster = snapshot(node("n1", cpu_m=1000), going)
    wanted = [of(900, preempts=preempts), of(400, workload="small", priority=79)]
    plan = place(wanted, cluster, seed=1)
    assert plan.placements == ()
    assert plan.blocked[1].blocked.sentence() == "1 can't be placed: n1 has room, which is kept for service/db"
    equal = place([of(900), of(400, workload="small", priority=80)], cluster, seed=1)
    assert [p.workload.name for p in equal.placements] == ["small"]


def test_what_must_be_together_with_a_workload_does_not_evict_it() -> None:
    cluster = snapshot(*full("n1", small("n1", "cache")))
    assert place([of(250, neighbours=(Neighbour(ref("cache")),))], cluster, seed=1).evictions == ()


def test_a_node_of_very_many_is_searched_within_bounds_and_no_more_goes_than_needed() -> None:
    crowd = [small("n1", f"w{i}", i, cpu_m=100 + i % 37, priority=i % 50, born_s=float(i % 11)) for i in range(400)]
    plan = place([of(9_000)], snapshot(*full("n1", *crowd)), seed=1)
    gone = {e.allocation: next(a for a in crowd if a.id == e.allocation).reserved.cpu_m for e in plan.evictions}
    assert 9_000 <= sum(gone.values()) < 9_000 + min(gone.values())


def test_a_search_that_finds_nothing_in_time_still_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scheduler.victims.MOST_STEPS", 0)
    assert MOST_STEPS > 0
    candidates = [Candidate(small("n1", "web", i, priority=i), (100.0,)) for i in range(5)]
    found = least_victims(candidates, (150.0,), {})
    assert found is not None
    assert [c.allocation.priority for c in found] == [0, 1]


# --- by the records ----------------------------------------------------------------------------------------------


def said(state: RolloutState, version: int = 1) -> WorkloadStatus:
    rollout = Rollout(version=version, target=version, state=state)
    return WorkloadStatus(ref=record().ref, generation=1, rollout=rollout)


@pytest.mark.parametrize(
    ("serving", "most_unavailable", "state", "may_miss"),
    [
        (3, 0, RolloutState.COMPLETE, 1),
        (3, 2, RolloutState.COMPLETE, 2),
        (2, 2, RolloutState.COMPLETE, 1),
        (2, 0, RolloutState.COMPLETE, 0),
        (3, 2, RolloutState.PROGRESSING, 0),
        (3, 2, RolloutState.REVERTED, 2),
    ],
)
def test_a_service_may_miss_what_its_rollouts_may_but_one_at_least_while_it_is_whole(
    serving: int, most_unavailable: int, state: RolloutState, may_miss: int
) -> None:
    web = record(replicas=3, update={"maxUnavailable": most_unavailable, "maxSurge": 1})
    assert may_miss_of(web, said(state), serving) == may_miss


def test_a_service_whose_new_version_has_not_been_looked_at_may_miss_none_and_a_job_any_number() -> None:
    assert may_miss_of(record(version=2), said(RolloutState.COMPLETE), 1) == 0
    assert may_miss_of(record(), None, 1) == 0
    assert may_miss_of(record("Job", completions=2), None, 0) is None


def test_an_evicted_index_of_a_job_has_not_failed_whatever_its_exit_code() -> None:
    job = record("Job", retries=0)
    one = seen(job, 0, Phase.FAILED, desired=Desired.STOP)
    gone = replace(one, allocation=one.allocation.model_copy(update={"evicted_for": ref("db")}))
    decision = reconcile_job(job, [gone])
    assert not decision.is_failed
    assert [a.indexes for a in decision.asks] == [(0,)]
    assert all(s.reschedules == 0 for s in decision.successions.values())
    assert reconcile_job(job, [one]).is_failed
