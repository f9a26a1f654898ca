"""What the agent tells of its node: what the machine has, what of that is allocatable, and what runs containers.

Reserved for the system unless flags say what is allocatable: 5 % of the cpu (at least 100m), 5 % of the memory (at
least 256Mi) and 10 % of the process ids, each never more than half.
"""

import os
import platform
import socket
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

from agent.driver import DriverInfo
from agent.options import AgentOptions
from manifests.containers import Resources
from manifests.nodes import NodeFacts

PROC = Path("/proc")
_LEAST_CPU_M, _LEAST_MEMORY_BYTES = 100, 256 * 2**20
_ATTRIBUTES = ("cgroup.version", "runtimes", "storage", "live-restore")  # of the driver's, those worth a constraint


def read_boot_id() -> str:
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def machine_resources() -> Resources:
    """Return all that the machine has."""
    memory_kb = next(
        int(line.split()[1]) for line in (PROC / "meminfo").read_text().splitlines() if line.startswith("MemTotal:")
    )
    pids = min(int((PROC / "sys/kernel" / name).read_text()) for name in ("pid_max", "threads-max"))
    return Resources.of(cpu_m=(os.cpu_count() or 1) * 1000, memory_bytes=memory_kb * 1024, pids=min(pids, 4_194_304))


def capacity_of(options: AgentOptions, machine: Resources) -> Resources:
    return machine.model_copy(update=_given(options))


def allocatable_of(options: AgentOptions, machine: Resources) -> Resources:
    """Return what may be reserved: exactly what the flags say, else the machine's less what the system keeps."""
    reserved = {
        "cpu_m": max(machine.cpu_m // 20, _LEAST_CPU_M),
        "memory_bytes": max(machine.memory_bytes // 20, _LEAST_MEMORY_BYTES),
        "pids": machine.pids // 10,
    }
    left = {name: getattr(machine, name) - min(keep, getattr(machine, name) // 2) for name, keep in reserved.items()}
    return Resources.of(**(left | _given(options)))


def _given(options: AgentOptions) -> dict[str, int]:
    flags = {"cpu_m": options.cpu_m, "memory_bytes": options.memory_bytes, "pids": options.pids}
    return {name: value for name, value in flags.items() if value is not None}


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


def node_facts(options: AgentOptions, *, agent_id: str, address: str, driver: DriverInfo | None) -> NodeFacts:
    """Return the facts as of now; without a driver's while its manager doesn't answer."""
    machine = machine_resources()
    attributes = {
        "arch": platform.machine(),
        "hostname": socket.gethostname(),
        "kernel": platform.release(),
        "os": platform.system().lower(),
    }
    if driver is not None:
        known = {name: driver.attributes[name] for name in _ATTRIBUTES if name in driver.attributes}
        attributes |= {"driver": driver.name, "driver.version": driver.version} | known
    return NodeFacts(
        name=options.name,
        agent_id=agent_id,
        boot_id=read_boot_id(),
        agent_version=version("wherry"),
        address=address,
        labels=dict(options.labels),
        attributes=attributes,
        capacity=capacity_of(options, machine),
        allocatable=allocatable_of(options, machine),
    )
