"""The machine under the agent: what it has, what it is called, and the cgroup above all containers.

The agent takes a `Machine` from outside, so that a simulator can run it on one that doesn't exist.
"""

import os
import platform
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from shutil import disk_usage
from typing import Protocol
from urllib.parse import urlsplit

from agent.cgroups import cap_parent, remove_parent
from agent.options import AgentOptions
from manifests.containers import NodeResources, Resources

PROC = Path("/proc")
DATA = Path("/var/lib")  # where container managers keep images and containers


class Machine(Protocol):
    """`address`, `cap` and `uncap` block for a moment: call them by `asyncio.to_thread`."""

    def boot_id(self) -> str: ...

    def resources(self) -> NodeResources:
        """Return all that the machine has."""
        ...

    def cores(self) -> int: ...

    def attributes(self) -> Mapping[str, str]:
        """Return what constraints may ask for: arch, drivers, hostname, kernel, os."""
        ...

    def address(self, options: AgentOptions) -> str:
        """Return where published ports answer, "" if that isn't known."""
        ...

    def cap(self, parent: str, allocatable: Resources) -> bool:
        """Make the cgroup above all containers and cap it; False where that isn't possible."""
        ...

    def uncap(self, parent: str) -> None:
        """Remove that cgroup, if nothing lives in it."""
        ...


class LocalMachine:
    """The machine that this process runs on; `drivers` are those that it can have."""

    def __init__(self, drivers: Sequence[str] = ()) -> None:
        self._drivers = tuple(drivers)

    def boot_id(self) -> str:
        return (PROC / "sys/kernel/random/boot_id").read_text().strip()

    def resources(self) -> NodeResources:
        return machine_resources()

    def cores(self) -> int:
        return os.cpu_count() or 1

    def attributes(self) -> Mapping[str, str]:
        return {
            "arch": platform.machine(),
            "hostname": socket.gethostname(),
            "kernel": platform.release(),
            "os": platform.system().lower(),
            **({"drivers": ",".join(self._drivers)} if self._drivers else {}),
        }

    def address(self, options: AgentOptions) -> str:
        return own_address(options)

    def cap(self, parent: str, allocatable: Resources) -> bool:
        return cap_parent(parent, allocatable)

    def uncap(self, parent: str) -> None:
        remove_parent(parent)


def machine_resources() -> NodeResources:
    """Return all that the machine has."""
    memory_kb = next(
        int(line.split()[1]) for line in (PROC / "meminfo").read_text().splitlines() if line.startswith("MemTotal:")
    )
    pids = min(int((PROC / "sys/kernel" / name).read_text()) for name in ("pid_max", "threads-max"))
    return NodeResources.of(
        cpu_m=(os.cpu_count() or 1) * 1000,
        memory_bytes=memory_kb * 1024,
        pids=min(pids, 4_194_304),
        disk_bytes=disk_usage(DATA if DATA.exists() else "/").total,
    )


def own_address(options: AgentOptions) -> str:
    """Return where published ports answer: as the flag says, else the address from which the first server is reached.

    Blocks while it looks the server's name up. Nothing is sent: connecting a datagram socket only picks a route.
    """
    if options.publish_address:
        return options.publish_address
    server = urlsplit(options.servers[0])
    try:
        family, kind, _, _, target = socket.getaddrinfo(server.hostname, server.port or 80, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(target)
            return str(probe.getsockname()[0])
    except OSError:
        return ""
