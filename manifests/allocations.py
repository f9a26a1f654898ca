"""Allocations: what the leader desires of a node, and what the node observes; and the life that one goes through."""

from collections.abc import Mapping
from enum import StrEnum
from hashlib import blake2b
from typing import Literal

from pydantic import Field

from manifests.base import Model, Timestamp
from manifests.containers import Resources
from manifests.reasons import Choice
from manifests.workloads import WorkloadRef


class Desired(StrEnum):
    RUN = "run"
    STOP = "stop"
    SPARE = "spare"  # go on as before: its node was lost and its slot is another's, until one of the two is chosen


class HostPort(Model):
    """A port of a node, held by an allocation: published, or its own with host networking."""

    name: str
    container: int
    host: int
    protocol: Literal["tcp", "udp"] = "tcp"


class Allocation(Model):
    """One placed instance of one version of a workload on one node. Written by the leader alone."""

    id: str
    workload: WorkloadRef
    version: int
    index: int
    node: str
    desired: Desired = Desired.RUN
    reserved: Resources
    ports: tuple[HostPort, ...] = ()
    devices: dict[str, tuple[str, ...]] = Field(default_factory=dict)  # which instances, by kind
    why: Choice  # why this node
    stop_reason: str = ""  # why it must end, for people
    evicted_for: WorkloadRef | None = None  # it did nothing wrong: this one of higher priority needs its room
    note: str = ""  # what became of it while its node was lost, for people
    spared_attempt: int = 0  # the attempt that ran and was ready when it became a spare; 0: none
    created_s: Timestamp = Field(alias="createdAt")
    replaces: str | None = None  # the allocation whose slot it took over
    reschedules: int = 0  # how many allocations of this slot failed in a row before this one


def allocation_id(ref: WorkloadRef, index: int, revision: int) -> str:
    """Return the id of the allocation that takes a slot by a plan made at that store revision: `web-0-1f3a9c2e`.

    A slot gets at most one new allocation from one revision, so the id is unique, and the same plan gives the same id.
    """
    digest = blake2b(f"{ref.uid}/{index}/{revision}".encode(), digest_size=4).hexdigest()
    return f"{ref.name}-{index}-{digest}"


class Phase(StrEnum):
    """Where one attempt of an allocation is in its life. The node alone moves it on."""

    PENDING = "pending"  # the node knows of it
    PULLING = "pulling"  # its image is being made ready
    STARTING = "starting"  # its container is being created and started
    RUNNING = "running"
    BACKOFF = "backoff"  # its container ended or couldn't start; the next attempt comes after a while
    STOPPING = "stopping"
    STOPPED = "stopped"  # ended because it was asked to
    SUCCEEDED = "succeeded"  # ended by itself with exit code 0, and that is what it was for
    FAILED = "failed"  # ended, and restarts in place are used up or not wanted


NEXT: Mapping[Phase, frozenset[Phase]] = {
    Phase.PENDING: frozenset({Phase.PULLING, Phase.STARTING, Phase.BACKOFF, Phase.FAILED, Phase.STOPPED}),
    Phase.PULLING: frozenset({Phase.STARTING, Phase.BACKOFF, Phase.FAILED, Phase.STOPPED, Phase.STOPPING}),
    Phase.STARTING: frozenset(
        {Phase.RUNNING, Phase.BACKOFF, Phase.FAILED, Phase.SUCCEEDED, Phase.STOPPED, Phase.STOPPING}
    ),
    Phase.RUNNING: frozenset({Phase.BACKOFF, Phase.STOPPING, Phase.STOPPED, Phase.SUCCEEDED, Phase.FAILED}),
    Phase.BACKOFF: frozenset({Phase.STOPPED, Phase.STOPPING, Phase.FAILED}),
    Phase.STOPPING: frozenset({Phase.STOPPED, Phase.SUCCEEDED, Phase.FAILED}),
    Phase.STOPPED: frozenset(),
    Phase.SUCCEEDED: frozenset(),
    Phase.FAILED: frozenset(),
}
TERMINAL = frozenset({Phase.STOPPED, Phase.SUCCEEDED, Phase.FAILED})


