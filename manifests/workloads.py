"""What a user asks to run: Service, Daemon and Job, each a manifest of its own kind."""

from enum import StrEnum
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import AfterValidator, Field, TypeAdapter, model_validator

from manifests.base import Count, Duration, Labels, Model, Name, Timestamp
from manifests.constraints import parse_attribute, parse_constraint
from manifests.containers import ContainerSpec, RestartPolicy

API_VERSION = "wherry/v1"


class Kind(StrEnum):
    SERVICE = "Service"
    DAEMON = "Daemon"
    JOB = "Job"


class Metadata(Model):
    name: Name
    namespace: Name = "default"
    labels: Labels = Field(default_factory=dict)


def _checked_constraint(text: str) -> str:
    parse_constraint(text)
    return text


class PlacementSpec(Model):
    """Where it may run: constraints must hold; `spread` evens out over the values of a label or attribute."""

    constraints: tuple[Annotated[str, AfterValidator(_checked_constraint)], ...] = Field((), max_length=32)
    spread: tuple[Annotated[str, AfterValidator(parse_attribute)], ...] = Field((), max_length=8)
    max_per_node: Annotated[int, Field(strict=True, ge=1)] | None = None


class RescheduleSpec(Model):
    """Elsewhere, when restarts in place are used up: after a backoff that doubles."""

    backoff_s: Duration = Field(5.0, alias="backoff", ge=0.1)
    max_backoff_s: Duration = Field(600.0, alias="maxBackoff", ge=0.1)


class UpdateSpec(Model):
    """How a new version replaces the old: so many more than `replicas`, and so many fewer, at any time."""

    max_surge: Count = 1
    max_unavailable: Count = 0

    @model_validator(mode="after")
    def _can_progress(self) -> Self:
        if self.max_surge == 0 and self.max_unavailable == 0:
            raise ValueError("maxSurge and maxUnavailable can't both be 0: no version could ever replace another")
        return self


class WorkloadSpec(ContainerSpec):
    placement: PlacementSpec = PlacementSpec()
    reschedule: RescheduleSpec = RescheduleSpec()


class ServiceSpec(WorkloadSpec):
    replicas: Count = 1
    update: UpdateSpec = UpdateSpec()


class DaemonSpec(WorkloadSpec):
    """One allocation on each eligible node."""


class JobSpec(WorkloadSpec):
    """Runs until `completions` allocations have succeeded, `parallelism` at a time."""

    completions: Annotated[int, Field(strict=True, ge=1, le=10_000)] = 1
    parallelism: Annotated[int, Field(strict=True, ge=1, le=10_000)] = 1
    timeout_s: Duration | None = Field(None, alias="timeout")  # of one allocation, from its first start


class Service(Model):
    api_version: Literal["wherry/v1"]
    kind: Literal["Service"]
    metadata: Metadata
    spec: ServiceSpec


class Daemon(Model):
    api_version: Literal["wherry/v1"]
    kind: Literal["Daemon"]
    metadata: Metadata
    spec: DaemonSpec


class Job(Model):
    api_version: Literal["wherry/v1"]
    kind: Literal["Job"]
    metadata: Metadata
    spec: JobSpec


Workload: TypeAlias = Service | Daemon | Job
WORKLOAD: TypeAdapter[Workload] = TypeAdapter(Annotated[Workload, Field(discriminator="kind")])
MODELS: dict[str, type[Service] | type[Daemon] | type[Job]] = {"Service": Service, "Daemon": Daemon, "Job": Job}

_NOT_OF_THE_TEMPLATE = {"replicas", "update", "completions", "parallelism", "reschedule", "placement"}


class WorkloadRef(Model):
    """Which workload, and which life of it: `uid` differs when a deleted one is applied anew."""

    namespace: str
    kind: Kind
    name: str
    uid: str

    def __str__(self) -> str:
        return (
            f"{self.kind.lower()}/{self.name}"
            if self.namespace == "default"
            else f"{self.kind.lower()}/{self.namespace}/{self.name}"
        )


class WorkloadRecord(Model):
    """A workload as the store keeps it: what the user applied, under which uid and version."""

    uid: str
    version: int
    generation: int  # rises with each change, also of what makes no new version, such as replicas
    created_s: Timestamp = Field(alias="createdAt")
    workload: Annotated[Workload, Field(discriminator="kind")]

    @property
    def ref(self) -> WorkloadRef:
        meta = self.workload.metadata
        return WorkloadRef(namespace=meta.namespace, kind=Kind(self.workload.kind), name=meta.name, uid=self.uid)


class VersionRecord(Model):
    """An immutable version of a workload's spec; allocations name it by its number."""

    uid: str
    version: int
    created_s: Timestamp = Field(alias="createdAt")
    workload: Annotated[Workload, Field(discriminator="kind")]


def makes_new_version(old: Workload, new: Workload) -> bool:
    """Say whether running allocations must be replaced: something of how a container runs has changed."""
    return template_of(old.spec) != template_of(new.spec)


def template_of(spec: WorkloadSpec) -> dict[str, object]:
    """Return how a container of the workload runs, without how many there are, where and in which order."""
    return spec.model_dump(by_alias=False, exclude=_NOT_OF_THE_TEMPLATE)


def restart_policy_of(kind: Kind, spec: WorkloadSpec) -> RestartPolicy:
    return spec.restart.policy or (RestartPolicy.ON_FAILURE if kind is Kind.JOB else RestartPolicy.ALWAYS)
