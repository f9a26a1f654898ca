"""What each daemon costs while nothing happens but health checks, and that the store is not written then."""

import asyncio
import time
from pathlib import Path

from bench.figures import Figure, at_most, below, reported
from bench.rig import cpu_s, revision_of, service, until_ready
from bench.simulated import simulated_agents
from tests.lab.cluster import Daemon, join_token_file, wherry_cluster
from tests.lab.waiting import wait_until

CONTAINERS = 10
AGENTS = 100
SOON_S = 60.0
WINDOW_S, SHORT_WINDOW_S = 60.0, 10.0
SETTLE_S = 8.0  # for the last statuses to be stored, and the first checks to be spread
MEMORY_MIB = 80.0
CPU_PERCENT = 1.0


async def measure(*, short: bool) -> list[Figure]:
    window_s = SHORT_WINDOW_S if short else WINDOW_S
    return [*await _daemons(window_s), *await _many_agents(window_s)]


async def _many_agents(window_s: float) -> list[Figure]:
    """Measure whether simulated agents with a replica each make the store move."""
    async with wherry_cluster(servers=1, nodes=0) as cluster:
        url, token = cluster.server_urls[0], join_token_file(cluster.net.folder)
        async with simulated_agents(url, token, AGENTS, processes=1) as agents:
            await wait_until(agents.read_counts, SOON_S, "all are registered", lambda c: c.registered == AGENTS)
            await cluster.api.apply(service("fleet", AGENTS, placement={"spread": ["node.name"]}))
            await wait_until(agents.read_counts, SOON_S, "all run", lambda c: c.acknowledged == AGENTS)
            await asyncio.sleep(SETTLE_S)
            before, revision = agents.counts, await revision_of(cluster)
            await asyncio.sleep(window_s)
            made, beats = await revision_of(cluster) - revision, agents.counts.answered - before.answered
    return [
        at_most(f"store revisions made in {window_s:.0f} s by {AGENTS} simulated agents", made, "", 0),
        reported("heartbeats that they sent meanwhile", beats, ""),
    ]


async def _daemons(window_s: float) -> list[Figure]:
    """Measure what real daemons cost."""
    async with wherry_cluster(servers=1, nodes=3) as cluster:
        await cluster.api.apply(_checked_service())
        await until_ready(cluster.api, "checked", CONTAINERS)
        await asyncio.sleep(SETTLE_S)
        daemons = {f"{d.name} {d.host.name}": d for d in (*cluster.servers, *cluster.agents)}
        revision = await revision_of(cluster)
        before = {name: cpu_s(daemon.process.pid) for name, daemon in daemons.items()}
        began = time.monotonic()
        await asyncio.sleep(window_s)
        passed_s = time.monotonic() - began
        percents = {name: 100 * (cpu_s(d.process.pid) - before[name]) / passed_s for name, d in daemons.items()}
        figures = [at_most(f"store revisions made in {window_s:.0f} s", await revision_of(cluster) - revision, "", 0)]
        for name, daemon in daemons.items():
            figures.append(below(f"{name}: memory", _memory_mib(daemon), "MiB", MEMORY_MIB))
            figures.append(below(f"{name}: CPU", percents[name], "% of a core", CPU_PERCENT))
        figures.append(reported("containers with a readiness check every 5 s", CONTAINERS, ""))
        return figures


def _checked_service() -> dict[str, object]:
    page = "mkdir -p /tmp/www && echo hello > /tmp/www/index.html && exec busybox httpd -f -p 8080 -h /tmp/www"
    return service(
        "checked",
        CONTAINERS,
        network="bridge",
        command=["sh", "-c", page],
        ports=[{"name": "http", "container": 8080, "publish": "auto"}],
        health={"readiness": {"http": {"port": "http", "path": "/"}, "interval": "5s"}},
    )


def _memory_mib(daemon: Daemon) -> float:
    """Return the process's resident memory."""
    lines = Path(f"/proc/{daemon.process.pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS:"))) / 1024
