"""A burst of replicas is placed in portions: so it delays nobody by more than a pass. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from control_plane import keys
from control_plane.controllers.decision import Decision
from scheduler.model import Ask, BlockedAsk, Plan

MOST_PER_PASS = 2_000  # placements of one workload
REST_HOLDS_S = 2.0  # so long at most a rest is placed by what was decided before its first portion


@dataclass(frozen=True, slots=True)
class Portion:
    """What is placed now, and by workload what is left for the next passes."""

    asks: tuple[Ask, ...]
    rests: Mapping[str, tuple[Ask, ...]]

    @property
    def left(self) -> dict[str, int]:
        """Return how many are left, by workload."""
        return {workload: sum(len(ask.indexes) for ask in asks) for workload, asks in self.rests.items()}


def portion_of(asks: Sequence[Ask], most: int = MOST_PER_PASS) -> Portion:
    """Return the asks without what is more than `most` of a workload."""
    taken: Counter[str] = Counter()
    rests: defaultdict[str, list[Ask]] = defaultdict(list)
    first = []
    for ask in asks:
        workload = keys.id_of_ref(ask.workload)
        count = min(most - taken[workload], len(ask.indexes))
        taken[workload] += count
        if count:
            first.append(replace(ask, indexes=ask.indexes[:count]))
        if count < len(ask.indexes):
            rests[workload].append(replace(ask, indexes=ask.indexes[count:]))
    return Portion(tuple(first), {workload: tuple(rest) for workload, rest in rests.items()})


@dataclass(frozen=True, slots=True)
class Rest:
    """A decision whose asks are what is left of it."""

    decision: Decision
    revision: int  # of the workload's record, by which it was decided
    until_s: float  # on the leader's clock: so long it holds


@dataclass(slots=True)
class Rests:
    """What is left of decisions that only add: it is placed portion by portion without deciding anew each time.

    To decide is to look at all that a workload has, so a burst would cost the square of its size. A rest holds for a
    short time, and only while the workload's record is the one that it was decided by: it is late by no more than that.
    """

    _kept: dict[str, Rest] = field(default_factory=dict)

    def keep(self, workload: str, rest: Rest) -> None:
        """Keep it if adding is all it does."""
        if rest.decision.only_adds:
            self._kept[workload] = rest

    def take(self, workload: str, revision: int, now_s: float) -> Rest | None:
        """Return the rest, which isn't kept any more; None: the workload is to be decided anew."""
        rest = self._kept.pop(workload, None)
        return rest if rest is not None and rest.revision == revision and now_s <= rest.until_s else None

    def forget(self) -> None:
        """Have all be decided anew: a write of this leader failed, so that not all is as it was planned."""
        self._kept.clear()


def with_left(plan: Plan, left: Mapping[str, int]) -> Plan:
    """Return the plan in which what is left of a workload is blocked as well, if anything of its portion is."""
    counted: set[str] = set()
    return replace(plan, blocked=tuple(_with_left(plan.blocked, left, counted)))


def _with_left(blocked: Iterable[BlockedAsk], left: Mapping[str, int], counted: set[str]) -> Iterable[BlockedAsk]:
    for one in blocked:
        workload = keys.id_of_ref(one.workload)
        more = 0 if workload in counted else left.get(workload, 0)
        counted.add(workload)
        yield replace(one, blocked=replace(one.blocked, count=one.blocked.count + more)) if more else one
