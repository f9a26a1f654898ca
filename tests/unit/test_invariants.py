"""The checker of the store's history finds each kind of breach, and none where there is none."""

from collections.abc import Sequence
from typing import Any

import pytest

from control_plane import keys
from control_plane.records import FreezeRecord, LeaderRecord
from control_plane.store.protocol import Change, Entry, Revision
from manifests.allocations import Allocation, AllocationStatus, Desired, HostPort, Phase, allocation_id
from manifests.base import Model
from manifests.configs import ConfigVersionRecord
from manifests.containers import NodeResources, Resources
from manifests.nodes import Liveness, NodeFacts, NodeIntent, NodeStatus
from manifests.reasons import Blocked, Choice, Code, Rejection
from manifests.rollouts import Rollout, RolloutState
from manifests.status import WorkloadStatus
from manifests.workloads import VersionRecord, WorkloadRecord
from tests.builders import record, status, version_record
from tests.invariants.deadlines import Deadlines
from tests.invariants.history import HistoryChecker, breaches
from tests.invariants.leftovers import left_keys, left_on_host
from tests.invariants.reasons import Patience
from tests.invariants.steps import Step

WEB = record(replicas=1, resources={"cpu": "1"})
SIZE = NodeResources.of(cpu_m=1500, memory_bytes=2**30, pids=1000, disk_bytes=2**40)


def allocation(number: int, index: int = 0, *, desired: Desired = Desired.RUN, host_port: int = 0) -> Allocation:
    return Allocation(
        id=allocation_id(WEB.ref, index, number),
        workload=WEB.ref,
        version=1,
        index=index,
        node="n1",
        desired=desired,
        reserved=Resources.of(cpu_m=500 if host_port else 1000, memory_bytes=1, pids=1),
        ports=(HostPort(name="http", container=80, host=host_port),) if host_port else (),
        why=Choice(0.0, ()),
        created_s=0.0,
    )


def node(liveness: Liveness = Liveness.READY) -> NodeStatus:
    facts = NodeFacts(name="n1", agent_id="a", boot_id="b", agent_version="1", capacity=SIZE, allocatable=SIZE)
    return NodeStatus(facts=facts, liveness=liveness, server="s1", session=1, changed_s=0.0)


def written(*records: Model | str) -> list[Change]:
    """Return a history in which each record was put at a revision of its own; a key alone was deleted."""
    return [_change(Revision(number), record) for number, record in enumerate(records, start=2)]


def _change(revision: Revision, record: Model | str) -> Change:
    if isinstance(record, str):
        return Change(record, None, revision)
    key = _key_of(record)
    return Change(key, Entry(key, record.to_bytes(), revision, revision), revision)


def _key_of(record: Model) -> str:
    match record:
        case Allocation():
            return keys.ALLOCATIONS + keys.placed_id(record.node, record.id)
        case AllocationStatus():
            return keys.STATUSES + keys.placed_id(record.node, record.id)
        case WorkloadRecord():
            return keys.WORKLOADS + keys.id_of_ref(record.ref)
        case NodeStatus():
            return keys.NODES + record.facts.name
        case NodeIntent():
            return keys.NODE_INTENTS + record.name
        case WorkloadStatus():
            return keys.WORKLOAD_STATUSES + keys.id_of_ref(record.ref)
        case FreezeRecord():
            return keys.FREEZE
        case VersionRecord():
            return keys.VERSIONS + keys.version_id(
                keys.id_of_metadata("Service", record.workload.metadata), record.version
            )
        case _:
            return keys.LEADER


VERSION = VersionRecord(uid=WEB.uid, version=1, created_s=0.0, workload=WEB.workload)
BEGIN: Sequence[Model] = (LeaderRecord(server="s1"), node(), WEB, VERSION)


def test_a_replacement_after_an_end_breaks_nothing() -> None:
    old = allocation(1)
    stopped = old.model_copy(update={"desired": Desired.STOP})
    history = written(*BEGIN, old, stopped, status(old, Phase.STOPPED), allocation(2))
    assert breaches(history) == ()


def test_canaries_may_be_more_than_surge() -> None:
    canaries = record(replicas=1, update={"canary": 2, "minHealthyTime": "0s"})
    small = [allocation(n, n, host_port=80 + n) for n in range(3)]
    begin = (LeaderRecord(server="s1"), node(), canaries, version_record(canaries, 1))
    assert breaches(written(*begin, *small)) == ()


def _told(*phases: Phase) -> list[AllocationStatus]:
    return [status(allocation(1), phase) for phase in phases]


