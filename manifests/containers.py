"""How containers run, alone or in a group: image, command, resources, ports, health checks, restarts and stop."""

import operator
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Literal, Self, cast

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from manifests.base import Bytes, Cpu, Duration, FieldError, Flag, Model, Name, Port, Text, checked_text
from manifests.isolation import LEAST_TMPFS_BYTES, CapabilitiesSpec, TmpfsSpec, UlimitsSpec, refuse_shared_places
from manifests.permissions import BASE_CAPABILITIES, CAPABILITY, NEW_PRIVILEGES, UNCONFINED, Permission
from manifests.volumes import MountSpec

DEFAULT_CPU_M = 100
DEFAULT_MEMORY_BYTES = 64 * 2**20
DEFAULT_PIDS = 128
DEFAULT_DISK_BYTES = 64 * 2**20
UNCOUNTED_BYTES = 2**50
LEAST_MEMORY_BYTES = 6 * 2**20  # the least that container managers accept


def _env_text(value: object) -> object:
    if isinstance(value, bool | float):
        shown = str(value).lower() if isinstance(value, bool) else str(value)
        raise ValueError(f"an environment variable is text: put {shown} in quotes")
    return str(value) if isinstance(value, int) else value


EnvName = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,254}\z",
        description="the name of an environment variable: up to 255 letters, digits, '_', '.' and '-', no digit first",
    ),
]
EnvValue = Annotated[str, BeforeValidator(_env_text), AfterValidator(checked_text)]
PORT_OF_A_CHECK = "the name or the number of a container port"
Pids = Annotated[int, Field(strict=True, ge=1, le=4_194_304)]
DeviceKind = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9](?:[-A-Za-z0-9_./]{0,62}[A-Za-z0-9])?\z",
        description="a kind of devices, such as nvidia.com/gpu",
    ),
]
DeviceCount = Annotated[int, Field(strict=True, ge=1, le=1024)]


class Resources(Model):
    """Amounts of what a node has. In a manifest: the reservation, which the scheduler counts."""

    cpu_m: Cpu = Field(DEFAULT_CPU_M, alias="cpu")
    memory_bytes: Bytes = Field(DEFAULT_MEMORY_BYTES, alias="memory")
    pids: Pids = DEFAULT_PIDS
    disk_bytes: Bytes = Field(DEFAULT_DISK_BYTES, alias="disk")
    devices: dict[DeviceKind, DeviceCount] = Field(default_factory=dict)  # how many of each kind

    def __add__(self, other: "Resources") -> "Resources":
        return self._combined(other, operator.add)

    def most(self, other: "Resources") -> "Resources":
        """Return the larger of both in each amount."""
        return self._combined(other, max)

    @classmethod
    def of(
        cls,
        *,
        cpu_m: int,
        memory_bytes: int,
        pids: int,
        disk_bytes: int = DEFAULT_DISK_BYTES,
        devices: Mapping[str, int] | None = None,
    ) -> Self:
        """Return amounts given in their units. (Validation would read a bare number as cores, as people write them.)"""
        made = cls.model_construct(
            cpu_m=cpu_m, memory_bytes=memory_bytes, pids=pids, disk_bytes=disk_bytes, devices=dict(devices or {})
        )
        return cast("Self", made)

    def _combined(self, other: "Resources", combine: Callable[[int, int], int]) -> "Resources":
        kinds = sorted(self.devices.keys() | other.devices.keys())
        return Resources.of(
            cpu_m=combine(self.cpu_m, other.cpu_m),
            memory_bytes=combine(self.memory_bytes, other.memory_bytes),
            pids=combine(self.pids, other.pids),
            disk_bytes=combine(self.disk_bytes, other.disk_bytes),
            devices={kind: combine(self.devices.get(kind, 0), other.devices.get(kind, 0)) for kind in kinds},
        )


class NodeResources(Resources):
    """What a node has. One whose agent says nothing of its disk has as much as anybody asks for."""

    disk_bytes: Bytes = Field(UNCOUNTED_BYTES, alias="disk")


