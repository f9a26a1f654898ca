"""What all reconcilers share: what they see of an allocation, and what they decide, as data. Pure."""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field

from foundation.backoff import Backoff
from manifests.allocations import TERMINAL, Allocation, AllocationStatus, Desired, Phase
from manifests.rollouts import Rollout
from manifests.workloads import CronState, WorkloadRecord, WorkloadRef
from scheduler.model import Ask, Eligibility


@dataclass(frozen=True, slots=True)
class Leaving:
    """Why an allocation must leave its node, and how long that may take: None: as long as its workload's rules want."""

    reason: str
    left_s: float | None = None  # from 0 on down: it is stopped, whatever the rules say

    @property
    def is_overdue(self) -> bool:
        return self.left_s is not None and self.left_s <= 0


@dataclass(slots=True, eq=False)
class Seen:
    """An allocation, what its node says of it, and what is known of the node. One look; compared by identity.

    What reconcilers ask again and again is worked out once: a large service is looked at often.
    """

    allocation: Allocation
    status: AllocationStatus | None
    node: Eligibility | None  # None: there is no such node any more
    ended_for_s: float = 0.0  # how long this leader has known its end
    ready_for_s: float = 0.0  # how long this leader has known it to be ready, and its node to be there
    lost_for_s: float = 0.0  # how long this leader has known its node to be lost
    back_for_s: float = 0.0  # how long this leader has known its node to be there
    is_awaited: bool = False  # its node is lost, and it isn't given up yet
    leaving: Leaving | None = None  # then its node counts as being drained
    phase: Phase = field(init=False)
    has_ended: bool = field(init=False)
    is_wanted: bool = field(init=False)
    is_out_of_reach: bool = field(init=False)
    is_ready: bool = field(init=False)

    def __post_init__(self) -> None:
        status, is_lost = self.status, self.node is Eligibility.LOST
        self.phase = status.phase if status else Phase.PENDING
        self.has_ended = self.phase in TERMINAL
        self.is_wanted = self.allocation.desired is Desired.RUN
        self.is_out_of_reach = not self.has_ended and (is_lost or self.node is None) and not self.is_awaited
        self.is_ready = status is not None and status.is_ready and not is_lost

    @property
    def id(self) -> str:
        return self.allocation.id

    @property
    def leave_reason(self) -> str:
        return self.leaving.reason if self.leaving else f"node {self.allocation.node} is being drained"


@dataclass(frozen=True, slots=True)
class Stop:
    allocation: Allocation
    reason: str
    evicted_for: WorkloadRef | None = None


@dataclass(frozen=True, slots=True)
class Succession:
    """Whose slot a new allocation takes over, and how many of this slot have failed in a row."""

    replaces: str
    reschedules: int = 0


@dataclass(frozen=True, slots=True)
class NewSlot:
    """A CronJob's slot whose time has come, and the name of the Job to make for it."""

    name: str
    slot_s: float


@dataclass(frozen=True, slots=True)
class Cancel:
    """A Job that must end, as failed, for that reason."""

    job: WorkloadRecord
    reason: str


@dataclass(frozen=True, slots=True)
class Decision:
    """Stops come before placements, in one revision or earlier ones; removals only touch what has ended."""

    stops: tuple[Stop, ...] = ()
    asks: tuple[Ask, ...] = ()
    successions: Mapping[int, Succession] = field(default_factory=dict)  # by index
    removals: tuple[Allocation, ...] = ()
    adoptions: tuple[Allocation, ...] = ()  # they run already, from before a restore: their records are made anew
    messages: tuple[str, ...] = ()
    is_complete: bool = False
    is_failed: bool = False
    is_waiting: bool = False  # for what it is to start after
    new_slot: NewSlot | None = None
    cron: CronState | None = None  # to be recorded, together with the new slot's job; None: leave it as it is
    cancels: tuple[Cancel, ...] = ()
    deletes: tuple[WorkloadRecord, ...] = ()  # jobs of a CronJob
    turns: tuple[Allocation, ...] = ()  # with what is desired of them from now on: to be spares, or to run again
    rollout: Rollout | None = None  # to be recorded; None: leave what is recorded as it is
    again_after_s: float | None = None  # look again then, even if nothing changes

    @property
    def only_adds(self) -> bool:
        """Say whether asks for slots that nothing had before are all there is to do."""
        takes = (self.stops, self.successions, self.removals, self.adoptions, self.turns, self.cancels, self.deletes)
        return bool(self.asks) and not any(takes) and self.new_slot is None and self.cron is None


def removals_of(seen: Iterable[Seen]) -> tuple[Allocation, ...]:
    """Return the allocations that are neither wanted nor running anywhere: their records may go."""
    return tuple(s.allocation for s in seen if not s.is_wanted and (s.has_ended or s.node is None))


def due_stops(decision: Decision, placed: Set[int], ended: Set[str]) -> list[Stop]:
    """Return the stops to be made once those indexes are placed: not of what has ended and isn't followed yet.

    That stays until it is: by it alone it is known how often its slot has failed, and where.
    """
    kept = ended & {s.replaces for index, s in decision.successions.items() if index not in placed}
    return [stop for stop in decision.stops if stop.allocation.id not in kept]


def retire(seen: Sequence[Seen], reason: str) -> Decision:
    """Decide for allocations whose workload is gone: stop them all, and remove what has ended."""
    stops = tuple(Stop(s.allocation, reason) for s in seen if s.allocation.desired is not Desired.STOP)
    return Decision(stops=stops, removals=removals_of(seen))


def reschedule_delay_s(seen: Seen, record: WorkloadRecord) -> float:
    """Return how long to wait before a failed allocation is tried elsewhere; a newer version may be the cure: none."""
    if seen.allocation.version != record.version:
        return 0.0
    reschedule = record.workload.spec.reschedule
    return Backoff(reschedule.backoff_s, reschedule.max_backoff_s).delay_s(seen.allocation.reschedules + 1)


def lost_reason(seen: Seen) -> str:
    return f"node {seen.allocation.node} was {'deleted' if seen.node is None else 'lost'}"


def failed_reason(seen: Seen) -> str:
    ending = seen.status.last_ending if seen.status else None
    return f"it failed on node {seen.allocation.node}" + (f": {ending.message or ending.reason}" if ending else "")


def soonest(delays: Iterable[float]) -> float | None:
    return min(delays, default=None)