@pytest.mark.parametrize(
    ("history", "breach"),
    [
        ((allocation(1), allocation(2, 1)), "at revision 7: n1 has 2000 cpu_m reserved of 1500 (S1)"),
        ((allocation(1, host_port=80), allocation(2, 1, host_port=80)), "2 allocations hold (80, 'tcp') of n1 (S1)"),
        ((allocation(1), allocation(2)), "2 allocations of service/web are wanted in slot 0 (S2)"),
        (tuple(allocation(n, n) for n in range(3)), "3 allocations of web are wanted, at most 2 may be (S2)"),
        ((keys.LEADER, allocation(1)), "at revision 7: allocations were written while nobody led (S4)"),
        ((LeaderRecord(server="s2"),), "s2 took the lead from s1, which had it (S4)"),
        ((allocation(1), _key_of(VERSION)), "needs it (S6)"),
        ((VERSION.model_copy(update={"created_s": 5.0}),), "was changed (S6)"),
        ((allocation(1), *_told(Phase.RUNNING, Phase.PULLING)), "can't go from running (1) to pulling (1) (S7)"),
        ((allocation(1), *_told(Phase.FAILED, Phase.RUNNING)), "has ended as failed (1) and became running (1) (S7)"),
        ((NodeIntent(name="n1", is_cordoned=True), allocation(1)), "cordoned or being drained (S13)"),
        ((allocation(1), _key_of(allocation(1))), "n1 had not said that it ended (S1)"),
    ],
)
def test_each_breach_is_found(history: Sequence[Model | str], breach: str) -> None:
    assert any(breach in found for found in breaches(written(*BEGIN, *history)))


ONCE = VERSION.model_copy(update={"workload": record(onDisconnect={"stopAfter": "30s"}).workload})
OLD = allocation(1, desired=Desired.STOP)


def test_a_spare_shares_its_slot_with_who_took_it() -> None:
    small = Resources.of(cpu_m=1, memory_bytes=1, pids=1)
    spare = OLD.model_copy(update={"desired": Desired.SPARE, "reserved": small})
    assert breaches(written(*BEGIN, spare, allocation(2))) == ()


@pytest.mark.parametrize(
    ("between", "is_breach"),
    [
        ((), True),
        ((status(OLD, Phase.STOPPING),), True),
        ((node(Liveness.SUSPECT),), True),
        ((status(OLD, Phase.STOPPED),), False),
        ((node(Liveness.LOST),), False),
    ],
)
def test_a_slot_under_stop_after_is_given_away_only_once_it_is_empty_or_lost(
    between: tuple[Model, ...], is_breach: bool
) -> None:
    found = breaches(written(*BEGIN, ONCE, OLD, *between, allocation(2)))
    assert any("(S3)" in breach for breach in found) is is_breach


# Decisions, judged by how things stood before.


def _serving(update: dict[str, str | int]) -> tuple[Sequence[Model], list[Allocation]]:
    """Return the beginning of a history, in which two serve."""
    web = record(replicas=2, update=update)
    small = [allocation(n, n, host_port=80 + n) for n in range(2)]
    told = [status(one, Phase.RUNNING) for one in small]
    return (LeaderRecord(server="s1"), node(), web, version_record(web, 1), *small, *told), small


def _stop(one: Allocation) -> Allocation:
    return one.model_copy(update={"desired": Desired.STOP})


def _seen_breaches(*history: Model) -> list[str]:
    """Return what is wrong with a history of which each writer had seen all that was there before."""
    checker, found = HistoryChecker(), []
    for change in written(*history):
        seen = Revision(change.revision - 1)
        step = Step(change.revision, (change,), began_s=float(change.revision), seen=seen)
        found += [str(breach) for breach in checker.take(step)]
    return found


def test_what_serves_is_stopped_only_as_far_as_it_may_be_missing() -> None:
    begin, (first, second) = _serving({"maxUnavailable": 1})
    assert _seen_breaches(*begin, _stop(first)) == []
    found = _seen_breaches(*begin, _stop(first), status(first, Phase.STOPPED), _stop(second))
    assert [breach.partition("stopped, ")[2] for breach in found] == ["and 0 are left that serve, of at least 1 (S12)"]


def test_a_drain_may_take_more_once_its_deadline_has_passed() -> None:
    begin, (first, _) = _serving({})
    drain = NodeIntent(name="n1", is_cordoned=True, is_draining=True, drain_deadline_s=1.0)
    assert any("(S12)" in breach for breach in _seen_breaches(*begin, _stop(first)))
    assert _seen_breaches(*begin, drain, _stop(first)) == []
    late = drain.model_copy(update={"drain_deadline_s": 60.0})
    assert any("(S12)" in breach for breach in _seen_breaches(*begin, late, _stop(first)))


def _said(generation: int = 1, **changes: Any) -> WorkloadStatus:
    return WorkloadStatus(ref=WEB.ref, generation=generation, **changes)


