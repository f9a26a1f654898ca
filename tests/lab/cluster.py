"""Wherry on a lab: servers `s1`.. on an etcd of their own, nodes `n1`.. with an engine and an agent each.

    async with wherry_cluster(servers=3, nodes=3) as cluster:
        await cluster.api.apply(manifest)
        await cluster.server(1).kill()
        await cluster.host("n2").partition()

The daemons are the real command line in their own processes. A failure shows the end of every daemon's log.
"""

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType

from tests.images import load_busybox
from tests.lab.api import Api
from tests.lab.commands import LabError
from tests.lab.etcd import Etcd, start_etcd
from tests.lab.host import Host
from tests.lab.network import Network, lab_network
from tests.lab.processes import Process
from tests.lab.waiting import wait_until
from tests.lab.wall_clock import WallClock

API_PORT = 7400
ETCD_APART = 3  # members
UP_S = 60.0
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class NodeSize:
    """What a node offers. The memory also bounds its containers for real."""

    cpu: str = "2000m"
    memory_mib: int = 2048
    pids: int = 4096
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Equipment:
    """What only some tests need to break."""

    etcd_apart: bool = False  # on hosts `e1`, `e2` and `e3`, so that a server can be cut off from all of its members
    wall_clocks: bool = False  # those of servers and agents can be set
    disks: Mapping[str, int] = field(default_factory=dict)  # which can be filled, as lab_network takes them


PLAIN = Equipment()


class Daemon:
    """A `wherry` process of a host, with the arguments with which it always comes back."""

    def __init__(self, host: Host, name: str, arguments: Sequence[str], clock: WallClock | None = None) -> None:
        self.host = host
        self.name = name
        self.clock = clock
        self._arguments = tuple(arguments)

    @property
    def process(self) -> Process:
        return self.host.processes[self.name]

    def start(self) -> None:
        environment = self.clock.environment() if self.clock else {}
        self.host.run(self.name, sys.executable, "-m", "wherry", *self._arguments, env=environment)

    async def kill(self) -> None:
        """Kill -9 it, as a crash would."""
        await self.process.kill()

    async def stop(self) -> int:
        """End it politely and return its exit code."""
        return await self.process.terminate()

    async def restart(self) -> None:
        """Start it again, killing it first where it still runs."""
        await self.kill()
        self.start()

    async def pause(self) -> None:
        await self.process.pause()

    def resume(self) -> None:
        self.process.resume()


class Cluster:
    """Handles on all parts, numbered from 1 as their hosts are: `server(1)` runs on `s1`, `agent(2)` on `n2`."""

    def __init__(
        self, net: Network, etcd: Etcd, servers: Sequence[Host], nodes: Mapping[Host, NodeSize], *, wall_clocks: bool
    ) -> None:
        self.net = net
        self.etcd = etcd
        self.server_urls = tuple(api_url(host) for host in servers)
        self.api = Api(self.server_urls, admin_token_file(net.folder).read_text().strip())
        clocks = {host: WallClock(host.folder / "clock") if wall_clocks else None for host in (*servers, *nodes)}
        self.servers = tuple(Daemon(host, "server", server_arguments(host, etcd), clocks[host]) for host in servers)
        self.agents = tuple(
            Daemon(host, "agent", agent_arguments(host, size, self.server_urls), clocks[host])
            for host, size in nodes.items()
        )
        self._sizes = dict(nodes)

    def host(self, name: str) -> Host:
        return self.net[name]

    def server(self, number: int) -> Daemon:
        return self.servers[number - 1]

    def agent(self, number: int) -> Daemon:
        return self.agents[number - 1]

    async def reboot_node(self, number: int) -> None:
        """Cut a node's power and bring it back with its engine and its agent, as its init system would."""
        agent = self.agent(number)
        await agent.host.reboot()
        await agent.host.start_dockerd()
        agent.start()

    async def start_servers(self) -> None:
        """Start all servers and return when each answers."""
        for server in self.servers:
            server.start()
        for number, server in enumerate(self.servers):
            await wait_until(partial(self._is_up, number), UP_S, f"the server on {server.host.name} answers")

    async def start_nodes(self) -> None:
        """Start every node's engine with the image in it, and every agent, and return when all are ready."""
        async with asyncio.TaskGroup() as tasks:
            for agent in self.agents:
                tasks.create_task(self._start_node(agent), name=f"start-{agent.host.name}")
        await self.await_nodes_ready()

    async def await_nodes_ready(self, deadline_s: float = UP_S) -> None:
        """Return when the servers call every node ready."""
        await wait_until(self._node_states, deadline_s, "every node is ready", self._are_ready)

    async def _start_node(self, agent: Daemon) -> None:
        await agent.host.start_dockerd(memory_bytes=self._sizes[agent.host].memory_mib * MIB)
        await load_busybox(agent.host.dockerd.socket)
        agent.start()

    async def _is_up(self, index: int) -> bool:
        _check_alive(self.servers[index])
        return (await self.api.ask(self.server_urls[index], "GET", "/v1/health")).is_ok

    async def _node_states(self) -> dict[str, str]:
        for agent in self.agents:
            _check_alive(agent)
        return {node["name"]: node["state"] for node in await self.api.items("/v1/nodes")}

    def _are_ready(self, states: Mapping[str, str]) -> bool:
        return states == {agent.host.name: "ready" for agent in self.agents}