Weight = Annotated[int, Field(strict=True, ge=1, le=10_000)]


class LimitsSpec(Model):
    """What the cgroup enforces, where it differs from the reservation; and what counts only where something is short.

    Weights are those of cgroup v2: 100 is everybody's, and who has 200 gets twice as much of what isn't enough for all.
    """

    cpu_m: Cpu | None = Field(None, alias="cpu")
    memory_bytes: Bytes | None = Field(None, alias="memory")
    pids: Pids | None = None
    cpu_weight: Weight | None = None
    io_weight: Weight | None = None  # where the node's kernel has it
    memory_soft_bytes: Bytes | None = Field(None, alias="memorySoft")  # above it, the kernel takes memory here first


class PortSpec(Model):
    """A port that the container listens on, and the host port where it is published, if any."""

    name: Name = "main"
    container: Port
    publish: Port | Literal["auto"] | None = Field(None, description="a host port from 1 to 65535, or auto")
    protocol: Literal["tcp", "udp"] = "tcp"


class HttpCheck(Model):
    """Healthy when a GET answers with a status from 200 to 399. Redirects aren't followed."""

    port: Port | Name = Field(description=PORT_OF_A_CHECK)
    path: Annotated[
        str, Field(pattern=r"^/[!-~]{0,1023}\z", description="a path that begins with / and has no spaces")
    ] = "/"


class TcpCheck(Model):
    """Healthy when a connection is accepted."""

    port: Port | Name = Field(description=PORT_OF_A_CHECK)


class GrpcCheck(Model):
    """Healthy when grpc.health.v1.Health/Check answers SERVING, without TLS."""

    port: Port | Name = Field(description=PORT_OF_A_CHECK)
    service: Annotated[str, Field(max_length=200)] = ""  # "": the server as a whole


class ExecCheck(Model):
    """Healthy when the command, run in the container, exits with 0."""

    command: tuple[Text, ...] = Field(min_length=1)


class CheckSpec(Model):
    """One check: exactly one of http, tcp, grpc and exec, every `interval`."""

    http: HttpCheck | None = None
    tcp: TcpCheck | None = None
    grpc: GrpcCheck | None = None
    exec_: ExecCheck | None = Field(None, alias="exec")
    initial_delay_s: Duration = Field(0.0, alias="initialDelay")
    interval_s: Duration = Field(5.0, alias="interval", ge=0.1)
    timeout_s: Duration = Field(1.0, alias="timeout", ge=0.01, le=300)
    failures: int = Field(3, strict=True, ge=1, le=100)
    successes: int = Field(1, strict=True, ge=1, le=100)

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [kind for kind in ("http", "tcp", "grpc", "exec_") if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"a check has exactly one of http, tcp, grpc and exec; this one has {len(given)}")
        return self

    @property
    def dialled(self) -> tuple[str, HttpCheck | TcpCheck | GrpcCheck] | None:
        """Return what is dialled and its field's name; None for a command."""
        found = (("http", self.http), ("tcp", self.tcp), ("grpc", self.grpc))
        return next(((name, check) for name, check in found if check is not None), None)


class HealthSpec(Model):
    """readiness says whether it can serve; liveness, once failed, restarts it. Both begin once startup has passed.

    Startup is for what takes long to begin: it restarts it as liveness does, but isn't asked again once it has passed.
    """

    startup: CheckSpec | None = None
    readiness: CheckSpec | None = None
    liveness: CheckSpec | None = None


class RestartPolicy(StrEnum):
    ALWAYS = "always"
    ON_FAILURE = "onFailure"
    NEVER = "never"


class RestartSpec(Model):
    """Restarts in place: at once after the first exit, then after a doubling backoff.

    The backoff begins anew once an attempt has been healthy for twice `maxBackoff`, or for `window` if that is shorter.
    More than `attempts` exits within `window` end the allocation as failed; the leader then reschedules it. Without a
    policy of their own, sidecars are always restarted, and init containers until they have succeeded.
    """

    policy: RestartPolicy | None = None  # None: always for services and daemons, onFailure for jobs
    backoff_s: Duration = Field(1.0, alias="backoff", ge=0.1)
    max_backoff_s: Duration = Field(60.0, alias="maxBackoff", ge=0.1)
    attempts: int = Field(5, strict=True, ge=0, le=1000)
    window_s: Duration = Field(600.0, alias="window", ge=1)


