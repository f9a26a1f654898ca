"""Events under faults: servers die, lag and take over while much happens, and nothing is counted twice."""

import asyncio
from itertools import groupby

import pytest

from control_plane import keys
from control_plane.store.protocol import Revision
from manifests.workloads import Workload
from tests.builders import workload
from tests.invariants.events import EventChecker
from tests.invariants.steps import Step
from tests.simulation.cluster import Cluster
from tests.simulation.judge import Judge
from tests.simulation.run import simulate
from tests.simulation.test_found import apply, leader_of, settle
from tests.simulation.wishes import FOREVER


def web(replicas: int) -> Workload:
    return workload(name="web", replicas=replicas, command=FOREVER)


def crash(cluster: Cluster, node: str) -> None:
    """End whatever runs on the node, as if it had crashed."""
    runtime = cluster.nodes[node].runtime
    for box in [box for box in runtime.boxes.values() if box.is_running and "wherry" in str(box.labels)]:
        runtime.end(box, 1, "crashed")


@pytest.mark.parametrize("seed", ["a", "b", "c"])
def test_leaders_that_die_lag_and_follow_each_other_count_nothing_twice(seed: str) -> None:
    async def scenario(cluster: Cluster, judge: Judge) -> None:
        checker = EventChecker()
        so_far = cluster.etcd.changes_after(Revision(0), keys.ROOT)
        for revision, changes in groupby(so_far, key=lambda change: change.revision):
            judge.report(checker.take(Step(revision, tuple(changes))))
        cluster.etcd.observers.append(lambda step: judge.report(checker.take(step)))
        for turn in range(6):
            await apply(cluster, web(3 + turn % 4))
            leader = leader_of(cluster)
            crash(cluster, f"n{1 + turn % 5}")
            await asyncio.sleep(0.15 * turn)
            if turn % 2:
                leader.link.lag_s = 3.0
            else:
                assert leader.process is not None
                leader.process.kill()
            await asyncio.sleep(9.0)
            leader.link.lag_s = 0.0
            if not leader.is_up:
                cluster.start_server(leader)
            await asyncio.sleep(3.0)
        await settle(cluster)
        await asyncio.sleep(15.0)
        assert checker.untold() == {}

    simulate(scenario, seed=seed)
