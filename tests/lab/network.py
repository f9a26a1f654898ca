"""A lab: named hosts on one switch, made in about half a second and gone without a trace, whatever the test did."""

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType

from tests.lab.cgroups import Cgroup, cgroup2_root
from tests.lab.commands import NEEDED, call, in_thread, network_namespaces
from tests.lab.disks import SmallDisk, unmount_below
from tests.lab.host import Host
from tests.lab.processes import log_tail
from tests.lab.subnets import LabName, Subnet, take_stale, take_subnet
from tests.lab.switch import Drop, Switch

TAIL_LINES = 30


class Network:
    """The hosts of one lab. `net["n1"]` is a host; `net.address` is the test process's own address among them."""

    def __init__(self, name: LabName, subnet: Subnet, hosts: Sequence[str], disks: Mapping[str, int]) -> None:
        self.id = name.id
        self.folder = Path(name.folder)
        self.switch = Switch(name.id, subnet)
        self.address = self.switch.test_address
        self.hosts = tuple(
            Host(name.id, host, port, subnet.address(port), self.switch, self.folder)
            for port, host in enumerate(hosts, start=1)
        )
        self.disks = {folder: SmallDisk(self.folder / folder, size) for folder, size in disks.items()}

    def __getitem__(self, name: str) -> Host:
        return next(host for host in self.hosts if host.name == name)

    async def cut(self, one: str, other: str) -> None:
        """Lose everything between two hosts, both ways; each still reaches the rest."""
        await in_thread(self.switch.cut, *self._between(one, other))

    async def mend(self, one: str, other: str) -> None:
        """Undo `cut`."""
        await in_thread(self.switch.mend, *self._between(one, other))

    def log_tails(self, lines: int = TAIL_LINES) -> str:
        """Return the end of every log in the lab, for a test's failure."""
        logs = sorted((self.folder / "logs").glob("*.log"))
        return "".join(f"--- {log.name}\n{log_tail(log, lines)}\n" for log in logs if log.stat().st_size)

    def _between(self, one: str, other: str) -> tuple[Drop, Drop]:
        return (self[one].port, self[other].port), (self[other].port, self[one].port)


@asynccontextmanager
async def lab_network(
    hosts: Sequence[str], *, disks: Mapping[str, int] = MappingProxyType({})
) -> AsyncIterator[Network]:
    """Make hosts of these names, all switched on, and remove everything at the end; a failure shows the logs' tails.

    `disks` are folders that a test wants to fill, with their sizes in bytes, such as `{"n1/agent": 2**20}`.
    """
    await in_thread(_sweep)
    subnet = take_subnet()  # some milliseconds, and in a thread a cancellation would lose the lock
    try:
        name = LabName(subnet.new_lab_id(), tempfile.mkdtemp(prefix="wherry-lab-"))
        subnet.record(name)
        network = Network(name, subnet, hosts, disks)
        try:
            for disk in network.disks.values():
                await in_thread(disk.mount)
            await in_thread(network.switch.make)
            async with asyncio.TaskGroup() as tasks:
                for host in network.hosts:
                    tasks.create_task(host.boot(), name=f"boot-{host.name}")
            yield network
        except BaseException:
            sys.stderr.write(network.log_tails())
            raise
        finally:
            await in_thread(_end, network, name)
    finally:
        subnet.release()


def remove_lab(name: LabName) -> None:
    """Remove all that bears the lab's name, whether its test still lives or was killed; twice is no harm."""
    cgroup = Cgroup(f"/{name.id}")
    cgroup.kill()
    for netns in network_namespaces():
        if netns.startswith(f"{name.id}-"):
            call(["ip", "netns", "del", netns])
    if Path("/sys/class/net", name.id).exists():  # the kernel removes it with its peer, a moment after the namespace
        _delete_link(name.id)
    cgroup.remove()
    unmount_below(Path(name.folder))
    shutil.rmtree(name.folder, ignore_errors=True)


def why_no_lab() -> str:
    """Return why this machine can't be a lab, or nothing: the reason with which a test is skipped."""
    if os.geteuid() != 0:
        return "network namespaces as hosts need root"
    if missing := [command for command in NEEDED if shutil.which(command) is None]:
        return f"network namespaces as hosts need {', '.join(missing)}"
    if not (cgroup2_root() / "cgroup.procs").exists():
        return "killing a whole host needs a cgroup2 tree"
    return ""


def _sweep() -> None:
    """Remove what is left of labs whose test was killed."""
    for subnet, name in take_stale():
        remove_lab(name)
        subnet.release()


def _end(network: Network, name: LabName) -> None:
    try:
        for host in network.hosts:
            host.kill_now()
    finally:
        remove_lab(name)


def _delete_link(link: str) -> None:
    """Delete a link of the test's own namespace; that it went by itself meanwhile is fine."""
    try:
        call(["ip", "link", "del", link])
    except Exception:
        if Path("/sys/class/net", link).exists():
            raise
