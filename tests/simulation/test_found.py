"""Faults of Wherry that the simulator has found, each as a scenario of its own."""

import asyncio
import warnings

import pytest

from control_plane import keys
from control_plane.store.protocol import Delete, LeaseId, Put, Txn
from manifests.nodes import Liveness
from manifests.workloads import Kind, VersionRecord, Workload, WorkloadRecord, WorkloadRef
from tests.builders import workload
from tests.simulation.cluster import Cluster, NodeHost, ServerHost
from tests.simulation.etcd import Store
from tests.simulation.faults import Fault
from tests.simulation.history import Plan, run
from tests.simulation.judge import Judge
from tests.simulation.run import simulate
from tests.simulation.users import Action
from tests.simulation.wishes import FOREVER


def leader_of(cluster: Cluster) -> ServerHost:
    return next(s for s in cluster.servers.values() if s.core is not None and s.core.membership.is_leading)


def server_of(cluster: Cluster, judge: Judge, node: str) -> ServerHost:
    return cluster.servers[judge.records.nodes[node].server.partition("-")[0]]


async def apply(cluster: Cluster, one: Workload) -> None:
    server = leader_of(cluster)
    assert server.core is not None
    assert server.process is not None
    await server.process.spawn(server.core.workload_writer.apply([one]), name="apply")


async def settle(cluster: Cluster) -> None:
    """Return once nothing was written for a while."""
    revision = 0
    while cluster.etcd.revision != revision:
        revision = cluster.etcd.revision
        await asyncio.sleep(3.0)


async def kill(cluster: Cluster, node: NodeHost, *, for_s: float = 0.5) -> None:
    assert node.process is not None
    node.process.kill()
    await asyncio.sleep(for_s)
    cluster.start_agent(node)


def test_a_leader_that_lags_calls_no_node_lost_whose_server_has_come_back() -> None:
    """It had missed the server, and not seen yet that it was there again."""

    async def scenario(cluster: Cluster, judge: Judge) -> None:
        leader = leader_of(cluster)
        other = next(s for s in (server_of(cluster, judge, n) for n in cluster.nodes) if s is not leader)
        (lease,) = [lease for lease in cluster.etcd.leases() if _carries(cluster, lease, other)]
        cluster.etcd.revoke(lease)
        await asyncio.sleep(0.1)
        leader.link.lag_s = 12.0
        await asyncio.sleep(15.0)
        assert [n.liveness for n in judge.records.nodes.values()] == [Liveness.READY] * 5

    simulate(scenario)


def _carries(cluster: Cluster, lease: LeaseId, server: ServerHost) -> bool:
    assert server.core is not None
    return keys.SERVERS + server.core.server.id in cluster.etcd.keys_of(lease)


def test_a_node_that_is_called_lost_while_it_is_connected_comes_back() -> None:
    """Nothing happened on it, so that its server wrote nothing, and did not find out."""

    async def scenario(cluster: Cluster, judge: Judge) -> None:
        key = keys.NODES + "n1"
        lost = judge.records.nodes["n1"].model_copy(update={"liveness": Liveness.LOST})
        hand = Store(cluster.etcd, leader_of(cluster).link, cluster.network.rng, name="s0")
        await hand.commit(Txn((), (Put(key, lost.to_bytes()),)))
        await asyncio.sleep(3.0)
        assert judge.records.nodes["n1"].liveness is Liveness.READY

    simulate(scenario, but=frozenset({"S20"}))


def test_the_last_word_counts_although_the_cache_lags_behind_the_one_before() -> None:
    """A server took a report for no news, as it was what its cache held, from before the last report."""

    async def scenario(cluster: Cluster, judge: Judge) -> None:
        node = cluster.nodes["n2"]
        server_of(cluster, judge, "n2").link.lag_s = 4.0
        node.runtime.is_hung = True
        while not judge.records.nodes["n2"].trouble:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        node.runtime.come_back()
        await asyncio.sleep(20.0)
        assert judge.records.nodes["n2"].trouble == ""

    simulate(scenario)


def test_an_agent_that_dies_in_the_middle_of_a_start_begins_it_again() -> None:
    """Its successor could not say that it pulls an image, for what was known as starting already, and ended by that."""

    async def scenario(cluster: Cluster, judge: Judge) -> None:
        for node in cluster.nodes.values():
            node.runtime.most_delay_s = 4.0
        await apply(cluster, workload(name="web", replicas=5, command=FOREVER))
        await asyncio.sleep(6.0)
        for node in cluster.nodes.values():
            node.runtime.most_delay_s = 0.01
            await kill(cluster, node)
        await asyncio.sleep(5.0)  # for what began while all was slow
        await settle(cluster)
        assert {status.phase for status in judge.records.statuses.values()} == {"running"}

    simulate(scenario)


def test_what_has_ended_stays_so_when_its_node_forgets_it() -> None:
    """The disk was full when a job ended, the agent died, and its successor told that the job was running."""

    async def scenario(cluster: Cluster, judge: Judge) -> None:
        await apply(cluster, workload("Job", name="once", command=("sh", "-c", "sleep 3; exit 0")))
        await asyncio.sleep(2.0)
        (allocation,) = judge.records.allocations.values()
        node = cluster.nodes[allocation.node]
        node.folder.is_full = True
        await settle(cluster)
        node.runtime.boxes.clear()
        node.misled_life = node.lives + 1
        await kill(cluster, node)
        await settle(cluster)
        assert {status.phase for status in judge.records.statuses.values()} == {"succeeded"}

    simulate(scenario)


