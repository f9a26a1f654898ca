"""What changes of the cache mean in words, which of them are kept, and which count as the same."""

from typing import Any

from control_plane.records import DeletionRecord, FreezeRecord, LeaderRecord, ServerRecord
from control_plane.state import ObjectChange
from control_plane.store.protocol import Revision
from control_plane.told import Told, told_of, told_of_deletion
from manifests.allocations import Allocation, AllocationStatus, Desired, Ending, Health, Phase
from manifests.base import Model
from manifests.configs import Config, ConfigRecord
from manifests.nodes import Liveness, NodeIntent, NodeStatus
from manifests.reasons import Blocked, Code, Rejection
from manifests.rollouts import Rollout, RolloutState
from manifests.status import WorkloadStatus
from manifests.workloads import CronState
from tests.builders import record, seen
from tests.scripted import facts

WEB = record(replicas=2)
ALLOCATION = seen(WEB, 0).allocation


def told(old: Model | None, new: Model | None, revision: int = 7, *, id_: str = "any") -> list[Told]:
    return list(told_of(ObjectChange("any", id_, old, new, Revision(revision))))


def changed(allocation: Allocation, **changes: Any) -> Allocation:
    return allocation.model_copy(update=changes)


def status(phase: Phase, **changes: Any) -> AllocationStatus:
    found = seen(WEB, 0, phase).status
    assert found is not None
    return found.model_copy(update=changes)


def ending(attempt: int, reason: str = "exited", container: str = "") -> Ending:
    return Ending(
        attempt=attempt,
        exit_code=1,
        reason=reason,
        message="exit code 1",
        container=container,
        finished_s=float(attempt),
    )


def node(liveness: Liveness = Liveness.READY, **changes: Any) -> NodeStatus:
    status = NodeStatus(facts=facts("n1"), liveness=liveness, server="s", session=1, changed_s=0.0)
    return status.model_copy(update=changes)


def test_a_users_change_is_told_with_who_made_it_and_each_by_itself() -> None:
    mine = WEB.model_copy(update={"changed_by": "admin token of s1"})
    [created] = told(None, mine)
    assert (created.place, created.reason, created.by) == ("default/service/web", "created", "admin token of s1")
    bigger = record(replicas=5, version=2)
    [first], [second] = told(mine, bigger, revision=8), told(bigger, mine, revision=9)
    assert first.message == "changed to version 2; scaled from 2 to 5"
    assert first.same != second.same


def test_what_was_deleted_is_told_by_its_note() -> None:
    assert told(WEB, None) == []
    told_ = told_of_deletion(DeletionRecord(place="-/node/n1", changed_by="me", at_s=1.0))
    assert (told_.place, told_.reason, told_.by) == ("-/node/n1", "deleted", "me")


def test_placements_of_one_workload_count_as_the_same() -> None:
    [first], [second] = told(None, ALLOCATION), told(None, changed(ALLOCATION, id="web-1", index=1))
    assert (first.place, first.reason, first.same) == (second.place, second.reason, second.same)
    assert first.is_kept
    assert "on node n1" in first.message


def test_a_replacement_and_a_stop_say_why() -> None:
    [replaced] = told(None, changed(ALLOCATION, replaces="web-0-old"))
    assert (replaced.reason, "replaces web-0-old" in replaced.message) == ("replaced", True)
    [lost] = told(ALLOCATION, changed(ALLOCATION, desired=Desired.STOP, stop_reason="node n1 was lost"))
    [failed] = told(ALLOCATION, changed(ALLOCATION, desired=Desired.STOP, stop_reason="it failed on node n1: exit 1"))
    [again] = told(ALLOCATION, changed(ALLOCATION, desired=Desired.STOP, stop_reason="it failed on node n1: exit 2"))
    assert "node n1 was lost" in lost.message
    assert failed.same == again.same != lost.same


def test_steps_of_an_allocation_are_told_live_and_not_kept() -> None:
    lives = [
        told(None, status(Phase.PULLING)),
        told(status(Phase.STARTING), status(Phase.RUNNING)),
        told(ALLOCATION, None),
    ]
    assert all(lives)
    assert not any(t.is_kept for told_ in lives for t in told_)
    assert told(status(Phase.RUNNING), status(Phase.RUNNING, address="10.0.0.9")) == []


def test_a_crash_loop_is_one_and_the_same_event() -> None:
    running = status(Phase.RUNNING)
    first = status(Phase.BACKOFF, last_ending=ending(1))
    second = status(Phase.BACKOFF, attempt=2, last_ending=ending(2))
    [one], [two] = told(running, first), told(status(Phase.RUNNING, attempt=2, last_ending=ending(1)), second)
    assert one.is_kept
    assert (one.place, one.reason, one.same) == (two.place, two.reason, two.same)
    assert "attempt 2, ended on node n1: exit code 1" in two.message
    [killed] = told(running, status(Phase.BACKOFF, last_ending=ending(1, "oomKilled")))
    assert killed.reason == "oomKilled"


def test_an_end_that_was_seen_only_at_the_next_attempt_is_told_all_the_same() -> None:
    restarted = status(Phase.RUNNING, attempt=2, last_ending=ending(1))
    assert [t.reason for t in told(status(Phase.RUNNING), restarted)] == ["exited", "running"]


