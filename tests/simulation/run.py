"""Runs a scenario of one's own on a simulated cluster, for tests of one thing."""

import asyncio
from collections.abc import Awaitable, Callable

from tests.simulation.cluster import Cluster
from tests.simulation.judge import Judge
from tests.simulation.loop import new_loop
from tests.simulation.trace import undisturbed

Scenario = Callable[[Cluster, Judge], Awaitable[None]]


def simulate(scenario: Scenario, *, seed: str = "scenario", but: frozenset[str] = frozenset()) -> Judge:
    """Run it on a cluster that has just come up, and return the judge, who has found nothing wrong, `but` that."""

    async def main(cluster: Cluster, judge: Judge) -> None:
        cluster.start_all()
        await asyncio.sleep(2.0)
        await scenario(cluster, judge)

    with undisturbed(), new_loop(seed) as loop:
        cluster = Cluster.make(loop, seed)
        judge = Judge(cluster)
        loop.run(main(cluster, judge))
        assert [str(breach) for breach in judge.breaches if breach.rule not in but] == []
        assert cluster.crashes == []
        assert loop.problems == []
        return judge
