"""The least that must go from one node so that something else fits there.

Of all sets that make enough room the best one takes no more of any workload than that one may miss (or as few more as
possible), then has the fewest allocations, then the lowest priorities, then those that have been at work for the
shortest time. No set is returned of which a part would do.

The search is exact as long as it takes few steps, as it does on nodes of some dozens of allocations. Beyond, it is the
best set that was found by then.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, inf
from typing import TypeAlias

from scheduler.hashing import WorkloadKey, key_of
from scheduler.model import PlacedAllocation

MOST_STEPS = 1_000
MOST_SEARCHED = 200  # in one set

Amount: TypeAlias = tuple[float, ...]  # of each resource that is lacking
Cost: TypeAlias = tuple[int, int, int, int]  # more than may be missed, count, highest priority, minus births
MayMiss: TypeAlias = Mapping[WorkloadKey, int]


@dataclass(frozen=True, slots=True)
class Candidate:
    """An allocation that may be stopped, and how much it holds of what is lacking."""

    allocation: PlacedAllocation
    amount: Amount
    is_forced: bool = False  # it holds a host port that is needed

    @property
    def born_ms(self) -> int:
        return round(self.allocation.created_s * 1000)

    @property
    def workload(self) -> WorkloadKey:
        return key_of(self.allocation.workload)


def cost_of(victims: Iterable[Candidate], may_miss: MayMiss) -> Cost:
    """Return what the set costs: the lower, the better."""
    counts: dict[WorkloadKey, int] = {}
    count, highest, born_ms = 0, 0, 0
    for v in victims:
        counts[v.workload] = counts.get(v.workload, 0) + 1
        count, highest, born_ms = count + 1, max(highest, v.allocation.priority), born_ms + v.born_ms
    excess = sum(max(0, many - may_miss.get(workload, many)) for workload, many in counts.items())
    return excess, count, highest, -born_ms


def least_victims(candidates: Sequence[Candidate], lacking: Amount, may_miss: MayMiss) -> tuple[Candidate, ...] | None:
    """Return the best set that holds what is lacking, in the order of their ids; None if all together hold too little.

    What is lacking are amounts above 0. Those that hold a needed port go in any case.
    """
    forced = [c for c in candidates if c.is_forced]
    lacking = tuple(lack - sum(c.amount[kind] for c in forced) for kind, lack in enumerate(lacking))
    rest = [c for c in candidates if not c.is_forced]
    if any(lack > sum(c.amount[kind] for c in rest) for kind, lack in enumerate(lacking)):
        return None
    search = _Search(_groups(rest, may_miss), forced, may_miss)
    search.run(lacking)
    best = search.best if search.best is not None else rest  # too many steps, before anything was found
    return tuple(sorted((*forced, *_without_needless(best, lacking)), key=lambda c: c.allocation.id))


def _groups(candidates: Iterable[Candidate], may_miss: MayMiss) -> list[list[Candidate]]:
    """Return those that differ in age alone together, the youngest first: none goes before a younger one.

    The groups that are likeliest to be in the best set come first, so that others are soon known to be worse.
    """
    found: dict[tuple[WorkloadKey | None, int, Amount], list[Candidate]] = {}
    for c in sorted(candidates, key=lambda c: (-c.born_ms, c.allocation.id)):
        if any(c.amount):
            limited = c.workload if c.workload in may_miss else None
            found.setdefault((limited, c.allocation.priority, c.amount), []).append(c)
    groups = list(found.values())
    most = [max((group[0].amount[k] for group in groups), default=1.0) or 1.0 for k in range(_kinds(groups))]

    def hope(group: list[Candidate]) -> tuple[bool, int, float, int, str]:
        first = group[0]
        share = sum(amount / m for amount, m in zip(first.amount, most, strict=True))
        must_stay = may_miss.get(first.workload, 1) <= 0
        return must_stay, first.allocation.priority, -share, -first.born_ms, first.allocation.id

    return sorted(groups, key=hope)


def _kinds(groups: Sequence[Sequence[Candidate]]) -> int:
    return len(groups[0][0].amount) if groups else 0


def _without_needless(victims: Sequence[Candidate], lacking: Amount) -> list[Candidate]:
    """Return the set without those that needn't go, the most valuable spared first."""
    spare = [sum(c.amount[kind] for c in victims) - lack for kind, lack in enumerate(lacking)]
    kept = []
    for victim in sorted(victims, key=lambda c: (-c.allocation.priority, c.born_ms, c.allocation.id)):
        if all(amount <= left for amount, left in zip(victim.amount, spare, strict=True)):
            spare = [left - amount for amount, left in zip(victim.amount, spare, strict=True)]
        else:
            kept.append(victim)
    return kept


