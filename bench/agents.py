"""What one server on etcd bears: 2,000 agents that register, beat, and are handed a service of 2,000 replicas.

The agents are simulated (bench.simulated) and share this machine's cores with the server and etcd: the server's own
share is read from its process.
"""

import asyncio
import os
import time
from collections.abc import Callable

from bench.figures import Figure, at_most, below, reported
from bench.rig import cpu_s, revision_of, service
from bench.simulated import Counts, SimulatedAgents, simulated_agents
from tests.lab.cluster import Cluster, join_token_file, wherry_cluster
from tests.lab.waiting import wait_until

AGENTS, SHORT_AGENTS = 2000, 400
QUIET_S, SHORT_QUIET_S = 30.0, 10.0
STILL_S = 4.0  # without a write: the events of their coming are stored
REGISTERED_S, CPU_PERCENT, HANDED_OUT_S = 60.0, 60.0, 10.0
DEADLINE_S = 300.0
PROCESSES = 2


async def measure(*, short: bool) -> list[Figure]:
    count = SHORT_AGENTS if short else AGENTS
    async with wherry_cluster(servers=1, nodes=0) as cluster:
        url, token = cluster.server_urls[0], join_token_file(cluster.net.folder)
        began_s, busy_s = time.monotonic(), _server_cpu_s(cluster)
        async with simulated_agents(url, token, count, processes=PROCESSES) as agents:
            await _until(agents, "all are registered", lambda c: c.registered == count)
            registered_s = time.monotonic() - began_s
            register_cpu_s = _server_cpu_s(cluster) - busy_s
            await _until_still(cluster)
            quiet = await _quiet(cluster, agents, SHORT_QUIET_S if short else QUIET_S)
            handed_out = await _hand_out(cluster, agents, count)
        return [
            below(f"{count} agents registered", registered_s, "s", REGISTERED_S),
            reported("the same, CPU of the server", register_cpu_s, "s"),
            *quiet,
            *handed_out,
            reported("cores that server, etcd and agents shared", os.cpu_count() or 0, ""),
        ]


async def _until_still(cluster: Cluster) -> None:
    """Return once nothing more is stored of the registrations."""
    while True:
        revision = await revision_of(cluster)
        await asyncio.sleep(STILL_S)
        if await revision_of(cluster) == revision:
            return


async def _quiet(cluster: Cluster, agents: SimulatedAgents, window_s: float) -> list[Figure]:
    """Measure while nothing happens but heartbeats."""
    before, revision, busy_s = agents.counts, await revision_of(cluster), _server_cpu_s(cluster)
    began_s = time.monotonic()
    await asyncio.sleep(window_s)
    passed_s = time.monotonic() - began_s
    percent = 100 * (_server_cpu_s(cluster) - busy_s) / passed_s
    after = agents.counts
    return [
        below("heartbeats kept: CPU of the server", percent, "% of a core", CPU_PERCENT),
        reported("heartbeats answered", (after.answered - before.answered) / passed_s, "/s"),
        at_most("sessions lost meanwhile", after.sessions - before.sessions, "", 0),
        at_most("store revisions made meanwhile", await revision_of(cluster) - revision, "", 0),
    ]


async def _hand_out(cluster: Cluster, agents: SimulatedAgents, count: int) -> list[Figure]:
    """Measure from the call of apply until the last agent knows that the server has stored that its replica runs."""
    began_s, busy_s = time.monotonic(), _server_cpu_s(cluster)
    await cluster.api.apply(service("fleet", count, placement={"spread": ["node.name"]}))
    applied_s = time.monotonic() - began_s
    await _until(agents, "all are assigned", lambda c: c.assigned == count)
    assigned_s = time.monotonic() - began_s
    await _until(agents, "all are acknowledged", lambda c: c.acknowledged == count)
    handed_out_s = time.monotonic() - began_s
    return [
        below(f"{count} replicas handed out", handed_out_s, "s", HANDED_OUT_S),
        reported("of it until apply returned", applied_s, "s"),
        reported("of it until the last was assigned", assigned_s, "s"),
        reported("the same, CPU of the server", _server_cpu_s(cluster) - busy_s, "s"),
    ]


async def _until(agents: SimulatedAgents, describe: str, done: Callable[[Counts], bool]) -> None:
    await wait_until(agents.read_counts, DEADLINE_S, describe, done)


def _server_cpu_s(cluster: Cluster) -> float:
    return cpu_s(cluster.server(1).process.pid)
