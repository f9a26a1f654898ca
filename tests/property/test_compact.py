"""The cache's compact records are those that were stored, whatever came before, and forks keep theirs."""

from typing import TypeAlias

from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane import keys
from control_plane.state import ClusterState
from control_plane.store.protocol import Change, Entry, Revision
from manifests.allocations import Allocation, AllocationStatus, Desired, Health, HostPort, Phase
from manifests.base import Model
from manifests.containers import NodeResources, Resources
from manifests.nodes import Liveness, NodeFacts, NodeStatus
from manifests.reasons import Choice, Code, Rejection, Runner
from manifests.workloads import Kind, WorkloadRef
from tests.clocks import StepClock

NODES = ("n1", "n2")
nodes, few, some = st.sampled_from(NODES), st.integers(0, 2), st.integers(1, 2)
scores = st.sampled_from((0.0, 0.25, 1.0))
refs = st.builds(WorkloadRef, namespace=nodes, kind=st.sampled_from(Kind), name=nodes, uid=nodes)
rejections = st.builds(Rejection, node=nodes, code=st.sampled_from(Code), needed=st.sampled_from(("", "a")))
choices = st.builds(
    Choice,
    score=scores,
    parts=st.lists(st.tuples(st.sampled_from(("bestFit", "spread")), scores), max_size=2).map(tuple),
    runners_up=st.lists(st.builds(Runner, node=nodes, score=scores), max_size=2).map(tuple),
    rejections=st.lists(rejections, max_size=2).map(tuple),
    more=few,
)
devices = st.dictionaries(st.just("gpu"), st.just(("gpu0",)))
ports = st.lists(st.builds(HostPort, name=nodes, container=some, host=some), max_size=2).map(tuple)
amounts = st.builds(
    Resources.of, cpu_m=some, memory_bytes=some, pids=st.just(64), devices=st.just({}) | st.just({"gpu": 1})
)
rooms = st.builds(NodeResources.of, cpu_m=some, memory_bytes=some, pids=st.just(64))
labels = st.dictionaries(nodes, nodes, max_size=2)


@st.composite
def allocations(draw: st.DrawFn) -> tuple[str, Allocation]:
    a = Allocation(
        id=draw(st.sampled_from(("a-0", "a-1"))),
        workload=draw(refs),
        version=draw(few),
        index=draw(few),
        node=draw(nodes),
        desired=draw(st.sampled_from(Desired)),
        reserved=draw(amounts),
        ports=draw(ports),
        devices=draw(devices),
        why=draw(choices),
        evicted_for=draw(st.none() | refs),
        created_s=float(draw(few)),
        replaces=draw(st.none() | nodes),
    )
    return keys.ALLOCATIONS + keys.placed_id(a.node, a.id), a


@st.composite
def statuses(draw: st.DrawFn) -> tuple[str, AllocationStatus]:
    s = AllocationStatus(
        id=draw(st.sampled_from(("a-0", "a-1"))),
        node=draw(nodes),
        workload=draw(refs),
        version=draw(few),
        index=draw(few),
        phase=draw(st.sampled_from(Phase)),
        health=draw(st.sampled_from(Health)),
        started_s=draw(st.none() | st.just(1.0)),
    )
    return keys.STATUSES + keys.placed_id(s.node, s.id), s


@st.composite
def node_statuses(draw: st.DrawFn) -> tuple[str, NodeStatus]:
    facts = NodeFacts(
        name=draw(nodes),
        agent_id="a",
        boot_id="b",
        agent_version="1",
        labels=draw(labels),
        attributes=draw(labels),
        capacity=draw(rooms),
        allocatable=draw(rooms),
        devices=draw(devices),
    )
    kept = tuple(a for _, a in draw(st.lists(allocations(), max_size=1)))
    n = NodeStatus(facts=facts, liveness=Liveness.READY, server="s1", session=1, kept=kept, changed_s=1.0)
    return keys.NODES + facts.name, n


written = st.tuples(allocations() | statuses() | node_statuses(), st.sampled_from(("put", "delete", "broken")))


Event: TypeAlias = tuple[tuple[str, Model], str]
Plain: TypeAlias = dict[tuple[str, str], tuple[str, bytes]]  # by prefix and id: the key and the bytes stored last
events = st.lists(written, max_size=12)

MODELS: dict[str, type[Model]] = {keys.ALLOCATIONS: Allocation, keys.STATUSES: AllocationStatus, keys.NODES: NodeStatus}


def cache() -> ClusterState:
    return ClusterState(None, StepClock())  # type: ignore[arg-type]  # nothing here reads from a store


def take_in(state: ClusterState, plain: Plain, event: Event) -> None:
    (key, record), how = event
    revision = Revision(state.revision + 1)
    value = record.to_bytes() if how != "broken" else b"{}"
    entry = None if how == "delete" else Entry(key, value, revision, revision)
    prefix = next(p for p in MODELS if key.startswith(p))
    plain.pop((prefix, key.rpartition("/")[2]), None)
    if how == "put":
        plain[prefix, key.rpartition("/")[2]] = (key, value)
    state.take_in([Change(key, entry, revision)], revision)


def assert_alike(state: ClusterState, plain: Plain) -> None:
    for prefix, table in (
        (keys.ALLOCATIONS, state.allocations),
        (keys.STATUSES, state.statuses),
        (keys.NODES, state.nodes),
    ):
        wanted = {id_: found for (p, id_), found in plain.items() if p == prefix}
        assert set(table.ids()) == set(wanted)
        assert sorted(table.stored_keys()) == sorted(key for key, _ in wanted.values())
        for id_, (key, value) in wanted.items():
            stored, record = state.find(key), MODELS[prefix].read(value)
            assert table.stored(id_) is stored
            assert stored is not None
            assert stored.key == key
            assert stored.value == record
            assert repr(stored.value) == repr(record)
            assert stored.value.model_fields_set == record.model_fields_set
            assert stored.value.to_bytes() == value
            assert stored.value.to_json() == record.to_json()


@given(events, events, events)
@settings(max_examples=150, deadline=None)
def test_what_is_read_is_what_was_stored_last(before: list[Event], original: list[Event], forked: list[Event]) -> None:
    state = cache()
    plain: Plain = {}
    for event in before:
        take_in(state, plain, event)
    assert_alike(state, plain)
    twin, other = state.fork(StepClock()), plain.copy()
    for event in original:
        take_in(state, plain, event)
    for event in forked:
        take_in(twin, other, event)
    assert_alike(state, plain)
    assert_alike(twin, other)


@given(allocations(), allocations())
@settings(max_examples=50, deadline=None)
def test_a_changed_copy_changes_nothing_else(one: tuple[str, Allocation], two: tuple[str, Allocation]) -> None:
    state = cache()
    plain: Plain = {}
    for record in (one, two):
        take_in(state, plain, (record, "put"))
    for stored in state.allocations.values():
        changed = stored.model_copy(update={"stop_reason": "enough", "note": "gone"})
        assert changed.stop_reason == "enough"
        assert Allocation.read(changed.to_bytes()) == changed
    assert_alike(state, plain)
