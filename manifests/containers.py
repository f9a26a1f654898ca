"""How one container runs: image, command, resources, ports, health checks, restarts and stop."""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from manifests.base import Bytes, Cpu, Duration, Model, Name, Port, Text

DEFAULT_CPU_M = 100
DEFAULT_MEMORY_BYTES = 64 * 2**20
DEFAULT_PIDS = 128
LEAST_MEMORY_BYTES = 6 * 2**20  # the least that container managers accept


def _env_text(value: object) -> object:
    if isinstance(value, bool | float):
        raise ValueError(f"an environment variable is text: put '{str(value).lower()}' in quotes")
    return str(value) if isinstance(value, int) else value


EnvName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,254}\z")]
EnvValue = Annotated[str, BeforeValidator(_env_text)]
Pids = Annotated[int, Field(strict=True, ge=1, le=4_194_304)]


class Resources(Model):
    """Amounts of what a node has. In a manifest: the reservation, which the scheduler counts."""

    cpu_m: Cpu = Field(DEFAULT_CPU_M, alias="cpu")
    memory_bytes: Bytes = Field(DEFAULT_MEMORY_BYTES, alias="memory")
    pids: Pids = DEFAULT_PIDS


class LimitsSpec(Model):
    """What the cgroup enforces, where it differs from the reservation."""

    cpu_m: Cpu | None = Field(None, alias="cpu")
    memory_bytes: Bytes | None = Field(None, alias="memory")
    pids: Pids | None = None


class PortSpec(Model):
    """A port that the container listens on, and the host port where it is published, if any."""

    name: Name = "main"
    container: Port
    publish: Port | Literal["auto"] | None = None
    protocol: Literal["tcp", "udp"] = "tcp"


class HttpCheck(Model):
    """Healthy when a GET answers with a status from 200 to 399. Redirects aren't followed."""

    port: Port | Name
    path: Annotated[str, Field(pattern=r"^/[!-~]{0,1023}\z")] = "/"


class TcpCheck(Model):
    """Healthy when a connection is accepted."""

    port: Port | Name


class ExecCheck(Model):
    """Healthy when the command, run in the container, exits with 0."""

    command: tuple[Text, ...] = Field(min_length=1)


class CheckSpec(Model):
    """One check: exactly one of http, tcp and exec, every `interval`."""

    http: HttpCheck | None = None
    tcp: TcpCheck | None = None
    exec_: ExecCheck | None = Field(None, alias="exec")
    initial_delay_s: Duration = Field(0.0, alias="initialDelay")
    interval_s: Duration = Field(5.0, alias="interval", ge=0.1)
    timeout_s: Duration = Field(1.0, alias="timeout", ge=0.01, le=300)
    failures: int = Field(3, strict=True, ge=1, le=100)
    successes: int = Field(1, strict=True, ge=1, le=100)

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [kind for kind in ("http", "tcp", "exec_") if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"a check has exactly one of http, tcp and exec; this one has {len(given)}")
        return self


class HealthSpec(Model):
    """readiness says whether it can serve; liveness, once failed, restarts it."""

    readiness: CheckSpec | None = None
    liveness: CheckSpec | None = None


class RestartPolicy(StrEnum):
    ALWAYS = "always"
    ON_FAILURE = "onFailure"
    NEVER = "never"


class RestartSpec(Model):
    """Restarts in place: at once after the first exit, then after a doubling backoff.

    More than `attempts` exits within `window` end the allocation as failed; the leader then reschedules it.
    """

    policy: RestartPolicy | None = None  # None: always for services and daemons, onFailure for jobs
    backoff_s: Duration = Field(1.0, alias="backoff", ge=0.1)
    max_backoff_s: Duration = Field(60.0, alias="maxBackoff", ge=0.1)
    attempts: int = Field(5, strict=True, ge=0, le=1000)
    window_s: Duration = Field(600.0, alias="window", ge=1)


class StopSpec(Model):
    """The signal that asks it to end, and how long it may take before SIGKILL."""

    signal: Annotated[str, Field(pattern=r"^SIG[A-Z0-9+]{1,12}\z")] = "SIGTERM"
    grace_s: Duration = Field(10.0, alias="grace", le=3600)


class PullPolicyName(StrEnum):
    ALWAYS = "always"
    IF_MISSING = "ifMissing"
    NEVER = "never"


class ContainerSpec(Model):
    """The fields of a container, written directly in a workload's `spec`."""

    image: Annotated[Text, Field(min_length=1, max_length=512, pattern=r"^[A-Za-z0-9][-A-Za-z0-9_./:@]*\z")]
    pull: PullPolicyName = PullPolicyName.IF_MISSING
    command: tuple[Text, ...] = ()
    args: tuple[Text, ...] = ()
    env: dict[EnvName, EnvValue] = Field(default_factory=dict)
    working_dir: Text = ""
    user: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{0,64}\z")] = ""
    read_only_root: bool = False
    network: Literal["bridge", "host"] = "bridge"
    resources: Resources = Resources()
    limits: LimitsSpec = LimitsSpec()
    ports: tuple[PortSpec, ...] = Field((), max_length=32)
    health: HealthSpec = HealthSpec()
    restart: RestartSpec = RestartSpec()
    stop: StopSpec = StopSpec()

    def limit(self) -> Resources:
        """Return what the cgroup enforces: the limits, and the reservation where there is none."""
        given = self.limits.model_dump(exclude_none=True, by_alias=False)
        return self.resources.model_copy(update=given)

    def port_number(self, port: int | str) -> int:
        """Return the container port of that name or number."""
        return port if isinstance(port, int) else next(p.container for p in self.ports if p.name == port)

    @model_validator(mode="after")
    def _limits_hold_the_reservation(self) -> Self:
        for name in ("cpu_m", "memory_bytes", "pids"):
            limit, reserved = getattr(self.limits, name), getattr(self.resources, name)
            if limit is not None and limit < reserved:
                raise ValueError(
                    f"limits.{name.split('_')[0]} is below the reservation in resources: raise one or lower the other"
                )
        if self.limit().memory_bytes < LEAST_MEMORY_BYTES:
            raise ValueError("resources.memory is below 6Mi, the least that container managers accept")
        return self

    @model_validator(mode="after")
    def _ports_are_distinct(self) -> Self:
        names = [p.name for p in self.ports]
        containers = [f"{p.container}/{p.protocol}" for p in self.ports]
        published = [f"{p.publish}/{p.protocol}" for p in self.ports if isinstance(p.publish, int)]
        for what, values in (("name", names), ("container port", containers), ("published port", published)):
            twice = next((v for v in values if values.count(v) > 1), None)
            if twice is not None:
                raise ValueError(f"two ports have the {what} '{twice}': give each its own")
        if self.network == "host" and any(p.publish is not None for p in self.ports):
            raise ValueError("publish has no meaning with network: host, where each container port is a host port")
        return self

    @model_validator(mode="after")
    def _checks_name_known_ports(self) -> Self:
        known = {p.name for p in self.ports}
        for role in ("readiness", "liveness"):
            check: CheckSpec | None = getattr(self.health, role)
            probe = (check.http or check.tcp) if check else None
            if probe and isinstance(probe.port, str) and probe.port not in known:
                have = ", ".join(sorted(known)) or "none"
                raise ValueError(f"health.{role} names the port '{probe.port}', but the ports here are: {have}")
        return self