class StopSpec(Model):
    """The signal that asks it to end, and how long it may take before SIGKILL."""

    signal: Annotated[
        str, Field(pattern=r"^SIG[A-Z0-9+]{1,12}\z", description="a signal's name, such as SIGTERM or SIGINT")
    ] = "SIGTERM"
    grace_s: Duration = Field(10.0, alias="grace", le=3600)


FilePath = Annotated[str, Field(pattern=r"^/[!-~]{1,1023}\z", description="an absolute path without spaces")]


class ConfigMount(Model):
    """A config of the namespace, as a file at an absolute path or as an environment variable."""

    name: Name
    path: Annotated[str, Field(pattern=r"^/[!-~]{1,1023}\z", description="an absolute path without spaces")] | None = (
        None
    )
    env: EnvName | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.path is None) == (self.env is None):
            raise ValueError("a config goes to exactly one place: write path (a file) or env (a variable)")
        if self.path is not None and ".." in self.path.split("/"):
            raise FieldError(("path",), "must not contain '..'")
        return self


class PullPolicy(StrEnum):
    ALWAYS = "always"
    IF_MISSING = "ifMissing"
    NEVER = "never"


Image = Annotated[
    Text,
    Field(
        min_length=1,
        max_length=512,
        pattern=r"^[A-Za-z0-9][-A-Za-z0-9_./:@]*\z",
        description="the name of an image, such as nginx:1.27",
    ),
]


