"""The checker of the store's history finds each kind of breach, and none where there is none."""

from collections.abc import Sequence

import pytest

from control_plane import keys
from control_plane.records import LeaderRecord
from control_plane.store.protocol import Change, Entry, Revision
from manifests.allocations import Allocation, AllocationStatus, Desired, HostPort, Phase, allocation_id
from manifests.base import Model
from manifests.containers import NodeResources, Resources
from manifests.nodes import Liveness, NodeFacts, NodeIntent, NodeStatus
from manifests.reasons import Choice
from manifests.workloads import VersionRecord, WorkloadRecord
from tests.builders import record, status, version_record
from tests.invariants.history import breaches

WEB = record(replicas=1, resources={"cpu": "1"})
SIZE = NodeResources.of(cpu_m=1500, memory_bytes=2**30, pids=100, disk_bytes=2**40)


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
