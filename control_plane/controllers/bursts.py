"""A burst of replicas is placed in portions: so it delays nobody by more than a pass. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from control_plane import keys
from scheduler.model import Ask, BlockedAsk, Plan

MOST_PER_PASS = 500  # placements of one workload


@dataclass(frozen=True, slots=True)
class Portion:
    """What is placed now, and by workload how many are left for the next passes."""

    asks: tuple[Ask, ...]
    left: Mapping[str, int]


def portion_of(asks: Sequence[Ask], most: int = MOST_PER_PASS) -> Portion:
    """Return the asks without what is more than `most` of a workload."""
    taken: Counter[str] = Counter()
    left: Counter[str] = Counter()
    first = []
    for ask in asks:
        workload = keys.id_of_ref(ask.workload)
        indexes = ask.indexes[: most - taken[workload]]
        taken[workload] += len(indexes)
        if indexes:
            first.append(replace(ask, indexes=indexes))
        if len(indexes) < len(ask.indexes):
            left[workload] += len(ask.indexes) - len(indexes)
    return Portion(tuple(first), dict(left))


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