class ContainerSpec(Model):
    """The fields of a container, written directly in a workload's `spec`, or in each entry of its `containers`."""

    image: Image
    pull: PullPolicy = PullPolicy.IF_MISSING
    command: tuple[Text, ...] = ()
    args: tuple[Text, ...] = ()
    env: dict[EnvName, EnvValue] = Field(default_factory=dict)
    working_dir: Text = ""
    user: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9_.:-]{0,64}\z", description="a user or user:group, by name or number")
    ] = ""
    read_only_root: Flag = False
    capabilities: CapabilitiesSpec | None = None
    no_new_privileges: Flag = True
    seccomp: Literal["default", "unconfined"] = "default"
    mounts: tuple[MountSpec, ...] = Field((), max_length=32)
    tmpfs: tuple[TmpfsSpec, ...] = Field((), max_length=32)
    shm_size_bytes: Annotated[Bytes, Field(ge=LEAST_TMPFS_BYTES)] | None = Field(None, alias="shmSize")
    network: Literal["bridge", "host"] = "bridge"
    resources: Resources = Resources()
    limits: LimitsSpec = LimitsSpec()
    ulimits: UlimitsSpec = UlimitsSpec()
    ports: tuple[PortSpec, ...] = Field((), max_length=32)
    configs: tuple[ConfigMount, ...] = Field((), max_length=32)
    health: HealthSpec = HealthSpec()
    restart: RestartSpec = RestartSpec()
    stop: StopSpec = StopSpec()

    def limit(self) -> Resources:
        """Return what the cgroup enforces: the limits, and the reservation where there is none."""
        given = {name: value for name, value in self.limits if value is not None and name in Resources.model_fields}
        return self.resources.model_copy(update=given)

    def permissions(self) -> tuple[Permission, ...]:
        """Return what the container needs that a node must allow."""
        added = self.capabilities.add if self.capabilities else ()
        return (
            *(f"{CAPABILITY}{name}" for name in added if name not in BASE_CAPABILITIES),
            *((UNCONFINED,) if self.seccomp == "unconfined" else ()),
            *(() if self.no_new_privileges else (NEW_PRIVILEGES,)),
        )

    def port_number(self, port: int | str) -> int:
        """Return the container port of that name or number."""
        return port if isinstance(port, int) else next(p.container for p in self.ports if p.name == port)

    @model_validator(mode="after")
    def _limits_hold_the_reservation(self) -> Self:
        for name in ("cpu_m", "memory_bytes", "pids"):
            limit, reserved = getattr(self.limits, name), getattr(self.resources, name)
            if limit is not None and limit < reserved:
                raise FieldError(
                    ("limits", name.split("_")[0]),
                    "is below the reservation in resources: raise this one or lower the other",
                )
        if self.limit().memory_bytes < LEAST_MEMORY_BYTES:
            raise FieldError(("resources", "memory"), "is below 6Mi, the least that container managers accept")
        soft = self.limits.memory_soft_bytes
        if soft is not None and soft > self.limit().memory_bytes:
            raise FieldError(("limits", "memorySoft"), "is above the limit of memory: it would never count")
        return self

    @model_validator(mode="after")
    def _ports_are_distinct(self) -> Self:
        names = [p.name for p in self.ports]
        containers = [f"{p.container}/{p.protocol}" for p in self.ports]
        published = [f"{p.publish}/{p.protocol}" if isinstance(p.publish, int) else None for p in self.ports]
        _refuse_twice("name", "name", names)
        _refuse_twice("container", "container port", containers)
        _refuse_twice("publish", "published port", published)
        if self.network == "host":
            at = next((i for i, p in enumerate(self.ports) if p.publish is not None), None)
            if at is not None:
                raise FieldError(
                    ("ports", at, "publish"),
                    "has no meaning with network: host, where each container port is a host port; leave it out",
                )
        return self

    @model_validator(mode="after")
    def _mounts_have_places_of_their_own(self) -> Self:
        configs = [
            (("configs", at, "path" if mount.path is not None else "env"), mount.path or mount.env or "")
            for at, mount in enumerate(self.configs)
        ]
        tmpfs = [(("tmpfs", at, "path"), mount.path) for at, mount in enumerate(self.tmpfs)]
        mounts = [(("mounts", at, "path"), mount.path) for at, mount in enumerate(self.mounts)]
        refuse_shared_places([*configs, *tmpfs, *mounts], self.env)
        return self

    @model_validator(mode="after")
    def _checks_name_known_ports(self) -> Self:
        known = {p.name for p in self.ports}
        for role in ("startup", "readiness", "liveness"):
            check: CheckSpec | None = getattr(self.health, role)
            kind, probe = (check and check.dialled) or ("", None)
            if probe and isinstance(probe.port, str) and probe.port not in known:
                have = ", ".join(sorted(known)) or "none"
                raise FieldError(
                    ("health", role, kind, "port"), f"names the port '{probe.port}', but the ports here are: {have}"
                )
        return self


class MemberSpec(ContainerSpec):
    """One container of a group: all of them share one network namespace, and live and end together."""

    name: Name
    sidecar: Flag = False  # starts before the others and stops after them; a job doesn't wait for its end

    @model_validator(mode="after")
    def _shares_the_network(self) -> Self:
        if is_given(self, "network"):
            raise FieldError(("network",), "is shared by all containers of a group: write it once, in spec")
        return self


class InitContainerSpec(MemberSpec):
    """A container that must succeed before the next one, and then the group, starts."""

    @model_validator(mode="after")
    def _ends_by_itself(self) -> Self:
        for field in ("sidecar", "health", "ports"):
            if is_given(self, field):
                raise FieldError((field,), "has no meaning in an init container: it ends before the others start")
        return self


def is_given(model: Model, field: str) -> bool:
    """Say whether a field says something else than its default. (Stored records spell defaults out.)"""
    return bool(getattr(model, field) != type(model).model_fields[field].get_default(call_default_factory=True))


def _refuse_twice(field: str, what: str, values: Sequence[str | None]) -> None:
    """Raise at the second port that has the same value as an earlier one."""
    for at, value in enumerate(values):
        if value is not None and value in values[:at]:
            raise FieldError(("ports", at, field), f"two ports have the {what} '{value}': give each its own")