def test_giving_up_is_told_after_the_end_that_led_to_it() -> None:
    gone = status(Phase.FAILED, last_ending=ending(3), attempt=3)
    assert [t.reason for t in told(status(Phase.RUNNING, attempt=3), gone)] == ["exited", "gaveUp"]


def test_only_ill_health_is_kept() -> None:
    well, ill = status(Phase.RUNNING), status(Phase.RUNNING, health=Health.UNHEALTHY)
    assert [(t.reason, t.is_kept) for t in (*told(well, ill), *told(ill, well))] == [
        ("unhealthy", True),
        ("healthy", False),
    ]


def test_the_life_of_a_node_is_kept() -> None:
    lost = node(Liveness.LOST, message="its server is gone", silent_s=5.0)
    steps = [(None, node()), (node(), node(Liveness.SUSPECT)), (node(Liveness.SUSPECT), lost), (lost, node())]
    assert [t.reason for old, new in steps for t in told(old, new)] == ["registered", "suspect", "lost", "back"]
    assert told(node(), lost)[0].message == "lost: silent for 5s: its server is gone"
    assert [t.reason for t in told(node(), node(trouble="no dockerd"))] == ["troubled"]
    assert told(node(), node(session=2)) == []


def test_what_operators_want_of_a_node_is_told_with_who() -> None:
    intent = NodeIntent(name="n1", is_cordoned=True, changed_by="me")
    [cordoned] = told(None, intent)
    assert (cordoned.reason, cordoned.by) == ("cordoned", "me")
    both = intent.model_copy(update={"is_draining": True, "labels": {"a": "b"}})
    assert [t.reason for t in told(intent, both)] == ["draining", "changed"]
    assert [t.reason for t in told(intent, NodeIntent(name="n1"))] == ["uncordoned"]


def test_servers_and_their_leader_are_told() -> None:
    server = ServerRecord(id="s-1-00ff", name="s-1", url="http://a", version="1", started_s=0.0)
    assert [t.reason for t in (*told(None, server), *told(server, None), *told(server, server))] == ["joined", "left"]
    [leads] = told(None, LeaderRecord(server="s-1-00ff"))
    assert (leads.place, leads.reason) == ("-/server/s-1", "leads")
    assert told(LeaderRecord(server="s-1-00ff"), None) == []


def test_what_blocks_is_told_when_it_changes() -> None:
    def blocked(*codes: Code) -> WorkloadStatus:
        rejections = tuple(Rejection("n1", code) for code in codes)
        one = Blocked(version=1, count=1, rejections=rejections)
        return WorkloadStatus(ref=WEB.ref, generation=1, blocked=(one,) if codes else ())

    assert [t.reason for t in told(None, blocked(Code.CORDONED))] == ["blocked"]
    assert told(blocked(Code.CORDONED), blocked(Code.CORDONED)) == []
    assert [t.reason for t in told(blocked(Code.CORDONED), blocked())] == ["unblocked"]


def test_a_rollout_is_told_once_for_each_state() -> None:
    def at(state: RolloutState, message: str = "") -> WorkloadStatus:
        rollout = Rollout(version=2, target=2, state=state, message=message)
        return WorkloadStatus(ref=WEB.ref, generation=1, rollout=rollout)

    going, paused = at(RolloutState.PROGRESSING), at(RolloutState.PAUSED)
    assert [t.reason for t in told(None, going)] == ["rollout-progressing"]
    assert told(going, at(RolloutState.PROGRESSING, "1 of 3")) == []
    assert [t.reason for t in told(going, paused)] == ["rollout-paused"]


def test_a_freeze_is_told_with_who_and_why() -> None:
    freeze = FreezeRecord(by="me", reason="new switches", since_s=0.0)
    [frozen] = told(None, freeze)
    assert (frozen.reason, frozen.by, "new switches" in frozen.message) == ("frozen", "me", True)
    assert told(freeze, None) == []
    ended = told_of_deletion(DeletionRecord(place=frozen.place, changed_by="you", at_s=0.0))
    assert (ended.place, ended.reason, ended.by) == (frozen.place, "unfrozen", "you")


def test_each_start_of_a_cron_job_is_told_and_counts_as_the_same() -> None:
    def at(job: str) -> CronState:
        return CronState(uid="u", schedule="* * * * *", time_zone="UTC", handled_s=1.0, last_job=job)

    [first], [second] = told(None, at("backup-1")), told(at("backup-1"), at("backup-2"))
    assert (first.reason, first.same) == (second.reason, second.same)
    assert "backup-2" in second.message
    assert told(at("backup-2"), at("backup-2")) == told(None, at("")) == []


def test_a_config_tells_its_versions_and_nothing_when_it_is_only_touched() -> None:
    def at(version: int, data: str) -> ConfigRecord:
        document = {"apiVersion": "wherry/v1", "kind": "Config", "metadata": {"name": "site"}, "spec": {"data": data}}
        config = Config.model_validate(document)
        return ConfigRecord(uid="u", version=version, created_s=0.0, config=config, changed_by="me")

    [created] = told(None, at(1, "a"), id_="prod/site")
    [changed_] = told(at(1, "a"), at(2, "b"), id_="prod/site")
    assert (created.place, created.reason, created.by) == ("prod/config/site", "created", "me")
    assert (changed_.reason, changed_.message) == ("changed", "changed to version 2")
    assert told(at(2, "b"), at(2, "b")) == told(WEB, WEB) == []