class _Search:
    """Branch and bound over how many of each group go."""

    def __init__(self, groups: Sequence[Sequence[Candidate]], forced: Sequence[Candidate], may_miss: MayMiss) -> None:
        self.best: list[Candidate] | None = None
        self._best_cost: Cost | None = None
        self._groups = groups
        here = {c.workload for c in forced} | {group[0].workload for group in groups}
        self._left = {workload: may_miss[workload] for workload in here if workload in may_miss}
        self._chosen: list[Candidate] = []
        self._steps = 0
        self._bounds = _bounds(groups, may_miss)
        for c in forced:
            if c.workload in self._left:
                self._left[c.workload] -= 1
        self._first = cost_of(forced, may_miss)

    def run(self, lacking: Amount) -> None:
        self._look(0, 0, lacking, self._first)

    def _look(self, group: int, taken: int, lacking: Amount, cost: Cost) -> None:
        """Try all that can be added: more of this group, of which some are taken, or some of later ones."""
        if all(lack <= 0 for lack in lacking):
            if self._best_cost is None or cost < self._best_cost:
                self.best, self._best_cost = list(self._chosen), cost
            return
        for number in range(group, len(self._groups)):
            members, start = self._groups[number], taken if number == group else 0
            if start == len(members) or not _helps(members[start], lacking):
                continue
            if self._steps >= MOST_STEPS or len(self._chosen) >= MOST_SEARCHED:
                return
            if not self._may_be_better(cost, number, lacking):
                return
            self._steps += 1
            victim = members[start]
            left = tuple(lack - amount for lack, amount in zip(lacking, victim.amount, strict=True))
            more = self._take(victim, cost)
            self._look(number, start + 1, left, more)
            self._put_back(victim)

    def _take(self, victim: Candidate, cost: Cost) -> Cost:
        excess, count, highest, birth = cost
        self._chosen.append(victim)
        left = self._left.get(victim.workload)
        if left is not None:
            self._left[victim.workload] = left - 1
            excess += left <= 0
        return excess, count + 1, max(highest, victim.allocation.priority), birth - victim.born_ms

    def _put_back(self, victim: Candidate) -> None:
        self._chosen.pop()
        if victim.workload in self._left:
            self._left[victim.workload] += 1

    def _may_be_better(self, cost: Cost, number: int, lacking: Amount) -> bool:
        """Say whether taking from that group or later ones can still lead to something better than the best."""
        bound, more = self._bounds[number], 0.0
        for lack, most in zip(lacking, bound.most, strict=True):
            if lack > 0:
                more = max(more, ceil(lack / most) if most > 0 else inf)
        if self._best_cost is None or more == inf:
            return more < inf
        excess, count, highest, birth = cost
        many = int(more)
        least_excess = excess + many if bound.must_stay else excess
        reach = (least_excess, count + many, max(highest, bound.priority), birth - many * bound.youngest_ms)
        return reach < self._best_cost


@dataclass(frozen=True, slots=True)
class _Bound:
    """What is the best of a group and all later ones, each for itself."""

    most: Amount
    priority: int
    youngest_ms: int
    must_stay: bool  # the workloads of all of them may miss none


def _bounds(groups: Sequence[Sequence[Candidate]], may_miss: MayMiss) -> list[_Bound]:
    bounds: list[_Bound] = []
    for group in reversed(groups):
        first = group[0]
        own = _Bound(first.amount, first.allocation.priority, first.born_ms, may_miss.get(first.workload, 1) <= 0)
        if bounds:
            later = bounds[-1]
            own = _Bound(
                tuple(max(pair) for pair in zip(own.most, later.most, strict=True)),
                min(own.priority, later.priority),
                max(own.youngest_ms, later.youngest_ms),
                own.must_stay and later.must_stay,
            )
        bounds.append(own)
    return bounds[::-1]


def _helps(candidate: Candidate, lacking: Amount) -> bool:
    return any(lack > 0 and amount > 0 for lack, amount in zip(lacking, candidate.amount, strict=True))
