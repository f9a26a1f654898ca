"""What must leave a node, and by when: from the records in the cache to what a reconciler decides."""

from dataclasses import replace
from typing import Any

import pytest

from control_plane import keys
from control_plane.controllers.ages import Ages
from control_plane.controllers.decision import Leaving
from control_plane.controllers.reconcile import Sight, reconcile
from control_plane.controllers.snapshot import node_view, seen_of
from control_plane.state import ClusterState
from control_plane.store.protocol import Put, Store, Txn
from manifests.allocations import Allocation, Phase, allocation_id
from manifests.containers import Resources
from manifests.nodes import Liveness, NodeIntent, NodeStatus
from manifests.reasons import Choice
from manifests.taints import parse_taint
from manifests.workloads import VersionRecord, WorkloadRecord
from scheduler.model import Eligibility, NodeView, Vector
from tests.builders import record, seen, status
from tests.clocks import StepClock
from tests.scripted import facts


class Cluster:
    """Records in a store, and a leader's view of them."""

    def __init__(self, store: Store) -> None:
        self.store, self.clock = store, StepClock()
        self.state = ClusterState(store, self.clock)
        self.ages = Ages(self.state, self.clock)
        self.state.subscribe(self.ages.on_batch)

    async def put(self, key: str, value: bytes) -> None:
        await self.store.commit(Txn((), (Put(key, value),)))
        await self.state.load()

    async def node(self, name: str, liveness: Liveness = Liveness.READY) -> None:
        there = NodeStatus(facts=facts(name), liveness=liveness, server="s1", session=1, changed_s=0.0)
        await self.put(keys.NODES + name, there.to_bytes())

    async def intend(self, name: str, **changes: Any) -> None:
        await self.put(keys.NODE_INTENTS + name, NodeIntent(name=name, **changes).to_bytes())

    async def run(self, of: WorkloadRecord, node: str, index: int = 0) -> Allocation:
        """Have one of the workload run on the node."""
        a = Allocation(
            id=allocation_id(of.ref, index, 1),
            workload=of.ref,
            version=of.version,
            index=index,
            node=node,
            reserved=Resources(),
            why=Choice(0.0, ()),
            created_s=0.0,
        )
        workload = keys.id_of_ref(of.ref)
        version = VersionRecord(uid=of.uid, version=of.version, created_s=0.0, workload=of.workload)
        await self.put(keys.WORKLOADS + workload, of.to_bytes())
        await self.put(keys.VERSIONS + keys.version_id(workload, of.version), version.to_bytes())
        await self.put(keys.ALLOCATIONS + keys.placed_id(node, a.id), a.to_bytes())
        await self.end(a, Phase.RUNNING)
        return a

    async def end(self, a: Allocation, phase: Phase = Phase.STOPPED) -> None:
        await self.put(keys.STATUSES + keys.placed_id(a.node, a.id), status(a, phase).to_bytes())

    def leaving(self, of: WorkloadRecord) -> Leaving | None:
        return seen_of(self.state, keys.id_of_ref(of.ref), self.ages)[0].leaving


@pytest.fixture
def cluster(store: Store) -> Cluster:
    return Cluster(store)


async def test_what_runs_on_a_drained_node_leaves_without_hurry(cluster: Cluster) -> None:
    web = record()
    await cluster.node("n1")
    await cluster.run(web, "n1")
    assert cluster.leaving(web) is None
    await cluster.intend("n1", is_draining=True)
    assert cluster.leaving(web) == Leaving("node n1 is being drained")


async def test_after_its_deadline_a_drain_hurries_and_says_so(cluster: Cluster) -> None:
    web = record()
    await cluster.node("n1")
    await cluster.run(web, "n1")
    await cluster.intend("n1", is_draining=True, drain_deadline_s=60.0)
    cluster.clock.advance(59)
    assert cluster.leaving(web) == Leaving("node n1 is being drained", 1.0)
    cluster.clock.advance(1)
    late = cluster.leaving(web)
    assert late == Leaving("node n1 is being drained, and its deadline of 1m has passed", 0.0)
    await cluster.intend("n1", is_draining=True, drain_deadline_s=120.0)
    assert cluster.leaving(web) == Leaving("node n1 is being drained", 120.0), (
        "a new deadline counts from its own start"
    )


async def test_a_drain_that_was_taken_back_begins_anew(cluster: Cluster) -> None:
    web = record()
    await cluster.node("n1")
    await cluster.run(web, "n1")
    await cluster.intend("n1", is_draining=True, drain_deadline_s=60.0)
    cluster.clock.advance(59)
    await cluster.intend("n1", drain_deadline_s=60.0)
    await cluster.intend("n1", is_draining=True, drain_deadline_s=60.0)
    assert cluster.leaving(web) == Leaving("node n1 is being drained", 60.0)


async def test_a_daemon_leaves_last(cluster: Cluster) -> None:
    web, daemon = record(), record("Daemon", uid="d1")
    daemon = daemon.model_copy(
        update={"workload": daemon.workload.model_copy(update={"metadata": web.workload.metadata})}
    )
    await cluster.node("n1")
    served, _ = await cluster.run(web, "n1"), await cluster.run(daemon, "n1")
    await cluster.intend("n1", is_draining=True, drain_deadline_s=60.0)
    assert cluster.leaving(daemon) is None
    assert seen_of(cluster.state, keys.id_of_ref(daemon.ref), cluster.ages)[0].node is Eligibility.CORDONED
    await cluster.end(served)
    assert cluster.leaving(daemon) == Leaving("node n1 is being drained", 60.0)


