"""What the benchmarks measure on: real daemons in a lab's hosts, and the few words that several benchmarks share.

The clusters of several nodes are tests.lab.cluster's; here is the smallest whole one, a single host with a server on
SQLite, an engine and an agent.
"""

import base64
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import aiohttp

from agent.drivers.docker_codec import to_seconds
from control_plane import keys
from tests.images import load_busybox
from tests.lab.api import Api
from tests.lab.cluster import (
    Cluster,
    Daemon,
    NodeSize,
    admin_token_file,
    agent_arguments,
    api_url,
    join_token_file,
    write_token,
)
from tests.lab.host import Host
from tests.lab.network import lab_network
from tests.lab.waiting import wait_until

Json: TypeAlias = dict[str, Any]
UP_S = 60.0
IMAGE = "wherry/busybox:1"
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class OneNode:
    """A host that is server and node at once."""

    host: Host
    api: Api
    server: Daemon
    agent: Daemon
    token_file: Path

    @property
    def url(self) -> str:
        return api_url(self.host)


@asynccontextmanager
async def one_node(size: NodeSize, *, lost_after: str = "5s") -> AsyncIterator[OneNode]:
    """Run the smallest cluster for the block, its node ready and with the image, and remove it all at the end."""
    async with lab_network(["n1"]) as net:
        host = net["n1"]
        admin, join = admin_token_file(net.folder), join_token_file(net.folder)
        write_token(admin)
        write_token(join)
        server = Daemon(host, "server", (*_server_arguments(host, admin, join), "--lost-after", lost_after))
        agent = Daemon(host, "agent", agent_arguments(host, size, [api_url(host)]))
        await host.start_dockerd()
        await load_busybox(host.dockerd.socket)
        async with Api([api_url(host)], admin.read_text().strip()) as api:
            server.start()
            await wait_until(lambda: api.get("/v1/health"), UP_S, "the server answers")
            agent.start()
            await wait_until(lambda: api.get("/v1/nodes/n1"), UP_S, "the node is ready", is_ready)
            yield OneNode(host, api, server, agent, admin)


def is_ready(node: Json) -> bool:
    return bool(node["state"] == "ready")


def service(name: str, replicas: int, **spec: object) -> Json:
    """Return the manifest of a service that sleeps, on the host's network: the cheapest container there is."""
    plain: Json = {
        "replicas": replicas,
        "image": IMAGE,
        "command": ["sleep", "100000"],
        "network": "host",
        "stop": {"grace": "0s"},  # `sleep` as pid 1 heeds no SIGTERM
        "update": {"minHealthyTime": "0s"},
    }
    return {"apiVersion": "wherry/v1", "kind": "Service", "metadata": {"name": name}, "spec": plain | spec}


async def until_ready(api: Api, name: str, replicas: int, deadline_s: float = 60.0) -> None:
    """Return when the servers call that many replicas of the service ready."""
    path = f"/v1/workloads/default/service/{name}"
    await wait_until(
        lambda: api.get(path), deadline_s, f"{replicas} of {name} are ready", lambda w: w["counts"]["ready"] == replicas
    )


async def wanted(api: Api, name: str) -> dict[str, Json]:
    """Return the service's allocations that are to run, by id."""
    found = await api.items("/v1/allocations")
    return {a["id"]: a for a in found if a["name"] == name and a["desired"] == "run"}


async def inspect(host: Host, container: str) -> Json:
    found: Json = await host.dockerd.call("GET", f"/containers/{container}/json")
    return found


def state_time_s(inspected: Mapping[str, Any], which: str) -> float:
    """Return State.StartedAt or State.FinishedAt as seconds since the epoch."""
    return to_seconds(inspected["State"][which])


async def revision_of(cluster: Cluster) -> int:
    """Return the store's revision, asked of etcd itself."""
    key = base64.b64encode(keys.ROOT.encode()).decode()
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
        session.post(f"{cluster.etcd.members[0].url}/v3/kv/range", json={"key": key}) as answer,
    ):
        return int((await answer.json())["header"]["revision"])


def cpu_s(pid: int) -> float:
    """Return the CPU time that the process has used, its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _server_arguments(host: Host, admin: Path, join: Path) -> tuple[str, ...]:
    return (
        "server",
        *("--store", f"sqlite:{host.folder / 'store.db'}"),
        *("--listen", api_url(host).removeprefix("http://")),
        *("--data-dir", str(host.folder / "server")),
        *("--name", host.name),
        "--insecure",
        *("--admin-token-file", str(admin)),
        *("--join-token-file", str(join)),
    )
