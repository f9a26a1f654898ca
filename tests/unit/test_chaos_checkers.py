"""The checkers of chaos find what has no cause, each kind of it planted here, and leave alone what has one."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from control_plane import keys
from control_plane.store.protocol import Change, Entry, Revision
from manifests.allocations import Allocation, Desired, Phase, allocation_id
from manifests.base import Model
from manifests.containers import NodeResources, Resources
from manifests.nodes import Liveness, NodeFacts, NodeIntent, NodeStatus
from manifests.reasons import Choice
from manifests.workloads import WorkloadRecord
from tests.builders import record, status
from tests.chaos.explain import TOGETHER_S, unexplained
from tests.chaos.fault import Effect, Fault, node_away
from tests.lab.chronicle import Heard
from tests.lab.truth import Life

SIZE = NodeResources.of(cpu_m=1500, memory_bytes=2**30, pids=100, disk_bytes=2**40)
WEB = record(replicas=2)
JOB = record("Job", uid="j1", completions=1)
N1 = frozenset({"n1"})
LONG_S = 1000.0  # between two revisions: nothing is explained by being near to something else


def placed(of: WorkloadRecord = WEB, index: int = 0, *, number: int = 1, **changes: object) -> Allocation:
    made = Allocation(
        id=allocation_id(of.ref, index, number),
        workload=of.ref,
        version=of.version,
        index=index,
        node="n1",
        reserved=Resources.of(cpu_m=100, memory_bytes=1, pids=1),
        why=Choice(0.0, ()),
        created_s=0.0,
    )
    return made.model_copy(update=changes)


def stopped(allocation: Allocation) -> Allocation:
    return allocation.model_copy(update={"desired": Desired.STOP, "stop_reason": "a whim"})


def node(liveness: Liveness = Liveness.READY) -> NodeStatus:
    facts = NodeFacts(name="n1", agent_id="a", boot_id="b", agent_version="1", capacity=SIZE, allocatable=SIZE)
    return NodeStatus(facts=facts, liveness=liveness, server="s1", session=1, changed_s=0.0)


def heard(*records: Model | str) -> list[Heard]:
    """Return a history with a long time between any two records; a key alone was deleted."""
    return [Heard(LONG_S * number, _change(Revision(number), said)) for number, said in enumerate(records, start=2)]


def _change(revision: Revision, said: Model | str) -> Change:
    if isinstance(said, str):
        return Change(said, None, revision)
    key = _key_of(said)
    return Change(key, Entry(key, said.to_bytes(), revision, revision), revision)


def _key_of(said: Model) -> str:
    match said:
        case Allocation():
            return keys.ALLOCATIONS + keys.placed_id(said.node, said.id)
        case NodeStatus():
            return keys.NODES + said.facts.name
        case NodeIntent():
            return keys.NODE_INTENTS + said.name
        case WorkloadRecord():
            return keys.WORKLOADS + keys.id_of_metadata(said.workload.kind, said.workload.metadata)
        case _:
            return keys.STATUSES + keys.placed_id("n1", getattr(said, "id", ""))


def life(allocation: Allocation, seen_s: float, ended_s: float | None = None, *, number: int = 1) -> Life:
    return Life("n1", f"c{number}", allocation.id, "main", number, 100 + number, _engine_time(seen_s), seen_s, ended_s)


def _engine_time(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat().replace("+00:00", "Z")


A = placed()
DELETED = keys.WORKLOADS + keys.id_of_ref(WEB.ref)
NEWER = WEB.model_copy(update={"version": 2, "generation": 2})
FEWER = record(replicas=0)
STARTED = (WEB, node(), A)  # the revisions 2 to 4


@pytest.mark.parametrize(
    ("plant", "words"),
    [
        ((node(Liveness.LOST),), "called lost"),
        ((stopped(A),), "stopped without a cause"),
        ((keys.ALLOCATIONS + keys.placed_id("n1", A.id),), "deleted while it was wanted"),
        ((status(A, Phase.BACKOFF),), "became backoff"),
        ((status(A, Phase.STOPPED),), "became stopped"),
        ((status(A, Phase.FAILED), stopped(A)), "became failed"),
        ((JOB, placed(JOB), status(placed(JOB), Phase.SUCCEEDED), placed(JOB, number=2)), "had succeeded"),
    ],
)
def test_what_the_store_did_without_a_cause_is_found(plant: Sequence[Model | str], words: str) -> None:
    found = unexplained(heard(*STARTED, *plant), [], [])
    assert len(found) == 1
    assert words in found[0]


@pytest.mark.parametrize(
    "story",
    [
        (),
        (NEWER, stopped(A)),
        (DELETED, stopped(A)),
        (FEWER, stopped(A)),
        (NodeIntent(name="n1", is_draining=True), NodeIntent(name="n1"), stopped(A)),
        (NEWER, stopped(A), status(A, Phase.STOPPED), keys.ALLOCATIONS + keys.placed_id("n1", A.id)),
        (JOB, placed(JOB), status(placed(JOB), Phase.SUCCEEDED)),
    ],
)
def test_what_the_user_asked_for_is_a_cause(story: Sequence[Model | str]) -> None:
    assert unexplained(heard(*STARTED, *story), [], []) == ()


def test_a_loss_is_explained_by_a_fault_on_that_node_at_that_time_and_explains_a_stop() -> None:
    story = heard(*STARTED, node(Liveness.LOST), stopped(A))
    at_s = story[3].at_s
    fault = Fault("host cut off", node_away("n1", "cut off"), at_s - 6.0, at_s + 4.0)
    assert unexplained(story, [], [fault]) == ()
    assert "called lost" in unexplained(story, [], [replace(fault, effect=node_away("n2", "cut off"))])[0]
    assert "called lost" in unexplained(story, [], [replace(fault, healed_s=at_s - 4.0)])[0]
    assert "called lost" in unexplained(story, [], [replace(fault, healed_s=at_s - 60.0, began_s=at_s - 70.0)])[0]


def test_a_stop_is_not_explained_by_a_loss_that_was_over_before_it_was_made() -> None:
    fault = Fault("host cut off", Effect("n1", N1, N1), 0.0)
    story = heard(WEB, node(), node(Liveness.LOST), node(), A, stopped(A))
    assert "stopped without a cause" in unexplained(story, [], [fault])[0]


def test_an_end_needs_an_order_or_a_fault_that_ends_containers() -> None:
    ended = life(A, 10.0, 50.0)
    cut, away = Effect("n1", N1, N1, ends=N1), Effect("n1", N1, N1)
    assert "ended on n1 without a cause" in unexplained(heard(*STARTED), [ended], [])[0]
    assert unexplained(heard(*STARTED, NEWER, stopped(A)), [ended], []) == ()
    assert unexplained(heard(*STARTED), [ended], [Fault("power cut", cut, 49.0, 51.0)]) == ()
    assert "without a cause" in unexplained(heard(*STARTED), [ended], [Fault("host cut off", away, 49.0, 51.0)])[0]
    assert "without a cause" in unexplained(heard(*STARTED), [ended], [Fault("power cut", cut, 10.0, 12.0)])[0]


def test_a_restart_in_place_is_found_by_the_end_before_it() -> None:
    lives = [life(A, 10.0, 50.0), life(A, 51.0, number=2)]
    assert len(unexplained(heard(*STARTED), lives, [])) == 1


def test_a_jobs_container_may_end_by_itself_once_it_has_succeeded() -> None:
    job = placed(JOB)
    story = heard(JOB, node(), job, status(job, Phase.SUCCEEDED))
    assert unexplained(story, [life(job, 10.0, 13.0)], []) == ()
    assert "without a cause" in unexplained(story[:3], [life(job, 10.0, 13.0)], [])[0]


def test_a_container_that_the_store_never_knew_is_found() -> None:
    assert "never knew" in unexplained(heard(WEB), [life(A, 10.0)], [])[0]


def test_two_containers_of_one_slot_are_found_unless_one_of_them_gives_way_soon() -> None:
    other = placed(number=2)
    story = heard(*STARTED, NEWER, stopped(A), other)
    soon, late = 10.0 + TOGETHER_S - 1.0, 10.0 + TOGETHER_S + 1.0
    assert unexplained(story, [life(A, 0.0, soon), life(other, 10.0)], []) == ()
    assert "ran together" in unexplained(story, [life(A, 0.0, late), life(other, 10.0)], [])[0]
    assert "ran together" in unexplained(story, [life(other, 0.0), life(other, 5.0, number=2)], [])[0]
    excuse = Fault("host cut off", node_away("n1", "cut off"), 0.0, 60.0)
    assert unexplained(story, [life(A, 0.0, late), life(other, 10.0)], [excuse]) == ()


def test_a_slot_that_may_never_run_twice_is_excused_by_nothing_but_a_frozen_host() -> None:
    once = record(replicas=2, uid="u2", onDisconnect={"stopAfter": "8s"})
    former, other = placed(once), placed(once, number=2)
    story = heard(once, node(), former, node(Liveness.LOST), stopped(former), other)
    lives = [life(former, 0.0, 20.0), life(other, 19.0)]
    away = Fault("host cut off", node_away("n1", "cut off"), 0.0, story[-1].at_s)
    frozen = replace(away, effect=replace(away.effect, freezes=N1))
    assert "ran together for 1.0 s" in unexplained(story, lives, [away])[0]
    assert unexplained(story, lives, [frozen]) == ()
    assert unexplained(story, [life(former, 0.0, 18.9), life(other, 19.0)], [away]) == ()


def test_what_may_never_run_twice_ends_by_itself_when_it_may_have_been_cut_off() -> None:
    once = record(replicas=2, uid="u2", onDisconnect={"stopAfter": "8s"})
    story, ended = heard(once, node(), placed(once)), life(placed(once), 0.0, 20.0)
    assert "without a cause" in unexplained(story, [ended], [])[0]
    assert unexplained(story, [ended], [Fault("etcd without quorum", Effect("e1 and e2"), 8.0, 19.0)]) == ()


def test_a_rollout_that_stops_what_must_serve_is_found() -> None:
    both = [placed(index=i, number=i + 1) for i in range(2)]
    ready = [status(a, Phase.RUNNING) for a in both]
    begun = heard(WEB, node(), *both, *ready, NEWER, stopped(both[0]))
    assert "only 1 of default/service/web serve" in unexplained(begun, [], [])[0]
    fault = Fault("engine frozen", Effect("n1", N1), begun[-1].at_s - 5.0, begun[-1].at_s)
    assert unexplained(begun, [], [fault]) == ()
    fresh = placed(index=2, number=3, version=2)
    assert (
        unexplained(
            heard(WEB, node(), *both, *ready, NEWER, fresh, status(fresh, Phase.RUNNING), stopped(both[0])), [], []
        )
        == ()
    )


def test_a_rollout_may_stop_what_does_not_serve() -> None:
    both = [placed(index=i, number=i + 1) for i in range(2)]
    assert unexplained(heard(WEB, node(), *both, NEWER, stopped(both[0])), [], []) == ()


def test_a_daemons_rollout_that_takes_two_nodes_at_once_is_found() -> None:
    daemon = record("Daemon", uid="d1")
    newer = daemon.model_copy(update={"version": 2, "generation": 2})
    old = placed(daemon)
    others = [
        node().model_copy(update={"facts": node().facts.model_copy(update={"name": name})}) for name in ("n2", "n3")
    ]
    story = heard(daemon, node(), *others, old, status(old, Phase.RUNNING), newer, stopped(old))
    assert "only 0 of default/daemon/web serve" in unexplained(story, [], [])[0]
    assert unexplained(heard(daemon, node(), old, status(old, Phase.RUNNING), newer, stopped(old)), [], []) == ()
