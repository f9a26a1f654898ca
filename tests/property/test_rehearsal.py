"""What a rehearsal foretells: never more than there is room for, always the same, nothing of it real, and it ends."""

import asyncio
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane import keys
from control_plane.controllers.standing import Standing, overfull
from control_plane.rehearsal.answer import Answer, answered, fork_of, prepared
from control_plane.rehearsal.question import Question
from control_plane.store.protocol import Delete, Put
from manifests.allocations import Desired
from manifests.nodes import Liveness, NodeStatus
from manifests.workloads import Workload
from tests.builders import workload
from tests.cache import Cache
from tests.scripted import facts

NODES = ("n1", "n2", "n3", "n4")
NAMES = ("web", "api", "db")


class World:
    """A cluster in a cache, which is brought about by rehearsals whose end is taken over."""

    def __init__(self, *nodes: str, memory: str = "1Gi") -> None:
        self.cache = Cache()
        self.standing = Standing(self.cache.state)
        self.cache.state.subscribe(self.standing.on_batch)
        self.cache.write([self._node(name, memory, "ab"[i % 2]) for i, name in enumerate(nodes)])

    @staticmethod
    def _node(name: str, memory: str, zone: str) -> Put:
        said = facts(name, memory=memory, zone=zone)
        there = NodeStatus(facts=said, liveness=Liveness.READY, server="s1", session=1, changed_s=0.0)
        return Put(keys.NODES + name, there.to_bytes())

    def ask(self, *documents: Workload, **question: Any) -> Answer:
        async def asked() -> Answer:
            fork = fork_of(self.cache.state, self.standing, self.cache.state.clock)
            return answered(*await prepared(fork, Question(**question), documents))

        return asyncio.run(asked())

    def become(self, answer: Answer) -> None:
        """Have all that was foretold come true."""
        fork, state = answer.rehearsal.fork.state, self.cache.state
        writes: list[Put | Delete] = []
        for mine, its in zip(state._tables, fork._tables, strict=True):
            writes += [Delete(mine.prefix + _rest(mine, id_)) for id_ in list(mine.ids()) if id_ not in its]
            for id_ in its.ids():
                stored = its.stored(id_)
                assert stored is not None
                writes.append(Put(stored.key, stored.value.to_bytes()))
        self.cache.write(writes)

    def running(self) -> dict[str, list[str]]:
        """Return on which nodes each workload is wanted."""
        found: defaultdict[str, list[str]] = defaultdict(list)
        for a in self.cache.state.allocations.values():
            if a.desired is Desired.RUN:
                found[a.workload.name].append(a.node)
        return {name: sorted(nodes) for name, nodes in found.items()}


def _rest(table: Any, id_: str) -> str:
    return str(table.stored(id_).key.removeprefix(table.prefix))


def service(name: str = "web", *, memory: str = "300Mi", **spec: Any) -> Workload:
    return workload("Service", name, **{"resources": {"memory": memory}, "replicas": 2, **spec})


services = st.builds(
    lambda name, replicas, memory, env: service(name, replicas=replicas, memory=memory, env={"A": env}),
    st.sampled_from(NAMES),
    st.integers(0, 7),
    st.sampled_from(("100Mi", "300Mi", "700Mi")),
    st.sampled_from(("1", "2")),
)
questions = st.fixed_dictionaries(
    {
        "lose": st.lists(st.sampled_from(NODES), max_size=2),
        "drain": st.lists(st.sampled_from((*NODES, "zone=a")), max_size=2),
        "add": st.lists(st.sampled_from(("1cpu/1Gi", "2x2cpu/512Mi,zone=b")), max_size=1),
    }
)


@settings(deadline=None, max_examples=60)
@given(st.lists(services, max_size=3), services, questions)
def test_a_rehearsal_ends_never_over_commits_and_is_repeatable(
    before: list[Workload], asked: Workload, question: dict[str, Any]
) -> None:
    world = World(*NODES)
    for document in before:
        world.become(world.ask(document))
    revision, there = world.cache.state.revision, world.running()
    first, second = (world.ask(asked, **question) for _ in range(2))
    for answer in (first, second):
        assert answer.rehearsal.is_whole
        assert not list(overfull(answer.rehearsal.fork.standing.ledger()))
    assert (first.outcome, first.rehearsal.steps) == (second.outcome, second.rehearsal.steps)
    assert (world.cache.state.revision, world.running()) == (revision, there), "it was only rehearsed"


