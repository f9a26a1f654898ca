"""Between the driver's words and the messages of the CRI: pure, no I/O. Used by the cri modules alone.

Every pod is one of two kinds: `single` belongs to one container and lives as long, `holder` is a sandbox in whose
network others live, and is a container of its own to the agent. What a runtime doesn't give back as it was written
(the image's name, the network) is kept in annotations.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from agent.driver import (
    SANDBOX_IMAGE,
    Container,
    ContainerId,
    ContainerSpec,
    ContainerState,
    Limits,
    PublishedPort,
)
from agent.drivers.cri_stubs import cri_pb2 as pb
from agent.drivers.weights import cpu_shares
from manifests.errors import InvalidError

NAMESPACE = "wherry"  # of pods; Kubernetes' own never has this one on a node that Wherry drives
POD_NAME, POD_KIND = "wherry.cri/name", "wherry.cri/kind"  # labels of pods
HOLDER, SINGLE = "holder", "single"
IMAGE, NETWORK, PIDS, PORTS, REFUSED = (f"wherry.cri/{key}" for key in ("image", "network", "pids", "ports", "refused"))
SOFT_MEMORY = "wherry.cri/soft-memory"
OWN, HOST, JOINED = "own", "host", "joined:"
NETWORK_READY = "NetworkReady"  # a condition of the runtime
LOG_FILE = "{name}.log"
CPU_PERIOD_US = 100_000
LEAST_CPU_QUOTA_US = 1_000  # the kernel refuses less: 10 millicores
_OOM = "OOMKilled"
_STATES = {
    pb.CONTAINER_CREATED: ContainerState.CREATED,
    pb.CONTAINER_RUNNING: ContainerState.RUNNING,
    pb.CONTAINER_EXITED: ContainerState.EXITED,
    pb.CONTAINER_UNKNOWN: ContainerState.RUNNING,  # it lost sight of it: not known to have ended
}
# What container managers hide of /proc and /sys: the CRI leaves it to its client.
_MASKED = (
    *("/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list"),
    *("/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"),
)
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def is_holder(spec: ContainerSpec) -> bool:
    return spec.image == SANDBOX_IMAGE


def to_pod(
    spec: ContainerSpec, *, attempt: int, log_root: str, cgroup_parent: str, refused: str
) -> pb.PodSandboxConfig:
    """Return the pod of a container, or the holder that the spec asks for. `refused`: why it publishes no port."""
    kind = HOLDER if is_holder(spec) else SINGLE
    labels = {POD_NAME: spec.name, POD_KIND: kind}
    annotations = {NETWORK: HOST if spec.host_network else OWN, PORTS: json.dumps(_port_list(spec.ports))}
    if refused:
        annotations[REFUSED] = refused
    config = pb.PodSandboxConfig(
        metadata=pb.Metadata(name=spec.name, uid=spec.name, namespace=NAMESPACE, attempt=attempt),
        hostname="" if spec.host_network else spec.hostname,  # the CRI has no name of one's own on the host's network
        log_directory=f"{log_root}/{spec.name}",
        labels={**(spec.labels if kind == HOLDER else {}), **labels},
        annotations=annotations,
        linux=pb.LinuxPodSandboxConfig(
            cgroup_parent=cgroup_parent,
            sysctls=spec.isolation.sysctls,
            security_context=pb.LinuxSandboxSecurityContext(
                namespace_options=_namespaces(is_on_host=spec.host_network), seccomp=pb.SecurityProfile()
            ),
        ),
    )
    if not spec.host_network and not refused:
        config.port_mappings.extend(_mapping(port) for port in spec.ports)
    return config


def to_joined_pod(of: pb.PodSandboxStatus, *, log_root: str, cgroup_parent: str) -> pb.PodSandboxConfig:
    """Return what a container tells of the holder that it joins."""
    return pb.PodSandboxConfig(
        metadata=of.metadata,
        log_directory=f"{log_root}/{of.metadata.name}",
        labels=of.labels,
        annotations=of.annotations,
        linux=pb.LinuxPodSandboxConfig(
            cgroup_parent=cgroup_parent,
            security_context=pb.LinuxSandboxSecurityContext(
                namespace_options=_namespaces(is_on_host=of.annotations[NETWORK] == HOST)
            ),
        ),
    )


def to_container_config(spec: ContainerSpec, pod: pb.PodSandboxConfig, *, is_v2: bool) -> pb.ContainerConfig:
    """Return the container of that pod. `is_v2`: the limit of processes is set by the runtime, else by the agent."""
    network = f"{JOINED}{spec.network_of}" if spec.network_of is not None else pod.annotations[NETWORK]
    annotations = {IMAGE: spec.image, NETWORK: network, PIDS: str(spec.limits.pids)}
    if spec.limits.memory_soft_bytes is not None:
        annotations[SOFT_MEMORY] = str(spec.limits.memory_soft_bytes)
    if refused := pod.annotations.get(REFUSED):
        annotations[REFUSED] = refused
    return pb.ContainerConfig(
        metadata=pb.ContainerMetadata(name=spec.name),
        image=pb.ImageSpec(image=spec.image),
        command=spec.command,
        args=spec.args,
        working_dir=spec.working_dir,
        envs=[pb.KeyValue(key=name, value=value) for name, value in spec.env.items()],
        mounts=[pb.Mount(container_path=m.target, host_path=m.source, readonly=m.read_only) for m in spec.mounts],
        devices=[pb.Device(container_path=path, host_path=path, permissions="rwm") for path in spec.devices],
        labels=spec.labels,
        annotations=annotations,
        log_path=LOG_FILE.format(name=spec.name),
        linux=pb.LinuxContainerConfig(
            resources=to_resources(spec.limits, is_v2=is_v2),
            security_context=_security(spec, pod.linux.security_context.namespace_options),
        ),
    )


def to_resources(limits: Limits, *, is_v2: bool) -> pb.LinuxContainerResources:
    """Return the cgroup's limits, as far as the CRI has words for them."""
    unified = {"pids.max": str(limits.pids)}
    if limits.memory_soft_bytes is not None:
        unified["memory.low"] = str(limits.memory_soft_bytes)
    return pb.LinuxContainerResources(
        cpu_period=CPU_PERIOD_US,
        cpu_quota=max(LEAST_CPU_QUOTA_US, limits.cpu_m * CPU_PERIOD_US // 1000),
        cpu_shares=cpu_shares(limits.cpu_weight, cgroup_v2=is_v2) if limits.cpu_weight else 0,
        memory_limit_in_bytes=limits.memory_bytes,
        memory_swap_limit_in_bytes=limits.memory_bytes,  # memory and swap together
        unified=unified if is_v2 else {},
    )


def check_isolation(spec: ContainerSpec) -> None:
    """Raise InvalidError for what the CRI has no word for: it would be left out without one."""
    isolation = spec.isolation
    given = {"ulimits": isolation.ulimits, "tmpfs": isolation.tmpfs, "shmSize": isolation.shm_bytes}
    if asked := [field for field, value in given.items() if value]:
        raise InvalidError(
            f"cannot create container {spec.name}",
            why=f"driver cri can't give it {' and '.join(asked)}: the CRI has no word for it",
            fix="Leave it out, or have it placed elsewhere: `constraints: [node.attributes.driver != cri]`.",
        )


def _security(spec: ContainerSpec, namespaces: pb.NamespaceOption) -> pb.LinuxContainerSecurityContext:
    isolation = spec.isolation
    capabilities = pb.Capability(drop_capabilities=["NET_RAW"])  # it forges packets of other containers
    if isolation.capabilities is not None:
        capabilities = pb.Capability(drop_capabilities=["ALL"], add_capabilities=isolation.capabilities)
    confined = pb.SecurityProfile.RuntimeDefault if isolation.is_confined else pb.SecurityProfile.Unconfined
    context = pb.LinuxContainerSecurityContext(
        capabilities=capabilities,
        namespace_options=namespaces,
        readonly_rootfs=spec.read_only_root,
        no_new_privs=not isolation.may_gain_privileges,
        masked_paths=_MASKED,
        readonly_paths=_READ_ONLY,
        seccomp=pb.SecurityProfile(profile_type=confined),
    )
    user, _, group = spec.user.partition(":")
    if user.isdecimal() and (group.isdecimal() or not group):
        context.run_as_user.value = int(user)
        if group:
            context.run_as_group.value = int(group)
    elif spec.user:
        context.run_as_username = spec.user
    return context


def _namespaces(*, is_on_host: bool) -> pb.NamespaceOption:
    return pb.NamespaceOption(network=pb.NODE if is_on_host else pb.POD, pid=pb.CONTAINER)


def _mapping(port: PublishedPort) -> pb.PortMapping:
    return pb.PortMapping(
        protocol=port.protocol.upper(),
        container_port=port.container_port,
        host_port=port.host_port,
        host_ip=port.host_address,
    )


def _port_list(ports: Iterable[PublishedPort]) -> list[list[Any]]:
    return [[port.protocol, port.host_address, port.host_port] for port in ports]


def taken_port(wanted: Iterable[PublishedPort], annotations: Iterable[Mapping[str, str]]) -> PublishedPort | None:
    """Return a port that one of the pods with these annotations publishes already."""
    held = [tuple(port) for found in annotations for port in json.loads(found.get(PORTS, "[]"))]
    everywhere = ("", "0.0.0.0", "::")
    for port in wanted:
        for protocol, address, number in held:
            is_same = address == port.host_address or address in everywhere or port.host_address in everywhere
            if (protocol, number) == (port.protocol, port.host_port) and is_same:
                return port
    return None


def to_container(answer: pb.ContainerStatusResponse, *, address: str = "") -> Container:
    """Return the container that ContainerStatus, asked to be verbose, describes."""
    status, network = answer.status, answer.status.annotations.get(NETWORK, "")
    state = _STATES[status.state]
    if state is ContainerState.EXITED and not status.started_at:
        state = ContainerState.CREATED  # it never ran: its exit code means nothing
    has_ended = state is ContainerState.EXITED
    return Container(
        id=ContainerId(status.id),
        name=status.metadata.name,
        labels=dict(status.labels),
        image=status.annotations.get(IMAGE, ""),
        state=state,
        pid=pid_of(answer.info) if state is ContainerState.RUNNING else 0,
        exit_code=status.exit_code if has_ended else None,
        oom_killed=status.reason == _OOM,
        error=(status.message or status.annotations.get(REFUSED, "")) if state is ContainerState.CREATED else "",
        started_s=status.started_at / 1e9,
        finished_s=max(status.started_at, status.finished_at) / 1e9 if has_ended else 0.0,
        address=address,
        network_of=network.removeprefix(JOINED) if network.startswith(JOINED) else "",
    )


def holder_to_container(answer: pb.PodSandboxStatusResponse, *, ended_s: float) -> Container:
    """Return the holder that PodSandboxStatus describes. How and when one ended is nowhere: `ended_s`, and SIGKILL."""
    status = answer.status
    runs = status.state == pb.SANDBOX_READY
    return Container(
        id=ContainerId(status.id),
        name=status.metadata.name,
        labels={name: value for name, value in status.labels.items() if name not in (POD_NAME, POD_KIND)},
        image=SANDBOX_IMAGE,
        state=ContainerState.RUNNING if runs else ContainerState.EXITED,
        pid=pid_of(answer.info) if runs else 0,
        exit_code=None if runs else 137,
        started_s=status.created_at / 1e9,
        finished_s=0.0 if runs else max(ended_s, status.created_at / 1e9),
        address=status.network.ip if runs and status.annotations.get(NETWORK) != HOST else "",
    )


def pid_of(info: Mapping[str, str]) -> int:
    return int(_info(info).get("pid") or 0)


def pod_of(info: Mapping[str, str]) -> str:
    """Return the id of the pod that a container's verbose status names."""
    return str(_info(info).get("sandboxID") or "")


def _info(info: Mapping[str, str]) -> dict[str, Any]:
    try:
        found = json.loads(info.get("info", "{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def runtimes_of(info: Mapping[str, str]) -> tuple[list[str], bool]:
    """Return the OCI runtimes that containerd's verbose status names, and whether systemd keeps the cgroups."""
    try:
        containerd = json.loads(info.get("config", "{}")).get("containerd") or {}
    except ValueError:
        containerd = {}
    runtimes: dict[str, Any] = containerd.get("runtimes") or {}
    default = runtimes.get(containerd.get("defaultRuntimeName", ""), {})
    return sorted(runtimes), bool((default.get("options") or {}).get("SystemdCgroup"))