@asynccontextmanager
async def wherry_cluster(
    servers: int = 3,
    nodes: int = 3,
    sizes: Mapping[str, NodeSize] = MappingProxyType({}),
    equipment: Equipment = PLAIN,
) -> AsyncIterator[Cluster]:
    """Start a whole cluster, every node ready and with the busybox image, and remove it all at the end.

    `sizes` holds the nodes, by name, that differ from the plain `NodeSize()`.
    """
    server_names, node_names = _numbered("s", servers), _numbered("n", nodes)
    etcd_names = _numbered("e", ETCD_APART) if equipment.etcd_apart else server_names
    names = dict.fromkeys([*server_names, *node_names, *etcd_names])
    async with lab_network(list(names), disks=equipment.disks) as net:
        write_token(admin_token_file(net.folder))
        write_token(join_token_file(net.folder))
        server_hosts = [net[name] for name in server_names]
        node_hosts = {net[name]: sizes.get(name, NodeSize()) for name in node_names}
        etcd = await start_etcd([net[name] for name in etcd_names])
        cluster = Cluster(net, etcd, server_hosts, node_hosts, wall_clocks=equipment.wall_clocks)
        async with cluster.api:
            await cluster.start_servers()
            await cluster.start_nodes()
            yield cluster


def server_arguments(host: Host, etcd: Etcd) -> tuple[str, ...]:
    return (
        "server",
        *("--store", etcd.store_url),
        *("--listen", f"{host.address}:{API_PORT}"),
        *("--data-dir", str(host.folder / "server")),
        *("--name", host.name),
        "--insecure",
        *("--admin-token-file", str(admin_token_file(host.folder.parent))),
        *("--join-token-file", str(join_token_file(host.folder.parent))),
    )


def agent_arguments(host: Host, size: NodeSize, servers: Sequence[str]) -> tuple[str, ...]:
    return (
        "agent",
        *(word for url in servers for word in ("--server", url)),
        *("--name", host.name),
        *("--data-dir", str(host.folder / "agent")),
        *("--docker", host.dockerd.url),
        *("--join-token-file", str(join_token_file(host.folder.parent))),
        *("--cpu", size.cpu, "--memory", f"{size.memory_mib}Mi", "--pids", str(size.pids)),
        *("--publish-address", host.address),
        *("--cgroup-parent", host.work.path),
        *(word for key, value in size.labels.items() for word in ("--label", f"{key}={value}")),
    )


def api_url(host: Host) -> str:
    return f"http://{host.address}:{API_PORT}"


def admin_token_file(folder: Path) -> Path:
    return folder / "admin-token"


def join_token_file(folder: Path) -> Path:
    return folder / "join-token"


def _numbered(letter: str, count: int) -> list[str]:
    return [f"{letter}{number}" for number in range(1, count + 1)]


def _check_alive(daemon: Daemon) -> None:
    if not daemon.process.is_alive:
        raise LabError(f"the {daemon.name} on {daemon.host.name} ended:\n{daemon.process.log_tail()}")


def write_token(file: Path) -> None:
    """Write a new token, for the owner's eyes only."""
    file.touch(mode=0o600)
    file.write_text(f"{secrets.token_hex(32)}\n")
