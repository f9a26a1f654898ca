"""What the driver is to create for one attempt of an allocation: name, labels, environment, limits and ports. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile

from agent.admission import not_allowed
from agent.config_files import config_env
from agent.driver import ContainerSpec, Isolation, Limits, Mount, PublishedPort, Tmpfs
from agent.ownership import Identity, Ownership, order_label
from agent.tracked import Role, Tracked
from manifests.containers import ContainerSpec as ManifestSpec
from manifests.containers import Resources
from manifests.errors import InvalidError
from manifests.permissions import Permission, lacking
from manifests.workloads import MAIN

_MOST_HOSTNAME = 63


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all containers of this node have in common."""

    cluster: str
    node: str
    address: str  # on which ports are published, "" for all
    cgroup_parent: str
    allocatable: Resources
    allowed: frozenset[Permission] = frozenset()  # by the node's operator
    generation: int = 0  # of the store, which is obeyed now


def container_name(cluster: str, node: str, allocation: str, attempt: int, container: str = MAIN) -> str:
    """Return the name that is unique for the attempt, and the same whenever it is asked for."""
    of_a_group = "" if container == MAIN else f".{container}"  # no id of an allocation has a dot
    return f"wherry-{cluster[:8]}-{node}-{allocation}{of_a_group}-{attempt}"


def container_spec(
    tracked: Tracked, around: Surroundings, ownership: Ownership, mounts: tuple[Mount, ...] = ()
) -> ContainerSpec:
    """Raises InvalidError when a config that it needs was not sent, or the node doesn't allow what it asks for."""
    check_allowed(tracked, around)
    spec, allocation, attempt = tracked.spec, tracked.assigned.allocation, tracked.status.attempt
    identity = Identity(around.cluster, around.node, allocation.id, allocation.version, attempt, tracked.name)
    workload, is_host = tracked.assigned.workload.spec, tracked.has_host_network
    holds_network = tracked.role in (Role.ALONE, Role.SANDBOX) and not is_host
    return ContainerSpec(
        name=container_name(around.cluster, around.node, allocation.id, attempt, tracked.name),
        image=tracked.image,
        command=spec.command,
        args=spec.args,
        env={}
        if tracked.role is Role.SANDBOX
        else {
            **spec.env,
            **config_env(tracked),
            **_own_env(tracked, around),
        },
        labels={**ownership.labels(identity), **order_label(around.generation, tracked.assigned.fence)},
        limits=limits_of(spec, around.allocatable),
        ports=_published(tracked, around) if holds_network else (),
        host_network=is_host,
        working_dir=spec.working_dir,
        user=spec.user,
        read_only_root=spec.read_only_root,
        stop_signal=spec.stop.signal,
        cgroup_parent=around.cgroup_parent,
        hostname="" if is_host else allocation.id[-_MOST_HOSTNAME:].lstrip("-"),
        network_of=tracked.network_of,
        mounts=mounts,
        devices=_devices(tracked),
        runtime=tracked.assigned.workload.spec.runtime,
        isolation=_isolation(spec, workload.sysctls.given() if holds_network else {}),
    )


def limits_of(spec: ManifestSpec, allocatable: Resources) -> Limits:
    limit, limits = spec.limit(), spec.limits
    return Limits(
        # The kernel refuses a quota above that of the parent cgroup, which is the node's allocatable.
        cpu_m=min(limit.cpu_m, allocatable.cpu_m),
        memory_bytes=limit.memory_bytes,
        pids=limit.pids,
        cpu_weight=limits.cpu_weight,
        io_weight=limits.io_weight,
        memory_soft_bytes=limits.memory_soft_bytes,
    )


def check_allowed(tracked: Tracked, around: Surroundings) -> None:
    """Hold the ceiling here once more, where every container passes: one may have been admitted under a higher one."""
    if forbidden := lacking(tracked.assigned.workload.spec.all_permissions(), around.allowed):
        raise InvalidError(f"cannot create {tracked.id}", why=not_allowed(forbidden))


def _isolation(spec: ManifestSpec, sysctls: Mapping[str, str]) -> Isolation:
    return Isolation(
        capabilities=spec.capabilities.given() if spec.capabilities else None,
        ulimits=spec.ulimits.given(),
        tmpfs=tuple(Tmpfs(mount.path, mount.size_bytes) for mount in spec.tmpfs),
        shm_bytes=spec.shm_size_bytes,
        sysctls=dict(sysctls),
        may_gain_privileges=not spec.no_new_privileges,
        is_confined=spec.seccomp == "default",
    )


def _devices(tracked: Tracked) -> tuple[str, ...]:
    """Return the paths of the container's devices: those of a group take theirs in the order in which they stand.

    Init containers have ended before the others start, so each takes from the beginning.
    """
    of_allocation = tracked.assigned.allocation.devices
    if not of_allocation:
        return ()
    members = tracked.assigned.workload.spec.members
    before = takewhile(lambda name: name != tracked.name, members) if tracked.name in members else ()
    taken = [members[name].resources.devices for name in before]
    paths: list[str] = []
    for kind, instances in of_allocation.items():
        start = sum(devices.get(kind, 0) for devices in taken)
        paths += instances[start : start + tracked.spec.resources.devices.get(kind, 0)]
    return tuple(paths)


def _published(tracked: Tracked, around: Surroundings) -> tuple[PublishedPort, ...]:
    return tuple(PublishedPort(p.container, p.host, around.address, p.protocol) for p in tracked.ports)


def _own_env(tracked: Tracked, around: Surroundings) -> dict[str, str]:
    """Return what tells the process who and where it is; it wins over the manifest's variables of the same names."""
    allocation = tracked.assigned.allocation
    ports = {f"WHERRY_PORT_{p.name.upper().replace('-', '_')}": str(p.host) for p in allocation.ports}
    return {
        "WHERRY_ALLOCATION": allocation.id,
        "WHERRY_FENCE": str(tracked.assigned.fence),
        "WHERRY_ATTEMPT": str(tracked.status.attempt),
        "WHERRY_CONTAINER": tracked.name,
        "WHERRY_INDEX": str(allocation.index),
        "WHERRY_NAMESPACE": allocation.workload.namespace,
        "WHERRY_NODE": around.node,
        "WHERRY_VERSION": str(allocation.version),
        "WHERRY_WORKLOAD": allocation.workload.name,
        **ports,
    }