async def test_a_daemon_does_not_wait_beyond_the_deadline(cluster: Cluster) -> None:
    web, daemon = record(), record("Daemon", uid="d1")
    await cluster.node("n1")
    await cluster.run(web, "n1")
    await cluster.run(daemon, "n1")
    await cluster.intend("n1", is_draining=True, drain_deadline_s=60.0)
    cluster.clock.advance(61)
    late = cluster.leaving(daemon)
    assert late is not None
    assert late.is_overdue


async def test_a_no_execute_taint_moves_away_what_does_not_tolerate_it(cluster: Cluster) -> None:
    web = record()
    gpu = record("Job", uid="j1", placement={"tolerations": ["gpu=a100"]})
    await cluster.node("n1")
    await cluster.run(web, "n1")
    await cluster.run(gpu, "n1")
    await cluster.intend("n1", taints=("gpu=a100:noSchedule",))
    assert cluster.leaving(web) is None
    await cluster.intend("n1", taints=("gpu=a100:noExecute",))
    assert cluster.leaving(web) == Leaving("node n1 has the taint gpu=a100:noExecute, which isn't tolerated")
    assert cluster.leaving(gpu) is None


async def test_a_lost_node_is_left_to_its_loss(cluster: Cluster) -> None:
    web = record()
    await cluster.node("n1", Liveness.LOST)
    await cluster.run(web, "n1")
    await cluster.intend("n1", is_draining=True)
    lost = seen_of(cluster.state, keys.id_of_ref(web.ref), cluster.ages)[0]
    assert (lost.node, lost.leaving) == (Eligibility.LOST, None)


async def test_a_short_silence_takes_no_drain_back(cluster: Cluster) -> None:
    web = record()
    await cluster.node("n1", Liveness.SUSPECT)
    await cluster.run(web, "n1")
    await cluster.intend("n1", is_draining=True)
    assert seen_of(cluster.state, keys.id_of_ref(web.ref), cluster.ages)[0].node is Eligibility.DRAINING


async def test_a_node_whose_intent_cannot_be_read_takes_nothing_new(cluster: Cluster) -> None:
    await cluster.node("n1")
    await cluster.put(keys.NODE_INTENTS + "n1", b"{garbage")
    assert node_view(cluster.state, "n1").eligibility is Eligibility.CORDONED


# --- what the reconcilers make of it ---


def sight(of: WorkloadRecord, *there: Any, nodes: tuple[NodeView, ...] = ()) -> Sight:
    return Sight(record=of, seen=there, nodes=nodes, said=None, versions={}, kept=(), was_blocked=False)


def view(name: str, eligibility: Eligibility = Eligibility.READY, *taints: str) -> NodeView:
    return NodeView(name, eligibility, {}, {}, Vector(1000, 2**30, 1000, 2**40), tuple(parse_taint(t) for t in taints))


def test_what_is_overdue_is_stopped_below_max_unavailable_and_without_a_replacement() -> None:
    web = record(replicas=1)
    there = replace(seen(web, 0, node_is=Eligibility.DRAINING), leaving=Leaving("node n1 is being drained", 10.0))
    waiting = reconcile(sight(web, there))
    assert (waiting.stops, waiting.again_after_s) == ((), 10.0)
    late = replace(there, leaving=Leaving("its deadline has passed", -1.0))
    assert [s.reason for s in reconcile(sight(web, late)).stops] == ["its deadline has passed"]


def test_a_taint_is_the_reason_that_is_given() -> None:
    web = record(replicas=1)
    there = replace(seen(web, 0, node_is=Eligibility.DRAINING), leaving=Leaving("node n1 has the taint x:noExecute"))
    then = reconcile(sight(web, there, seen(web, 1, node="n2")))
    assert [s.reason for s in then.stops] == ["node n1 has the taint x:noExecute"]


def test_a_daemon_is_not_missing_where_operators_keep_it_off() -> None:
    daemon = record("Daemon", placement={"tolerations": ["gpu"]})
    nodes = (
        view("n1"),
        view("n2", Eligibility.CORDONED),
        view("n3", Eligibility.DRAINING),
        view("n4", Eligibility.READY, "edge:noSchedule"),
        view("n5", Eligibility.READY, "gpu:noSchedule"),
        view("n6", Eligibility.TROUBLED),
    )
    assert [ask.only_node for ask in reconcile(sight(daemon, nodes=nodes)).asks] == ["n1", "n5", "n6"]


def test_a_daemon_stays_on_a_node_that_was_tainted_or_cordoned_later() -> None:
    daemon = record("Daemon")
    nodes = (view("n1", Eligibility.READY, "edge:noSchedule"), view("n2", Eligibility.CORDONED))
    there = (seen(daemon, 0, node="n1"), seen(daemon, 1, node="n2", node_is=Eligibility.CORDONED))
    assert reconcile(sight(daemon, *there, nodes=nodes)).stops == ()
