"""What the agent knows of one container: what is desired, what was seen of it, and what is under way. Pure values.

An allocation has one of them, or a group: see agent.group. The shell folds facts in with the functions here;
agent.reconcile draws the conclusions. Nothing here does I/O.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from agent.driver import SANDBOX_IMAGE, Container, ContainerId, ContainerState
from agent.pacing import free_again_s
from agent.references import at_digest
from manifests.allocations import AllocationStatus, Desired, Health, HostPort, Phase
from manifests.containers import ContainerSpec, PullPolicy, Resources, RestartPolicy, StopSpec
from manifests.session import Assigned
from manifests.workloads import MAIN, Job, Kind, Workload, restart_policy_of

STEADY_FACTOR = 2  # times restart.maxBackoff
SANDBOX = "_sandbox"  # its name; no container in a manifest can have it
SANDBOX_SPEC = ContainerSpec(
    image=SANDBOX_IMAGE,
    resources=Resources.of(cpu_m=200, memory_bytes=6 * 2**20, pids=16),  # what starting takes; waiting takes nothing
    stop=StopSpec(grace_s=0.0),  # process 1 heeds SIGKILL alone
)


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


class Role(StrEnum):
    """What a container is in its allocation."""

    ALONE = "alone"
    SANDBOX = "sandbox"  # holds the network of a group
    SIDECAR = "sidecar"
    INIT = "init"
    MEMBER = "member"


class Turn(StrEnum):
    """What the group allows a container now; one that is alone is always free."""

    FREE = "free"
    WAIT = "wait"  # others come first: it must not start
    LAST = "last"  # the group ends, others first: it goes on, but doesn't start again
    END = "end"


@dataclass(frozen=True, slots=True)
class Failure:
    """A start that failed for a reason of its own, not because the container manager was away."""

    reason: str  # imageFailed | startFailed
    message: str


@dataclass(frozen=True, slots=True)
class Tracked:
    """One container of an allocation on this node. `container` is that of the current attempt, as last seen.

    `status` tells of this container as if it were alone; `round` and `network_of` are those of its group's sandbox.
    """

    assigned: Assigned
    status: AllocationStatus
    name: str = MAIN
    role: Role = Role.ALONE
    turn: Turn = Turn.FREE
    turn_message: str = ""  # why it must end, for people
    has_begun: bool = False  # its first turn came, in this round
    round: int = 1  # the attempt of the sandbox that it belongs to
    network_of: ContainerId | None = None
    group_address: str = ""  # the sandbox's
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
    strikes: int = 0  # such ends in a row, without a steady attempt between them
    healthy_since_s: float | None = None  # the attempt
    due_s: float = 0.0  # while in backoff: when the next attempt begins
    starts: tuple[float, ...] = ()  # within the last minute
    paced_s: float = 0.0  # no start before that, for what its group has started
    first_start_s: float | None = None  # from which a job's timeout counts
    doom: str = ""  # why it must end although it is desired: unhealthy | timeout | disconnected
    doom_message: str = ""
    awaits_word: bool = False  # its stopAfter was over: no attempt begins until a server has said that it is desired
    severed_s: float = 0.0  # when that was, by the wall clock, if its attempt ends for it

    @property
    def allocation(self) -> str:
        return self.assigned.allocation.id

    @property
    def id(self) -> str:
        """Return what the container is called on this node: as its allocation, where it is alone."""
        return self.allocation if self.role is Role.ALONE else f"{self.allocation}/{self.name}"

    @property
    def spec(self) -> ContainerSpec:
        workload = self.assigned.workload.spec
        match self.role:
            case Role.ALONE:
                return workload
            case Role.SANDBOX:
                return SANDBOX_SPEC
            case Role.INIT:
                return next(init for init in workload.init_containers if init.name == self.name)
            case _:
                return workload.members[self.name]

    @property
    def is_pinned(self) -> bool:
        """The leader has said which digest all of the version's replicas run."""
        return self.spec.image in self.assigned.images

    @property
    def may_be_pinned(self) -> bool:
        """What is named by digest is that already, and what is never pulled is the operator's own affair."""
        return "@" not in self.spec.image and self.spec.pull is not PullPolicy.NEVER

    @property
    def digest(self) -> str:
        """Return the digest that it is to run: its version's, else what was found here before; "" if none is known."""
        image = self.spec.image
        found = self.assigned.images.get(image) or (self.status.images or {}).get(image, "")
        return found if self.may_be_pinned else ""

    @property
    def image(self) -> str:
        """Return what its container is made of, by digest where one is known."""
        return at_digest(self.spec.image, self.digest) if self.digest else self.spec.image

    @property
    def has_host_network(self) -> bool:
        return self.assigned.workload.spec.network == "host"

    @property
    def address(self) -> str:
        return self.status.address or self.group_address

    @property
    def restart_policy(self) -> RestartPolicy:
        if self.role is Role.ALONE or self.role is Role.MEMBER:
            return restart_policy_of(self.kind, self.spec)
        default = RestartPolicy.ON_FAILURE if self.role is Role.INIT else RestartPolicy.ALWAYS
        return self.spec.restart.policy or default

    @property
    def kind(self) -> Kind:
        return Kind(self.assigned.workload.kind)

    @property
    def is_unwanted(self) -> bool:
        """Someone wants its allocation stopped: the leader explicitly, or it isn't desired at all any more."""
        return self.is_withdrawn or self.assigned.allocation.desired is Desired.STOP

    @property
    def steady_s(self) -> float:
        """How long an attempt must have been healthy for the backoff to begin anew."""
        restart = self.spec.restart
        return min(restart.window_s, STEADY_FACTOR * restart.max_backoff_s)

    def is_steady(self, now_s: float) -> bool:
        return self.healthy_since_s is not None and now_s - self.healthy_since_s >= self.steady_s

    def may_start_s(self, now_s: float) -> float:
        """Return before when it must not start, however often it was tried."""
        return max(free_again_s(self.starts, now_s), self.paced_s)

    @property
    def must_end(self) -> bool:
        return self.is_unwanted if self.role is Role.ALONE else self.turn is Turn.END

    @property
    def is_leaving(self) -> bool:
        """Its allocation is on the way out."""
        return self.is_unwanted or self.turn in (Turn.LAST, Turn.END)

    @property
    def end_reason(self) -> str:
        return self.turn_message or self.assigned.allocation.stop_reason

    @property
    def is_held(self) -> bool:
        """It must not start now."""
        return self.turn in (Turn.WAIT, Turn.LAST)

    @property
    def stop_after_s(self) -> float | None:
        """How long it may run without word from a server; None: for ever, as a sandbox, in which nothing runs."""
        return None if self.role is Role.SANDBOX else self.assigned.workload.spec.on_disconnect.stop_after_s

    @property
    def has_running_container(self) -> bool:
        return self.container is not None and self.container.state is ContainerState.RUNNING

    @property
    def deadline_s(self) -> float | None:
        """When the time of a job's only container is up; a group's sees to its own."""
        timeout_s = timeout_of(self.assigned.workload) if self.role is Role.ALONE else None
        return None if timeout_s is None or self.first_start_s is None else self.first_start_s + timeout_s

    @property
    def reserved(self) -> Resources:
        return self.assigned.allocation.reserved

    @property
    def ports(self) -> tuple[HostPort, ...]:
        return self.assigned.allocation.ports


