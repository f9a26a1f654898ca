"""What a user asks to run: Service, Daemon, Job and CronJob, each a manifest of its own kind."""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from functools import reduce
from operator import add
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import AfterValidator, Field, TypeAdapter, model_validator
from pydantic.alias_generators import to_camel

from manifests.base import Count, Duration, FieldError, Flag, Metadata, Model, Text, Timestamp
from manifests.configs import Config
from manifests.containers import (
    ContainerSpec,
    Image,
    InitContainerSpec,
    MemberSpec,
    PortSpec,
    Resources,
    RestartPolicy,
    is_given,
)
from manifests.engines import DriverName, RuntimeName
from manifests.isolation import SysctlsSpec
from manifests.permissions import HOST_PATH, Permission
from manifests.placement import PlacementSpec
from manifests.policies import (
    DaemonUpdateSpec,
    DependencySpec,
    OnDisconnectSpec,
    RescheduleSpec,
    UpdateSpec,
)
from manifests.settings import Cluster, Namespace, Settings
from manifests.volumes import VolumeSpec, volume_id

API_VERSION = "wherry/v1"
DEFAULT_PRIORITY = 50
MOST_PRIORITY = 100
MOST_CRON_NAME = 49  # 63, less what a job's name adds, such as -20261124-2215
MAIN = "main"  # the name of a container that is alone


class Kind(StrEnum):
    SERVICE = "Service"
    DAEMON = "Daemon"
    JOB = "Job"
    CRON_JOB = "CronJob"


class WorkloadSpec(ContainerSpec):
    """One container, written directly here, or a group of them in `containers`; and how to treat them."""

    image: Image | Literal[""] = Field("", description="the name of an image, such as nginx:1.27")
    containers: tuple[MemberSpec, ...] = Field((), max_length=16)
    init_containers: tuple[InitContainerSpec, ...] = Field((), max_length=16)
    driver: DriverName | Literal[""] = ""  # "": whatever the node has
    runtime: RuntimeName | Literal[""] = ""  # "": the node's default
    volumes: tuple[VolumeSpec, ...] = Field((), max_length=16)
    sysctls: SysctlsSpec = SysctlsSpec()  # of the network, which all containers share
    placement: PlacementSpec = PlacementSpec()
    priority: Annotated[int, Field(strict=True, ge=0, le=MOST_PRIORITY)] = DEFAULT_PRIORITY
    preempts: Flag = True  # may have allocations of lower priority stopped where nothing else makes room
    reschedule: RescheduleSpec = RescheduleSpec()
    on_disconnect: OnDisconnectSpec = OnDisconnectSpec()
    start_after: tuple[DependencySpec, ...] = Field((), max_length=16)

    @property
    def members(self) -> Mapping[str, ContainerSpec]:
        """Return the containers that run beside each other, by name; a single one is called `main`."""
        return {member.name: member for member in self.containers} or {MAIN: self}

    @property
    def dead_after_s(self) -> float | None:
        """Return how long its node may be without word before nothing of it may run any more; None: for ever."""
        stop_after_s = self.on_disconnect.stop_after_s
        if stop_after_s is None:
            return None
        return stop_after_s + max(member.stop.grace_s for member in self.members.values())

    @property
    def is_group(self) -> bool:
        return bool(self.containers or self.init_containers)

    def reservation(self) -> Resources:
        """Return what an allocation reserves: all its containers, or init container and sidecars if that is more."""
        total = reduce(add, (member.resources for member in self.members.values()))
        sidecars = [member.resources for member in self.containers if member.sidecar]
        for init in self.init_containers:
            total = total.most(reduce(add, sidecars, init.resources))
        return total

    def all_permissions(self) -> tuple[Permission, ...]:
        """Return what its containers need that a node must allow."""
        every = (*self.members.values(), *self.init_containers)
        hosts = [f"{HOST_PATH}{volume.host}" for volume in self.volumes if volume.host]
        return tuple(dict.fromkeys([*hosts, *(needed for one in every for needed in one.permissions())]))

    def all_ports(self) -> tuple[PortSpec, ...]:
        return tuple(port for member in self.members.values() for port in member.ports)

    def all_configs(self) -> frozenset[str]:
        """Return the names of all configs that its containers use."""
        every = (*self.members.values(), *self.init_containers)
        return frozenset(mount.name for container in every for mount in container.configs)

    @model_validator(mode="after")
    def _one_or_a_group(self) -> Self:
        own = [name for name in ContainerSpec.model_fields if name != "network" and is_given(self, name)]
        if self.containers and own:
            name = ContainerSpec.model_fields[own[0]].alias or to_camel(own[0])
            raise FieldError((name,), "belongs in the containers of a group: write it in one of containers")
        if not self.containers and not self.image:
            raise FieldError(("image",), "is missing")
        if self.containers and all(member.sidecar for member in self.containers):
            raise FieldError(("containers",), "are all sidecars: beside which container?")
        return self

    @model_validator(mode="after")
    def _sysctls_are_its_own(self) -> Self:
        if self.sysctls.given() and self.network == "host":
            raise FieldError(("sysctls",), "has no meaning with network: host, where they are the node's; leave it out")
        return self

    @model_validator(mode="after")
    def _mounts_name_known_volumes(self) -> Self:
        known = {volume.name: volume for volume in self.volumes}
        if len(known) < len(self.volumes):
            raise FieldError(("volumes",), "two have one name: give each its own")
        own: list[tuple[tuple[str | int, ...], ContainerSpec]] = [] if self.containers else [((), self)]
        members = [(("containers", at), member) for at, member in enumerate(self.containers)]
        inits = [(("initContainers", at), init) for at, init in enumerate(self.init_containers)]
        for path, container in (*own, *members, *inits):
            for at, mount in enumerate(container.mounts):
                if mount.volume not in known:
                    have = ", ".join(sorted(known)) or "none"
                    message = f"names the volume '{mount.volume}', but the volumes here are: {have}"
                    raise FieldError((*path, "mounts", at, "volume"), message)
        return self

    @model_validator(mode="after")
    def _members_are_distinct(self) -> Self:
        named = [("containers", i, m) for i, m in enumerate(self.containers)]
        inits = [("initContainers", i, m) for i, m in enumerate(self.init_containers)]
        names: set[str] = set() if self.containers else {MAIN}
        for field, at, member in (*named, *inits):
            if member.name in names:
                raise FieldError((field, at, "name"), f"the name '{member.name}' is there twice: give each its own")
            names.add(member.name)
        return self

    @model_validator(mode="after")
    def _ports_are_distinct_in_the_group(self) -> Self:
        holders: dict[tuple[str, str], str] = {}
        for at, member in enumerate(self.containers):
            for number, port in enumerate(member.ports):
                for what, value in _identities(port):
                    holder = holders.setdefault((what, value), member.name)
                    if holder != member.name:
                        raise FieldError(
                            ("containers", at, "ports", number, what),
                            f"container '{holder}' has '{value}' already, and a group shares one network",
                        )
        return self


