"""The least that must go from one node so that something else fits there.

Of all sets that make enough room the best one takes no more of any workload than that one may miss (or as few more as
possible), then has the fewest allocations, then the lowest priorities, then those that have been at work for the
shortest time. No set is returned of which a part would do.

The search is exact as long as it takes few steps, as it does on nodes of some dozens of allocations. Beyond, it is the
best set that was found by then.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, inf
from typing import TypeAlias

from scheduler.hashing import WorkloadKey, key_of
from scheduler.model import PlacedAllocation

MOST_STEPS = 4_000
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


@dataclass(slots=True)
class _Search:
    """Branch and bound over how many of each group go."""

    groups: Sequence[Sequence[Candidate]]
    forced: Sequence[Candidate]
    may_miss: MayMiss
    best: list[Candidate] | None = None
    _best_cost: Cost | None = None
    _steps: int = 0
    _most: list[Amount] = field(default_factory=list)  # for each group, the most that one of it or of a later one holds
    _youngest: list[int] = field(default_factory=list)
    _chosen: list[Candidate] = field(default_factory=list)

    def run(self, lacking: Amount) -> None:
        most: Amount = (0.0,) * len(lacking)
        youngest = 0
        for group in reversed(self.groups):
            most = tuple(max(m, a) for m, a in zip(most, group[0].amount, strict=True))
            youngest = max(youngest, group[0].born_ms)
            self._most.insert(0, most)
            self._youngest.insert(0, youngest)
        self._look(0, 0, lacking)

    def _look(self, group: int, taken: int, lacking: Amount) -> None:
        """Try all that can be added: more of this group, of which some are taken, or some of later ones."""
        cost = cost_of((*self.forced, *self._chosen), self.may_miss)
        if all(lack <= 0 for lack in lacking):
            if self._best_cost is None or cost < self._best_cost:
                self.best, self._best_cost = list(self._chosen), cost
            return
        for number in range(group, len(self.groups)):
            members, start = self.groups[number], taken if number == group else 0
            if start == len(members) or not _helps(members[start], lacking):
                continue
            if self._steps >= MOST_STEPS or len(self._chosen) >= MOST_SEARCHED:
                return
            if not self._may_be_better(cost, number, lacking):
                return
            self._steps += 1
            self._chosen.append(members[start])
            left = tuple(lack - amount for lack, amount in zip(lacking, members[start].amount, strict=True))
            self._look(number, start + 1, left)
            self._chosen.pop()

    def _may_be_better(self, cost: Cost, number: int, lacking: Amount) -> bool:
        """Say whether taking from that group or later ones can still lead to something better than the best."""
        more = 0.0
        for lack, most in zip(lacking, self._most[number], strict=True):
            if lack > 0:
                more = max(more, ceil(lack / most) if most > 0 else inf)
        if self._best_cost is None or more == inf:
            return more < inf
        excess, count, highest, birth = cost
        return (excess, count + int(more), highest, birth - int(more) * self._youngest[number]) < self._best_cost


def _helps(candidate: Candidate, lacking: Amount) -> bool:
    return any(lack > 0 and amount > 0 for lack, amount in zip(lacking, candidate.amount, strict=True))
