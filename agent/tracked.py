"""What the agent knows of one allocation: what is desired, what was seen of it, and what is under way. Pure values.

The shell folds facts in with the functions here; agent.reconcile draws the conclusions. Nothing here does I/O.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from agent.driver import Container, ContainerId, ContainerState
from manifests.allocations import AllocationStatus, Desired, Health, HostPort, Phase
from manifests.containers import Resources
from manifests.session import Assigned
from manifests.workloads import Job, Kind, WorkloadSpec


@dataclass(frozen=True, slots=True)
class Moment:
    """One instant on two clocks: `now_s` never jumps and decides, `wall_s` is for people to read."""

    now_s: float
    wall_s: float
    silent_s: float = 0.0  # for how long no server was heard


class Work(StrEnum):
    """What the shell is doing for an allocation right now; the next decision waits until that has ended."""

    NONE = "none"
    START = "start"
    STOP = "stop"
    REMOVE = "remove"
    FORGOTTEN = "forgotten"


@dataclass(frozen=True, slots=True)
class Failure:
    """A start that failed for a reason of its own, not because the container manager was away."""

    reason: str  # imageFailed | startFailed
    message: str


@dataclass(frozen=True, slots=True)
class Tracked:
    """One allocation on this node. `container` is that of the current attempt, as last seen."""

    assigned: Assigned
    status: AllocationStatus
    is_withdrawn: bool = False
    is_admitted: bool = False  # the node has room for it: asked once, before its first start
    is_seen: bool = False  # the container manager has said what there is of it
    container: Container | None = None
    has_lost_sight: bool = False  # the manager was restarted since the container was last seen running
    earlier: tuple[ContainerId, ...] = ()  # containers of earlier attempts, oldest first
    work: Work = Work.NONE
    tries: int = 0  # of the work at hand, which failed because the manager doesn't answer
    retry_s: float = 0.0  # no new work before that
    failure: Failure | None = None  # of the current attempt's start
    failures: tuple[float, ...] = ()  # when attempts ended that count against restart.attempts
    due_s: float = 0.0  # while in backoff: when the next attempt begins
    first_start_s: float | None = None  # from which a job's timeout counts
    doom: str = ""  # why it must end although it is desired: unhealthy | timeout | disconnected
    doom_message: str = ""
    awaits_word: bool = False  # its stopAfter was over: no attempt begins until a server has said that it is desired
    severed_s: float = 0.0  # when that was, by the wall clock, if its attempt ends for it

    @property
    def id(self) -> str:
        return self.assigned.allocation.id

    @property
    def spec(self) -> WorkloadSpec:
        return self.assigned.workload.spec

    @property
    def kind(self) -> Kind:
        return Kind(self.assigned.workload.kind)

    @property
    def must_end(self) -> bool:
        """Someone wants it stopped: the leader explicitly, or it isn't desired at all any more."""
        return self.is_withdrawn or self.assigned.allocation.desired is Desired.STOP

    @property
    def has_running_container(self) -> bool:
        return self.container is not None and self.container.state is ContainerState.RUNNING

    @property
    def deadline_s(self) -> float | None:
        """When a job's time is up."""
        workload = self.assigned.workload
        timeout_s = workload.spec.timeout_s if isinstance(workload, Job) else None
        return None if timeout_s is None or self.first_start_s is None else self.first_start_s + timeout_s

    @property
    def reserved(self) -> Resources:
        return self.assigned.allocation.reserved

    @property
    def ports(self) -> tuple[HostPort, ...]:
        return self.assigned.allocation.ports


def newly_assigned(assigned: Assigned) -> Tracked:
    """Return the record of an allocation of which nothing is known here but that it is desired.

    If the server knows that it has ended here, then it has, whatever became of this node's memory and its containers.
    """
    allocation = assigned.allocation
    if assigned.ended is not None and assigned.ended.is_terminal:
        return Tracked(assigned, assigned.ended)
    status = AllocationStatus(
        id=allocation.id,
        node=allocation.node,
        workload=allocation.workload,
        version=allocation.version,
        index=allocation.index,
        phase=Phase.PENDING,
    )
    return Tracked(assigned, status)


def with_sight(
    tracked: Tracked, container: Container | None, *, attempt: int, earlier: tuple[ContainerId, ...] | None = None
) -> Tracked:
    """Return the record after the manager said what there is of it: the newest attempt's container, or none at all.

    Without a state file the attempt is known from the container alone, so a later attempt than expected is believed.
    """
    status = tracked.status
    if container is not None and attempt > status.attempt and not status.is_terminal:
        status = status.model_copy(update={"attempt": attempt, "phase": Phase.PENDING, "health": Health.UNKNOWN})
    is_running = container is not None and container.state is ContainerState.RUNNING
    return replace(
        tracked,
        status=status,
        container=container,
        is_seen=True,
        is_admitted=tracked.is_admitted or container is not None,
        has_lost_sight=tracked.has_lost_sight and not is_running,
        earlier=tracked.earlier if earlier is None else earlier,
    )


def without_work(tracked: Tracked) -> Tracked:
    """Return the record after its work is done."""
    return replace(tracked, work=Work.NONE, tries=0, retry_s=0.0)


def with_delay(tracked: Tracked, *, retry_s: float, message: str) -> Tracked:
    """Return the record after its work failed because the manager doesn't answer: the same again later."""
    status = tracked.status
    if not status.is_terminal:
        status = status.model_copy(update={"message": message})
    return replace(tracked, status=status, work=Work.NONE, tries=tracked.tries + 1, retry_s=retry_s)


def with_failure(tracked: Tracked, failure: Failure, container: Container | None) -> Tracked:
    """Return the record after its start failed by its own fault."""
    return replace(without_work(tracked), failure=failure, container=container, is_seen=True)


def with_health(tracked: Tracked, health: Health) -> Tracked:
    """Return the record with the verdict of its readiness check."""
    return replace(tracked, status=tracked.status.model_copy(update={"health": health}))


def condemned(tracked: Tracked, message: str) -> Tracked:
    """Return the record after its liveness check failed for good."""
    status = tracked.status.model_copy(update={"health": Health.UNHEALTHY, "message": message})
    return replace(tracked, status=status, doom="unhealthy", doom_message=message)