def test_a_job_that_goes_with_its_cron_job_is_not_placed_once_more() -> None:
    """A leader that found both to do in one pass placed the job in the transaction that deleted it."""

    async def scenario(cluster: Cluster, judge: Judge) -> None:
        job = workload("Job", name="slot", command=("sh", "-c", "sleep 3; exit 0"))
        owner = WorkloadRef(namespace="default", kind=Kind.CRON_JOB, name="gone", uid="u0")
        record = WorkloadRecord(uid="u1", version=1, generation=1, created_s=0.0, workload=job, owner=owner)
        version = VersionRecord(uid="u1", version=1, created_s=0.0, workload=job)
        id_ = keys.id_of_ref(record.ref)
        hand = Store(cluster.etcd, leader_of(cluster).link, cluster.network.rng, name="s0")
        version_key = keys.VERSIONS + keys.version_id(id_, 1)
        puts = (Put(keys.WORKLOADS + id_, record.to_bytes()), Put(version_key, version.to_bytes()))
        await hand.commit(Txn((), puts))
        await asyncio.sleep(5.0)
        assert id_ not in judge.records.workloads
        assert judge.records.ever == {}

    simulate(scenario)


def test_a_node_whose_registration_takes_long_is_not_called_lost_by_its_own_server() -> None:
    """Its record was there, its session not yet: the server took it for silent, and acknowledged it all the same."""
    faults = (
        Fault(15.0, "compaction", "s3", 4.49, 15, "both"),
        Fault(19.33, "lost-write", "n1", 12.93, 18, "s1"),
        Fault(20.87, "lease-ended", "leader", 8.91, 25, "to"),
        Fault(31.863, "lost-reply", "leader", 5.75, 27, "to"),
        Fault(32.204, "compaction", "s1", 8.05, 9, "to"),
    )
    assert [str(breach) for breach in run(Plan(519, faults, ())).breaches] == []


def test_a_server_that_ends_anywhere_leaves_no_coroutine_behind() -> None:
    """It made the one that gives its lease up before it could await it, and was ended in between."""

    async def scenario(cluster: Cluster, judge: Judge) -> None:
        leader = leader_of(cluster)
        assert leader.process is not None
        leader.process.kill()

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        simulate(scenario)
    assert [str(warning.message) for warning in told] == []


@pytest.mark.parametrize("key", ["versions/default/service/web/latest", "versions/stray", "workloads/stray"])
def test_a_record_at_a_key_that_none_can_have_ends_no_server(key: str) -> None:
    """All ended, or none could lead any more, as they took its id apart."""

    async def scenario(cluster: Cluster, judge: Judge) -> None:
        one = workload(name="web")
        record = WorkloadRecord(uid="u1", version=1, generation=1, created_s=0.0, workload=one)
        version = VersionRecord(uid="u1", version=1, created_s=0.0, workload=one)
        stray = record if key.startswith("workloads") else version
        hand = Store(cluster.etcd, leader_of(cluster).link, cluster.network.rng, name="s0")
        path = f"{keys.ROOT}desired/{key}"
        await hand.commit(Txn((), (Put(path, stray.to_bytes()),)))
        cluster.unreadable.add(path)
        await asyncio.sleep(1.0)
        await apply(cluster, one)
        await settle(cluster)
        await hand.commit(Txn((), (Delete(path),)))
        await settle(cluster)
        assert {status.phase for status in judge.records.statuses.values()} == {"running"}

    simulate(scenario)


def test_a_revert_that_comes_to_nothing_fails_in_its_time() -> None:
    """The leader looked at it again only a deadline after it had begun, and timed it from then on."""
    actions = (Action(14.0, "scale", "checked", 6), Action(28.0, "change", "checked", 1))
    assert [str(breach) for breach in run(Plan(1063, (), actions)).breaches] == []


def test_a_version_is_not_taken_for_healthy_while_its_node_is_silent() -> None:
    """It had ended long ago, and nobody could tell: its last word counted for as long as it wasn't called lost."""
    faults = (
        Fault(9.28, "torn-state", "n5", 7.97, 28, "s1"),
        Fault(18.68, "torn-state", "n4", 8.77, 19, "from"),
        Fault(22.08, "torn-state", "n5", 5.87, 18, "both"),
        Fault(23.94, "torn-state", "n2", 3.44, 15, "from"),
        Fault(31.43, "torn-state", "n2", 6.75, 4, "s2"),
    )
    actions = (
        Action(4.84, "break", "monitor", 6),
        Action(24.72, "break", "web", 3),
        Action(26.50, "break", "api", 6),
        Action(34.90, "scale", "api", 1),
    )
    assert [str(breach) for breach in run(Plan(5140, faults, actions)).breaches] == []


def test_a_stop_does_not_wait_for_the_pull_of_an_image_that_was_removed_meanwhile() -> None:
    """Only a first pull was broken off; one that a failed creation called for held a drained node all its time."""
    faults = (Fault(22.83, "lost-write", "n5", 2.74, 9, "both"), Fault(33.66, "slow-pull", "n5", 21.02, 6, "s2"))
    actions = (Action(17.76, "drain", "n3", 0), Action(40.0, "squeeze", "n5", 1))
    assert [str(breach) for breach in run(Plan(842, faults, actions)).breaches] == []


def test_garbage_that_went_under_a_compaction_holds_nothing_back() -> None:
    """Its end was among what was compacted away: no version was removed any more, as garbage might need any."""
    faults = (Fault(35.72, "garbage", "leader", 11.55, 1, "s2"), Fault(38.84, "compaction", "s1", 3.52, 15, "from"))
    assert [str(breach) for breach in run(Plan(976, faults, ())).breaches] == []
