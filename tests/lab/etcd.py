"""A real etcd on hosts of the lab, one member each, which a test may kill, pause and cut off like any process."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import aiohttp

from tests.lab.commands import LabError
from tests.lab.host import Host
from tests.lab.processes import Process
from tests.lab.waiting import wait_until

CLIENT_PORT = 2379
PEER_PORT = 2380
UP_S = 60.0
HEALTH_S = 5.0


class EtcdMember:
    """One member. Its data is in its host's folder, so it comes back after a crash and after a power cut."""

    def __init__(self, host: Host, cluster: Sequence[Host]) -> None:
        self.host = host
        self.url = _client_url(host)
        self._cluster = tuple(cluster)
        self._data = host.folder / "etcd"

    @property
    def process(self) -> Process:
        return self.host.processes["etcd"]

    def start(self) -> None:
        """Start it; it answers once it sees a majority."""
        self.host.run(
            "etcd",
            "etcd",
            *self._membership(),
            *("--listen-client-urls", self.url, "--advertise-client-urls", self.url),
            *("--listen-peer-urls", _peer_url(self.host)),
        )

    async def restore(self, snapshot: Path) -> None:
        """Give it a new data folder out of the snapshot. It must not run, nor any other member with older data."""
        self._data = self._data.with_name(f"etcd-since-{snapshot.stem}")
        await self.host.output("etcdctl", "snapshot", "restore", str(snapshot), *self._membership())

    def _membership(self) -> tuple[str, ...]:
        """Return who it is, the same for a start and for a restore."""
        return (
            *("--name", self.host.name, "--data-dir", str(self._data)),
            *("--initial-advertise-peer-urls", _peer_url(self.host)),
            *("--initial-cluster", ",".join(f"{host.name}={_peer_url(host)}" for host in self._cluster)),
        )

    async def kill(self) -> None:
        await self.process.kill()

    async def restart(self) -> None:
        """Start it again, killing it first where it still runs."""
        await self.process.kill()
        self.start()

    async def pause(self) -> None:
        await self.process.pause()

    def resume(self) -> None:
        self.process.resume()

    async def is_healthy(self) -> bool:
        """Tell whether it says that it can serve: it has a leader and no alarm. An error when it doesn't answer."""
        timeout = aiohttp.ClientTimeout(total=HEALTH_S)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"{self.url}/health") as response,
        ):
            answer = json.loads(await response.text())
            return bool(answer["health"] == "true")

    async def leads(self) -> bool:
        """Tell whether it is the leader. An error when it doesn't answer."""
        timeout = aiohttp.ClientTimeout(total=HEALTH_S)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(f"{self.url}/v3/maintenance/status", json={}) as response,
        ):
            status = await response.json()
            return bool(status["leader"] == status["header"]["member_id"])


class Etcd:
    """All members of one store."""

    def __init__(self, hosts: Sequence[Host]) -> None:
        self.members = tuple(EtcdMember(host, hosts) for host in hosts)

    def __getitem__(self, host: str) -> EtcdMember:
        return next(member for member in self.members if member.host.name == host)

    @property
    def store_url(self) -> str:
        """The store as `wherry server --store` takes it."""
        return "etcd:" + ",".join(member.url for member in self.members)

    async def leader(self) -> EtcdMember:
        """Return the member that leads; LabError when none does."""
        for member in self.members:
            if await member.leads():
                return member
        raise LabError("no member of etcd leads")

    async def save(self, snapshot: Path) -> None:
        """Write a snapshot of the whole store, with etcd's own tool."""
        member = self.members[0]
        await member.host.output("etcdctl", "--endpoints", member.url, "snapshot", "save", str(snapshot))

    async def restore(self, snapshot: Path) -> None:
        """Take the store back to the snapshot, with etcd's own tool, and return when every member serves."""
        for member in self.members:
            await member.kill()
        for member in self.members:
            await member.restore(snapshot)
            member.start()
        await self.await_healthy()

    async def await_healthy(self, deadline_s: float = UP_S) -> None:
        """Return when every member serves."""
        async with asyncio.timeout(deadline_s + HEALTH_S):
            for member in self.members:
                await wait_until(member.is_healthy, deadline_s, f"etcd on {member.host.name} is healthy")


async def start_etcd(hosts: Sequence[Host]) -> Etcd:
    """Start one member on each host and return when all are healthy."""
    etcd = Etcd(hosts)
    for member in etcd.members:
        member.start()
    await etcd.await_healthy()
    return etcd


def _client_url(host: Host) -> str:
    return f"http://{host.address}:{CLIENT_PORT}"


def _peer_url(host: Host) -> str:
    return f"http://{host.address}:{PEER_PORT}"