@pytest.mark.parametrize(
    ("rejection", "is_breach"),
    [
        (Rejection("n1", Code.CPU, "1", "500m"), False),
        (Rejection("n1", Code.CPU, "1", "300m"), True),
        (Rejection("n1", Code.CPU, "2", "500m"), True),
        (Rejection("n1", Code.CORDONED), True),
        (Rejection("n2", Code.CPU, "1", "500m"), True),
    ],
)
def test_a_reason_that_is_not_true_is_found(rejection: Rejection, is_breach: bool) -> None:
    said = _said(2, blocked=(Blocked(1, 1, (rejection,)),))
    found = breaches(written(*BEGIN, allocation(1), said))
    assert any("(S18)" in breach for breach in found) is is_breach


def test_a_frozen_cluster_is_left_as_it_is() -> None:
    freeze = FreezeRecord(by="ann", since_s=0.0)
    assert any("(S21)" in breach for breach in breaches(written(*BEGIN, freeze, allocation(1))))
    assert breaches(written(*BEGIN, freeze, keys.FREEZE, allocation(1))) == ()


def test_no_more_than_canaries_are_placed_before_they_are_promoted() -> None:
    web = record(replicas=2, version=2, update={"canary": 1})
    small = [allocation(n, n, host_port=80 + n).model_copy(update={"version": 2}) for n in range(2)]
    rollout = Rollout(version=2, target=2, state=RolloutState.WAITING, healthy=(1,))
    versions = (version_record(web, 1), version_record(web, 2))
    begin = (LeaderRecord(server="s1"), node(), web, *versions, _said(2, rollout=rollout), small[0])
    assert breaches(written(*begin)) == ()
    assert any("(S22)" in breach for breach in breaches(written(*begin, small[1])))
    assert breaches(written(*begin, web.model_copy(update={"promoted": 2}), small[1])) == ()


def test_a_new_service_is_placed_at_once_or_told_why_not() -> None:
    assert any("(L5)" in breach for breach in breaches(written(*BEGIN, _said())))
    assert breaches(written(*BEGIN, allocation(1), _said())) == ()


def test_a_config_is_told_nowhere_else() -> None:
    content = ConfigVersionRecord(uid="c1", version=1, created_s=0.0, data="a long password")
    key = keys.CONFIG_VERSIONS + keys.config_version_id("default/site", 1)
    told = [*written(*BEGIN), Change(key, Entry(key, content.to_bytes(), Revision(9), Revision(9)), Revision(9))]
    assert breaches(told) == ()
    slip = _change(Revision(10), _said(2, messages=("it says: a long password",)))
    assert any("(S17)" in breach for breach in breaches([*told, slip]))


def test_a_rollout_that_is_given_up_too_early_is_found() -> None:
    checker = HistoryChecker()
    begin = [_step(change, began_s=1.0) for change in written(*BEGIN, allocation(1))]
    assert [breach for step in begin for breach in checker.take(step)] == []
    failed = Rollout(version=1, target=1, state=RolloutState.FAILED)
    late, early = (_step(_change(Revision(n), _said(rollout=failed)), began_s=n) for n in (200, 100))
    assert [breach.rule for breach in checker.take(early)] == ["L7"]
    checker = HistoryChecker()
    assert [breach for step in (*begin, late) for breach in checker.take(step)] == []


def _step(change: Change, *, began_s: float) -> Step:
    return Step(change.revision, (change,), began_s=began_s)


def test_what_a_node_has_room_for_and_stays_blocked_is_found_in_time() -> None:
    checker = HistoryChecker()
    blocked = _said(blocked=(Blocked(1, 1, (Rejection("n1", Code.CORDONED),)),))
    cordoned = NodeIntent(name="n1", is_cordoned=True)
    for change in written(*BEGIN, cordoned, blocked):
        assert [*checker.take(_step(change, began_s=0.0))] == []
    patience = Patience(checker.records)
    assert [*patience.look(0.0), *patience.look(9.0)] == []
    [*checker.take(_step(_change(Revision(50), NodeIntent(name="n1")), began_s=9.0))]
    assert [*patience.look(9.0)] == []
    assert [breach.rule for breach in patience.look(12.0)] == ["L5"]


def test_a_drain_whose_deadline_passes_unheeded_is_found() -> None:
    checker = HistoryChecker()
    drain = NodeIntent(name="n1", is_cordoned=True, is_draining=True, drain_deadline_s=5.0)
    for change in written(*BEGIN, allocation(1), drain):
        assert [*checker.take(_step(change, began_s=0.0))] == []
    deadlines = Deadlines(checker.records)
    assert [*deadlines.look(0.0), *deadlines.look(19.0)] == []
    assert [breach.rule for breach in deadlines.look(21.0)] == ["L6"]


def test_what_is_left_of_the_deleted_is_found() -> None:
    left = [keys.ENDED + "default/service/gone/gone-0-1", keys.ENDED + "default/service/web/web-0-1"]
    assert [breach.rule for breach in left_keys(left, {"default/service/web"})] == ["L11"]
    assert [breach.rule for breach in left_on_host("n1", [("a lease", "a"), ("a lease", "b")], {"a"})] == ["L11"]