def timeout_of(workload: Workload) -> float | None:
    return workload.spec.timeout_s if isinstance(workload, Job) else None


def newly_assigned(assigned: Assigned) -> Tracked:
    """Return the record of a container, alone in its allocation, of which nothing is known here but that it is desired.

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


def reminded(tracked: Tracked) -> Tracked:
    """Return the record with the end that the server knows of, should this agent have forgotten that."""
    ended = tracked.assigned.ended
    return tracked if ended is None or tracked.status.is_terminal else replace(tracked, status=ended)


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


def with_digest(tracked: Tracked, digest: str) -> Tracked:
    """Return the record with the digest that its container has, or is about to have."""
    images = {tracked.spec.image: digest}
    if tracked.status.images == images:
        return tracked
    return replace(tracked, status=tracked.status.model_copy(update={"images": images}))


def with_health(tracked: Tracked, health: Health, now_s: float) -> Tracked:
    """Return the record with the verdict of its readiness check."""
    if tracked.is_steady(now_s):
        tracked = forgiven(tracked)
    since_s = None
    if health is Health.HEALTHY:
        since_s = now_s if tracked.healthy_since_s is None else tracked.healthy_since_s
    return replace(tracked, status=tracked.status.model_copy(update={"health": health}), healthy_since_s=since_s)


def forgiven(tracked: Tracked) -> Tracked:
    """Return the record after an attempt has been healthy for long enough: the backoff begins anew."""
    if tracked.strikes == tracked.status.failures == 0:
        return tracked
    return replace(tracked, strikes=0, status=tracked.status.model_copy(update={"failures": 0}))


def with_log_tail(tracked: Tracked, attempt: int, lines: tuple[str, ...]) -> Tracked:
    """Return the record with the last lines of the attempt that ended, if that is still the last one."""
    ending = tracked.status.last_ending
    if ending is None or ending.attempt != attempt or ending.log_tail == lines:
        return tracked
    ended = ending.model_copy(update={"log_tail": lines})
    return replace(tracked, status=tracked.status.model_copy(update={"last_ending": ended}))


def condemned(tracked: Tracked, message: str) -> Tracked:
    """Return the record after its liveness check failed for good."""
    status = tracked.status.model_copy(update={"health": Health.UNHEALTHY, "message": message})
    return replace(tracked, status=status, doom="unhealthy", doom_message=message)