def _identities(port: PortSpec) -> Iterator[tuple[str, str]]:
    """Yield what no two ports of one network namespace may have in common, by field."""
    yield "name", port.name
    yield "container", f"{port.container}/{port.protocol}"
    if isinstance(port.publish, int):
        yield "publish", f"{port.publish}/{port.protocol}"


class ServiceSpec(WorkloadSpec):
    replicas: Count = 1
    update: UpdateSpec = UpdateSpec()

    @model_validator(mode="after")
    def _one_at_a_time_has_a_named_volume(self) -> Self:
        if any(volume.named for volume in self.volumes) and (self.update.max_surge or self.update.canary):
            message = "must be 0 with a named volume, which two versions can't share: maxSurge: 0, maxUnavailable: 1"
            raise FieldError(("update", "maxSurge" if self.update.max_surge else "canary"), message)
        return self


class DaemonSpec(WorkloadSpec):
    """One allocation on each eligible node."""

    update: DaemonUpdateSpec = DaemonUpdateSpec()


class JobSpec(WorkloadSpec):
    """Runs until `completions` allocations have succeeded, `parallelism` at a time."""

    completions: Annotated[int, Field(strict=True, ge=1, le=10_000)] = 1
    parallelism: Annotated[int, Field(strict=True, ge=1, le=10_000)] = 1
    retries: Annotated[int, Field(strict=True, ge=0, le=1000)] = 1  # of one index: anew, elsewhere if possible
    timeout_s: Duration | None = Field(None, alias="timeout")  # of one allocation, from its first start


def _checked_schedule(text: str) -> str:
    from manifests.schedules import schedule_of  # only where a CronJob is: it brings the time zones along

    schedule_of(text, "UTC")
    return text


def _checked_zone(name: str) -> str:
    from manifests.schedules import zone_of

    zone_of(name)
    return name


class CronJobSpec(JobSpec):
    """A Job that is made anew at each time of the schedule."""

    schedule: Annotated[Text, AfterValidator(_checked_schedule)]  # five fields, or @daily and the like
    time_zone: Annotated[Text, AfterValidator(_checked_zone)] = "UTC"
    overlap: Literal["forbid", "allow", "replace"] = "forbid"  # when the last one still runs
    start_window_s: Duration = Field(300.0, alias="startWindow", ge=1, le=7 * 86400)  # later than so much: skipped
    suspend: Flag = False
    keep_succeeded: Annotated[int, Field(strict=True, ge=0, le=100)] = 3  # ended jobs that stay, the newest
    keep_failed: Annotated[int, Field(strict=True, ge=0, le=100)] = 3


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


