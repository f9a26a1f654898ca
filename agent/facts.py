"""What the agent tells of its node: what the machine has, what of that is allocatable, and what runs containers.

Reserved for the system unless flags say what is allocatable: 5 % of the cpu (at least 100m), 5 % of the memory (at
least 256Mi), and 10 % of the process ids and of the disk, each never more than half.
"""

from agent.driver import DriverInfo
from agent.machine import Machine
from agent.options import AgentOptions
from foundation.version import VERSION
from manifests.containers import NodeResources
from manifests.nodes import NodeFacts

_LEAST_CPU_M, _LEAST_MEMORY_BYTES = 100, 256 * 2**20
# Of the driver's, those worth a constraint.
_ATTRIBUTES = ("cgroup.version", "runtimes", "storage", "live-restore", "network")


def capacity_of(options: AgentOptions, machine: NodeResources) -> NodeResources:
    counts = {kind: len(paths) for kind, paths in options.devices.items()}
    return machine.model_copy(update={**_given(options), "devices": counts})


def allocatable_of(options: AgentOptions, machine: NodeResources) -> NodeResources:
    """Return what may be reserved: exactly what the flags say, else the machine's less what the system keeps."""
    reserved = {
        "cpu_m": max(machine.cpu_m // 20, _LEAST_CPU_M),
        "memory_bytes": max(machine.memory_bytes // 20, _LEAST_MEMORY_BYTES),
        "pids": machine.pids // 10,
        "disk_bytes": machine.disk_bytes // 10,
    }
    left = {name: getattr(machine, name) - min(keep, getattr(machine, name) // 2) for name, keep in reserved.items()}
    return NodeResources.of(**(left | _given(options)))


def offered_of(options: AgentOptions, machine: NodeResources) -> NodeResources:
    """Return what may be reserved: what is allocatable, and its cpu as many times over as the operator allows."""
    allocatable = allocatable_of(options, machine)
    counts = {kind: len(paths) for kind, paths in options.devices.items()}
    return allocatable.model_copy(update={"cpu_m": int(allocatable.cpu_m * options.cpu_overcommit), "devices": counts})


def _given(options: AgentOptions) -> dict[str, int]:
    flags = {
        "cpu_m": options.cpu_m,
        "memory_bytes": options.memory_bytes,
        "pids": options.pids,
        "disk_bytes": options.disk_bytes,
    }
    return {name: value for name, value in flags.items() if value is not None}


def _runtimes(driver: DriverInfo) -> dict[str, str]:
    """Return an attribute for each OCI runtime, its version, so that a workload may ask for one."""
    names = filter(None, driver.attributes.get("runtimes", "").split(","))
    return {f"runtime.{name}": driver.attributes.get(f"runtime.{name}", "of unknown version") for name in names}


def node_facts(
    options: AgentOptions, machine: Machine, *, agent_id: str, address: str, driver: DriverInfo | None
) -> NodeFacts:
    """Return the facts as of now; without a driver's while its manager doesn't answer."""
    resources, attributes = machine.resources(), dict(machine.attributes())
    if driver is not None:
        known = {name: driver.attributes[name] for name in _ATTRIBUTES if name in driver.attributes}
        attributes |= {"driver": driver.name, "driver.version": driver.version} | known | _runtimes(driver)
    if options.allow:
        attributes["allows"] = ",".join(sorted(options.allow))
    return NodeFacts(
        name=options.name,
        agent_id=agent_id,
        boot_id=machine.boot_id(),
        agent_version=VERSION,
        address=address,
        labels=dict(options.labels),
        attributes=attributes,
        capacity=capacity_of(options, resources),
        allocatable=offered_of(options, resources),
        devices=dict(options.devices),
    )