@settings(deadline=None, max_examples=30)
@given(st.lists(services, min_size=1, max_size=3), questions)
def test_what_has_come_true_is_at_rest(documents: list[Workload], question: dict[str, Any]) -> None:
    world = World(*NODES)
    for document in documents:
        world.become(world.ask(document))
    world.become(world.ask(**question))
    again = world.ask()
    assert (again.outcome.moves, again.outcome.starts, again.outcome.stops) == ((), (), ())


def test_a_lost_node_s_work_goes_elsewhere_and_what_has_no_place_is_named() -> None:
    world = World("n1", "n2")
    world.become(world.ask(service(replicas=4, memory="400Mi")))
    assert world.running() == {"web": ["n1", "n1", "n2", "n2"]}
    answer = world.ask(lose=("n1",))
    (short,) = answer.outcome.short
    assert (short.before, short.after, short.no_longer_fits) == (4, 2, True)
    assert not answer.outcome.fits
    assert "n2" in short.blocked[0].sentence()
    more = world.ask(lose=("n1",), add=("1cpu/1Gi",))
    assert [(m.old.node, m.new.node) for m in more.outcome.moves] == [("n1", "new-1")] * 2
    assert more.outcome.fits


def test_a_drain_moves_what_may_leave_and_tells_what_stays() -> None:
    world = World("n1", "n2")
    world.become(world.ask(service(replicas=2)))
    world.become(world.ask(service("pinned", replicas=1, placement={"constraints": ["node.name == n1"]})))
    answer = world.ask(drain=("n1",))
    assert [(m.old.workload.name, m.old.node, m.new.node) for m in answer.outcome.moves] == [("web", "n1", "n2")]
    assert [left.allocation.workload.name for left in answer.outcome.left] == ["pinned"]
    assert "n1 is being drained" in answer.outcome.left[0].why
    assert not answer.outcome.fits


def test_a_change_is_told_step_by_step() -> None:
    world = World("n1", "n2")
    world.become(world.ask(service(replicas=2)))
    answer = world.ask(service(replicas=2, env={"A": "2"}))
    assert [(s.up, s.down) for s in answer.rehearsal.steps] == [(1, 0), (0, 1), (1, 0), (0, 1)]
    assert {(m.old.version, m.new.version) for m in answer.outcome.moves} == {(1, 2)}
    assert [(r.action, r.version) for r in answer.results] == [("changed", 2)]


def test_a_canary_that_waits_to_be_promoted_is_told() -> None:
    world = World("n1", "n2")
    world.become(world.ask(service(replicas=2)))
    answer = world.ask(service(replicas=2, env={"A": "2"}, update={"canary": 1}))
    ((workload, messages),) = answer.outcome.waiting
    assert workload.name == "web"
    assert "1 canary of version 2 waits to be promoted" in messages
    assert [(s.up, s.down) for s in answer.rehearsal.steps] == [(1, 0)]


def test_more_than_there_is_room_for_is_blocked_and_takes_nothing_from_what_runs() -> None:
    world = World("n1")
    world.become(world.ask(service(replicas=2)))
    answer = world.ask(service(replicas=9))
    (short,) = answer.outcome.short
    assert short.blocked[0].count == 6
    assert not short.no_longer_fits
    assert answer.outcome.fits
    assert [p.index for p in answer.placements()] == [2]


@settings(deadline=None, max_examples=30)
@given(services, services)
def test_a_plan_names_the_same_nodes_at_a_later_revision(before: Workload, asked: Workload) -> None:
    world = World(*NODES)
    world.become(world.ask(before))
    planned = world.ask(asked)
    for number in range(3):
        world.cache.write([Put(keys.NODE_INTENTS + "nowhere", b'{"name": "nowhere"}')])
        assert world.ask(asked).placements() == planned.placements(), number


@pytest.mark.parametrize("wrong", ["4", "0x4cpu/8Gi", "4cpu/8Gi,zone", "2x4cpu/lots", "4cpu/8Gi,zone=a b"])
def test_nodes_to_add_are_described_or_refused(wrong: str) -> None:
    with pytest.raises(Exception, match="doesn't say what nodes to add"):
        World("n1").ask(add=(wrong,))