class CronJob(Model):
    api_version: Literal["wherry/v1"]
    kind: Literal["CronJob"]
    metadata: Metadata
    spec: CronJobSpec

    @model_validator(mode="after")
    def _leaves_room_for_the_names_of_jobs(self) -> Self:
        length = len(self.metadata.name)
        if length > MOST_CRON_NAME:
            why = "the names of its jobs are this and a date"
            raise FieldError(("metadata", "name"), f"has {length} characters, and the most is {MOST_CRON_NAME}: {why}")
        return self


Workload: TypeAlias = Service | Daemon | Job | CronJob
WORKLOAD: TypeAdapter[Workload] = TypeAdapter(Annotated[Workload, Field(discriminator="kind")])
Document: TypeAlias = Workload | Config | Settings
MODELS: dict[str, type[Document]] = {
    "Service": Service,
    "Daemon": Daemon,
    "Job": Job,
    "CronJob": CronJob,
    "Config": Config,
    "Namespace": Namespace,
    "Cluster": Cluster,
}

_NOT_OF_THE_TEMPLATE = {
    *("replicas", "update", "completions", "parallelism", "retries", "reschedule", "placement", "start_after"),
    *("priority", "preempts"),
    *("schedule", "time_zone", "overlap", "start_window_s", "suspend", "keep_succeeded", "keep_failed"),
}


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
    paused: bool = False  # its rollout goes no further until resumed
    promoted: int = 0  # the version whose canaries were promoted
    owner: WorkloadRef | None = None  # of a Job: the CronJob that it was made for
    cancelled: str = ""  # of a Job: why it must end, as failed, before it is complete
    changed_by: str = ""  # who made the last change, in words

    @property
    def ref(self) -> WorkloadRef:
        meta = self.workload.metadata
        return WorkloadRef(namespace=meta.namespace, kind=Kind(self.workload.kind), name=meta.name, uid=self.uid)


class CronState(Model):
    """How far the leader has come with a CronJob's schedule: written together with the jobs that it starts."""

    uid: str
    schedule: str  # what `handled_s` is about: a changed schedule counts from when it was changed
    time_zone: str
    handled_s: Timestamp = Field(alias="handledUntil")  # no slot up to then is started any more
    last_slot_s: Timestamp | None = Field(None, alias="lastSlot")
    last_job: str = ""  # the name of the job that was made for it


class VersionRecord(Model):
    """An immutable version of a workload's spec; allocations name it by its number."""

    uid: str
    version: int
    created_s: Timestamp = Field(alias="createdAt")
    workload: Annotated[Workload, Field(discriminator="kind")]
    configs: dict[str, int] = Field(default_factory=dict)  # the version of each config that it uses
    cause: str = ""  # why it was made, where it wasn't a change of the spec: a config's change, undo, restart
    changed_by: str = ""  # who made it, in words
    copies: int = 0  # the version that an undo copied: it runs the same images, by digest


def makes_new_version(old: Workload, new: Workload) -> bool:
    """Say whether running allocations must be replaced: something of how a container runs has changed."""
    return template_of(old.spec) != template_of(new.spec)


def template_of(spec: WorkloadSpec) -> dict[str, object]:
    """Return how a container of the workload runs, without how many there are, where and in which order."""
    exclude: dict[str, Any] = dict.fromkeys(_NOT_OF_THE_TEMPLATE, True)
    return spec.model_dump(by_alias=False, exclude=exclude | {"on_disconnect": {"replace_after_s", "keep"}})


def with_template_of(workload: Workload, spec: WorkloadSpec) -> Workload:
    """Return the workload with containers as that spec has them; how many, where and in which order stay its own."""
    own = {
        name: getattr(workload.spec, name) for name in type(workload.spec).model_fields if name in _NOT_OF_THE_TEMPLATE
    }
    return workload.model_copy(update={"spec": spec.model_copy(update=own)})


def volume_of(workload: Workload, named: str, index: int) -> str:
    """Return what a named volume of one allocation is called on its node."""
    return volume_id(workload.metadata.namespace, named, None if isinstance(workload, Daemon) else index)


def named_volumes(workload: Workload, index: int) -> set[str]:
    """Return the named volumes of one allocation, as nodes tell of them."""
    return {volume_of(workload, volume.named, index) for volume in workload.spec.volumes if volume.named}


def restart_policy_of(kind: Kind, spec: ContainerSpec) -> RestartPolicy:
    ends = kind in (Kind.JOB, Kind.CRON_JOB)
    return spec.restart.policy or (RestartPolicy.ON_FAILURE if ends else RestartPolicy.ALWAYS)
