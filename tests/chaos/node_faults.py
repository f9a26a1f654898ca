"""What befalls nodes, their agents and their engines. Only what silences a node for long may move its containers."""

import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

from tests.chaos.fault import LOST_S, NONE, Effect, Kind, Lab, Part, node_away
from tests.lab.cluster import Daemon
from tests.lab.commands import in_thread
from tests.lab.faults import owned
from tests.lab.host import Direction
from tests.lab.waiting import wait_until

HOUR_S = 3600.0
BACK_S = 60.0
AGENTS_DISK = "n1/agent"


@asynccontextmanager
async def agent_killed(lab: Lab, hold_s: float) -> AsyncIterator[Effect]:
    """It counts as away until it has a session again: how long its start takes is the machine's affair."""
    agent = lab.some_agent()
    await agent.kill()
    yield node_away(agent.host.name, f"started again after {hold_s:.1f} s")
    await _start(agent)


@asynccontextmanager
async def agent_frozen(lab: Lab, hold_s: float) -> AsyncIterator[Effect]:
    agent = lab.some_agent()
    await agent.pause()
    yield node_away(agent.host.name, f"{hold_s:.1f} s")
    agent.resume()


@asynccontextmanager
async def host_frozen(lab: Lab, hold_s: float) -> AsyncIterator[Effect]:
    """Everything on it stands still, containers too, as when a virtual machine is paused."""
    host = lab.some_agent().host
    await host.pause()
    yield replace(node_away(host.name, f"{hold_s:.1f} s"), freezes=frozenset({host.name}))
    await host.resume()


@asynccontextmanager
async def partitioned(lab: Lab, hold_s: float) -> AsyncIterator[Effect]:
    host = lab.some_agent().host
    await host.partition()
    yield node_away(host.name, f"{hold_s:.1f} s")
    await host.heal()


@asynccontextmanager
async def partitioned_one_way(lab: Lab, hold_s: float) -> AsyncIterator[Effect]:
    host, direction = lab.some_agent().host, lab.rng.choice(list(Direction))
    await host.partition_one_way(direction)
    yield node_away(host.name, f"nothing {direction}, {hold_s:.1f} s")
    await host.heal()


@asynccontextmanager
async def power_cut(lab: Lab, hold_s: float) -> AsyncIterator[Effect]:
    agent = lab.some_agent()
    host, number = agent.host, lab.cluster.agents.index(agent) + 1
    nodes = frozenset({host.name})
    await host.kill()
    yield Effect(f"{host.name}, {hold_s:.1f} s", touches=nodes, silences=nodes, ends=nodes)
    await lab.cluster.reboot_node(number)


@asynccontextmanager
async def engine_restarted(lab: Lab, hold_s: float) -> AsyncIterator[Effect]:
    """With live-restore: no container may notice."""
    host, politely = lab.some_agent().host, lab.rng.random() < 0.5
    await (host.dockerd.stop() if politely else host.dockerd.kill())
    how = "politely" if politely else "by kill -9"
    yield Effect(f"{host.name} {how}, {hold_s:.1f} s", touches=frozenset({host.name}))
    await host.dockerd.start()


@asynccontextmanager
async def engine_frozen(lab: Lab, hold_s: float) -> AsyncIterator[Effect]:
    host = lab.some_agent().host
    await host.pause("dockerd")
    yield Effect(f"{host.name}, {hold_s:.1f} s", touches=frozenset({host.name}))
    await host.resume("dockerd")


@asynccontextmanager
async def disk_full(lab: Lab, hold_s: float) -> AsyncIterator[Effect]:
    """The agent can't write its state; what runs goes on. It is killed meanwhile, and comes back to the full disk."""
    disk, agent = lab.cluster.net.disks[AGENTS_DISK], lab.cluster.agent(1)
    disk.fill()
    began_s, nodes = time.monotonic(), frozenset({agent.host.name})
    if restarted := lab.rng.random() < 0.5:
        await agent.kill()
        await _start(agent)
    took_long = time.monotonic() - began_s > LOST_S
    how = f"agent killed and back, {hold_s:.1f} s" if restarted else f"{hold_s:.1f} s"
    yield Effect(f"{agent.host.name}, {how}", touches=nodes, silences=nodes if took_long else NONE)
    disk.clear()


@asynccontextmanager
async def clock_jumped(lab: Lab, hold_s: float) -> AsyncIterator[Effect]:
    agent, hours = lab.some_agent(), lab.rng.choice([-1, 1])
    assert agent.clock
    agent.clock.set_wrong(hours * HOUR_S)
    yield Effect(f"{agent.host.name}, {hours:+} h for {hold_s:.1f} s")
    agent.clock.set_right()


@asynccontextmanager
async def container_crashed(lab: Lab, hold_s: float) -> AsyncIterator[Effect]:
    """Kill the processes of one node's containers: they are restarted in place."""
    host = lab.some_agent().host
    for container in await owned(host):
        with suppress(ProcessLookupError):
            os.kill(container.pid, signal.SIGKILL)
    nodes = frozenset({host.name})
    yield Effect(f"all on {host.name}", touches=nodes, ends=nodes)


async def _start(agent: Daemon) -> None:
    """Start it and return once it has a session."""
    log = agent.process.log
    size = await in_thread(lambda: log.stat().st_size)
    agent.start()
    await wait_until(lambda: _says(log, size, b"session opened"), BACK_S, "the agent has a session")


async def _says(log: Path, since: int, words: bytes) -> bool:
    return words in await in_thread(_read_since, log, since)


def _read_since(log: Path, since: int) -> bytes:
    return log.read_bytes()[since:]


KINDS = (
    Kind("agent killed, back soon", agent_killed, (0, 0.5), Part.NODE),
    Kind("agent killed", agent_killed, (8, 12), Part.NODE),
    Kind("agent frozen for a moment", agent_frozen, (1, 2.5), Part.NODE),
    Kind("agent frozen", agent_frozen, (8, 14), Part.NODE),
    Kind("host frozen", host_frozen, (8, 12), Part.NODE),
    Kind("host cut off for a moment", partitioned, (1, 2.5), Part.NODE),
    Kind("host cut off", partitioned, (8, 14), Part.NODE),
    Kind("host cut off one way", partitioned_one_way, (8, 14), Part.NODE),
    Kind("power cut", power_cut, (1, 12), Part.NODE),
    Kind("engine restarted", engine_restarted, (0, 3), Part.NODE),
    Kind("engine frozen", engine_frozen, (4, 14), Part.NODE),
    Kind("agent's disk full", disk_full, (6, 12), Part.NODE, "n1"),
    Kind("agent's clock jumped", clock_jumped, (4, 12), Part.NODE),
    Kind("containers crashed", container_crashed, (1, 3), Part.NODE),
)
