"""What befalls servers. None of it excuses anything: no node may be lost for it, and no container touched."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.chaos.fault import Effect, Kind, Lab, Part
from tests.lab.cluster import Daemon
from tests.lab.commands import LabError
from tests.lab.faults import leader_of, opened_store
from tests.lab.host import Direction

HOUR_S = 3600.0
SERVERS_DISK = "s1/server"
LEADER_SHARE = 0.6  # how often a fault hits the leader and not just any server


@asynccontextmanager
async def killed(lab: Lab, hold_s: float) -> AsyncIterator[Effect]:
    server, name = await _some_server(lab)
    await server.kill()
    yield Effect(f"{name}, {hold_s:.1f} s")
    server.start()


@asynccontextmanager
async def frozen(lab: Lab, hold_s: float) -> AsyncIterator[Effect]:
    server, name = await _some_server(lab)
    await server.pause()
    yield Effect(f"{name}, {hold_s:.1f} s")
    server.resume()


@asynccontextmanager
async def cut_from_etcd(lab: Lab, hold_s: float) -> AsyncIterator[Effect]:
    server, name = await _some_server(lab)
    async with _cut(lab, server, [member.host.name for member in lab.cluster.etcd.members]):
        yield Effect(f"{name}, {hold_s:.1f} s")


@asynccontextmanager
async def cut_from_etcd_and_compacted(lab: Lab, hold_s: float) -> AsyncIterator[Effect]:
    """History is forgotten while a server can't follow it: it must list everything again."""
    server, name = await _some_server(lab)
    async with _cut(lab, server, [member.host.name for member in lab.cluster.etcd.members]):
        yield Effect(f"{name}, {hold_s:.1f} s")
        async with opened_store(lab.cluster) as store:
            await store.compact(lab.chronicle.revision)  # the chronicle has read it


@asynccontextmanager
async def cut_from_agents(lab: Lab, hold_s: float) -> AsyncIterator[Effect]:
    server, name = await _some_server(lab)
    async with _cut(lab, server, [agent.host.name for agent in lab.cluster.agents]):
        yield Effect(f"{name}, {hold_s:.1f} s")


@asynccontextmanager
async def cut_one_way(lab: Lab, hold_s: float) -> AsyncIterator[Effect]:
    server, name = await _some_server(lab)
    direction = lab.rng.choice(list(Direction))
    await server.host.partition_one_way(direction)
    yield Effect(f"{name}, nothing {direction}, {hold_s:.1f} s")
    await server.host.heal()


@asynccontextmanager
async def disk_full(lab: Lab, hold_s: float) -> AsyncIterator[Effect]:
    """It keeps nothing there that it can't do without, and must also come up on a full disk."""
    disk, server = lab.cluster.net.disks[SERVERS_DISK], lab.cluster.server(1)
    disk.fill()
    if restarted := lab.rng.random() < 0.5:
        await server.restart()
    how = f"killed and restarted, {hold_s:.1f} s" if restarted else f"{hold_s:.1f} s"
    yield Effect(f"{server.host.name}, {how}")
    if not server.process.is_alive:
        raise LabError(f"the server on {server.host.name} ended on a full disk:\n{server.process.log_tail()}")
    disk.clear()


@asynccontextmanager
async def clock_jumped(lab: Lab, hold_s: float) -> AsyncIterator[Effect]:
    server, name = await _some_server(lab)
    hours = lab.rng.choice([-1, 1])
    assert server.clock
    server.clock.set_wrong(hours * HOUR_S)
    yield Effect(f"{name}, {hours:+} h for {hold_s:.1f} s")
    server.clock.set_right()


async def _some_server(lab: Lab) -> tuple[Daemon, str]:
    """Return a server, often the leader, and its name for people."""
    leader = await leader_of(lab.cluster)
    if lab.rng.random() < LEADER_SHARE:
        return leader, f"{leader.host.name} (leader)"
    server = lab.rng.choice([server for server in lab.cluster.servers if server is not leader])
    return server, server.host.name


@asynccontextmanager
async def _cut(lab: Lab, server: Daemon, others: list[str]) -> AsyncIterator[None]:
    for other in others:
        await lab.cluster.net.cut(server.host.name, other)
    yield
    for other in others:
        await lab.cluster.net.mend(server.host.name, other)


KINDS = (
    Kind("server killed", killed, (0.5, 8), Part.SERVER),
    Kind("server frozen", frozen, (6, 14), Part.SERVER),
    Kind("server cut off from etcd", cut_from_etcd, (4, 14), Part.SERVER),
    Kind("server cut off from etcd, history compacted", cut_from_etcd_and_compacted, (6, 12), Part.SERVER),
    Kind("server cut off from agents", cut_from_agents, (4, 12), Part.SERVER),
    Kind("server cut off one way", cut_one_way, (4, 12), Part.SERVER),
    Kind("server's disk full", disk_full, (6, 12), Part.SERVER),
    Kind("server's clock jumped", clock_jumped, (4, 12), Part.SERVER),
)