class Health(StrEnum):
    UNKNOWN = "unknown"  # not checked yet
    HEALTHY = "healthy"  # its readiness check passes; or it runs and has none
    UNHEALTHY = "unhealthy"


MOST_LOG_TAIL_BYTES = 2048
CRASH_LOOP_FAILURES = 2  # in a row: from then on restarts wait


class Ending(Model):
    """How an attempt ended."""

    attempt: int
    exit_code: int | None = None  # None: it never ran
    # One word: exited, oomKilled, startFailed, imageFailed, unhealthy, timeout, lostByRuntime, sandboxLost, refused,
    # disconnected
    reason: str
    message: str = ""  # a sentence that says what to do
    container: str = ""  # the container of a group that ended it
    log_tail: tuple[str, ...] = ()  # the last lines that it wrote, plain text, at most MOST_LOG_TAIL_BYTES in all
    finished_s: Timestamp = Field(alias="finishedAt")


class ContainerStatus(Model):
    """One container of a group, as its node observes it."""

    name: str
    phase: Phase
    health: Health = Health.UNKNOWN
    attempt: int = 1
    container_id: str = ""
    message: str = ""
    last_ending: Ending | None = None


class AllocationStatus(Model):
    """What the node observes of one allocation. Written for that node alone."""

    id: str
    node: str
    workload: WorkloadRef
    version: int
    index: int
    phase: Phase
    health: Health = Health.UNKNOWN
    attempt: int = 1  # restarts in place are attempt - 1; of a group, those of all its containers
    failures: int = 0  # attempts in a row that failed, without one between that was healthy for long enough
    container_id: str = ""
    address: str = ""
    message: str = ""  # what it is doing or waiting for, when the phase alone doesn't say
    last_ending: Ending | None = None
    started_s: Timestamp | None = Field(None, alias="startedAt")  # of the attempt's container
    next_attempt_s: Timestamp | None = Field(None, alias="nextAttemptAt")  # while in backoff
    images: dict[str, str] | None = None  # the digest that it runs, or is about to, of each image that has one
    containers: tuple[ContainerStatus, ...] = ()  # of a group, init containers first; one alone is told by the above

    @property
    def is_terminal(self) -> bool:
        return self.phase in TERMINAL

    @property
    def is_ready(self) -> bool:
        return self.phase is Phase.RUNNING and self.health is Health.HEALTHY

    @property
    def is_crash_looping(self) -> bool:
        """It has failed again and again, and is on its way to the next attempt."""
        is_between = self.phase in (Phase.BACKOFF, Phase.PENDING, Phase.PULLING, Phase.STARTING)
        return is_between and self.failures >= CRASH_LOOP_FAILURES


def advance(status: AllocationStatus, phase: Phase, **changes: object) -> AllocationStatus:
    """Return the status in a later phase of the same attempt. Raises ValueError on a step that isn't in NEXT."""
    if phase not in NEXT[status.phase]:
        raise ValueError(f"allocation {status.id}, attempt {status.attempt}, can't go from {status.phase} to {phase}")
    return status.model_copy(update={"message": "", "next_attempt_s": None, **changes, "phase": phase})


def next_attempt(status: AllocationStatus) -> AllocationStatus:
    """Return the status at the start of the next attempt, after BACKOFF."""
    if status.phase is not Phase.BACKOFF:
        raise ValueError(f"allocation {status.id} begins a new attempt from backoff only, not from {status.phase}")
    return begun_anew(status)


def begun_anew(status: AllocationStatus) -> AllocationStatus:
    """Return the status at the start of the next attempt, whatever became of the last one."""
    return status.model_copy(
        update={
            "phase": Phase.PENDING,
            "attempt": status.attempt + 1,
            "health": Health.UNKNOWN,
            "container_id": "",
            "address": "",
            "message": "",
            "started_s": None,
            "next_attempt_s": None,
        }
    )
