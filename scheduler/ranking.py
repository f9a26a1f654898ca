"""The nodes that fit one ask, best first, kept in order while its replicas are placed one by one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from manifests.placement import Policy
from manifests.reasons import Choice, Rejection, Runner
from scheduler.columns import Codes
from scheduler.hashing import Hashes, hash_of, key_of, mixed
from scheduler.ledger import Ledger
from scheduler.model import Ask
from scheduler.nodes import BASE, Rows
from scheduler.ports import has_ports
from scheduler.score import Rating, Scores, Weights, fitness_of, preferences, siblings
from scheduler.spreading import LEAST_SHARE, SpreadCounts
from scheduler.tree import Key, Level, Path, Tree
from scheduler.units import MILLIONTHS, SPREAD_WEIGHT

MOST_RUNNERS_UP = 3
_LEAST_ORDERS = 16
_SORTED = 2**18  # nodes in all orders together
_RANK_BITS = 20  # the low bits of a key tell equal scores apart, those above are minus the score
_RANKS = 2**_RANK_BITS - 1
_SIBLINGS = "siblings"


class Orders:
    """Of equal scores not always the same node comes first: each workload has an order of all nodes for that.

    It goes by the workload's name and version, and by nothing else: so what was planned is what is done, also at a
    later revision. Each order is a sort of all nodes: where there are many nodes, workloads share a few.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._hashes = ledger.nodes.name_hashes
        self._count = max(_LEAST_ORDERS, _SORTED // max(1, len(self._hashes)))
        self._known: dict[int, Ties] = {}

    def ties_of(self, ask: Ask) -> "Ties":
        ref = ask.workload  # without its uid: what is planned has none before it is applied
        number = hash_of(ref.namespace, ref.kind, ref.name, ask.version) % self._count
        if number not in self._known:
            self._known[number] = Ties(self._hashes, number)
        return self._known[number]


class Ties:
    """One order of all rows, by the nodes' names."""

    def __init__(self, hashes: Hashes, number: int) -> None:
        order = np.argsort(mixed(hashes, number), kind="stable")
        self.rows: list[int] = order.tolist()
        self.ranks: Rows = np.empty(len(order), np.int64)
        self.ranks[order] = np.arange(len(order))


@dataclass(slots=True)
class _Taken:
    """A node that gets replicas: what is left of it, and what makes its score."""

    free: list[float]
    rating: Rating
    preferences: tuple[tuple[str, float], ...]
    preferred: int  # what the preferences add up to, in millionths
    running: int
    same_version: int
    siblings: int
    count: int = 0


class Ranking:
    """Candidates for one ask. For each replica call `best`, `choice` and `take`; at last `book` counts them all."""

    def __init__(
        self, ask: Ask, ledger: Ledger, ties: Ties, rows: Rows, spreads: Sequence[SpreadCounts], weights: Weights
    ) -> None:
        self._weights = weights
        self._ask, self._ledger, self._ties, self._rows, self._spreads = ask, ledger, ties, rows, spreads
        self._workload = key_of(ask.workload)
        self._running = ledger.holdings.running(self._workload)
        self._same_version = ledger.holdings.of_version(self._workload, ask.version)
        self._total = ledger.holdings.total(self._workload) + len(ask.indexes)  # once all asked for are placed
        self._needed = ledger.nodes.amounts(ask.reserved)
        self._checked = [kind for kind, needed in enumerate(self._needed) if kind < BASE or needed]
        self._fit_part = "emptiness" if ask.policy is Policy.SPREAD else "bestFit"
        self._preferences = preferences(ask, ledger, rows)
        self._avoided = _Avoided(ask, ledger, rows, spreads, self._total) if ask.avoid else None
        self._taken: dict[int, _Taken] = {}
        levels: list[Level] = [*([self._avoided] if self._avoided else []), *map(_Values, spreads)]
        self._tree = Tree(levels, self._keys(), len(ask.indexes) + MOST_RUNNERS_UP)
        self._best: tuple[Key, Path] = 0, ()
        self._at: _Taken  # of the best node
        self._ratings: dict[tuple[float, ...], Rating] = {}  # by what the shares of a node are multiplied by
        self._runners: dict[Key, Runner] = {}  # who came next before mostly does so again, with the same score

    def best(self) -> int | None:
        """Return the row of the node with the highest score, or None when none is left."""
        best = self._tree.best()
        if best is None:
            return None
        self._best = best
        row: int = self._ties.rows[best[0] & _RANKS]
        taken = self._taken.get(row)
        self._at = self._taken[row] = self._begin(row) if taken is None else taken
        return row

    def choice(self, rejections: tuple[Rejection, ...], more: int) -> Choice:
        """Return why the best node is the best: its parts, who comes next, and who was ruled out."""
        (key, path), at = self._best, self._at
        score = -(key >> _RANK_BITS)
        parts = [(self._fit_part, (score - at.siblings - at.preferred) / MILLIONTHS)]
        if at.siblings:
            parts.append((_SIBLINGS, at.siblings / MILLIONTHS))
        parts += at.preferences
        zero = 0
        if path:
            shared, zero = self._shared_parts(path)
            parts += [(name, value / MILLIONTHS) for name, value in shared]
            score += sum([value for _, value in shared])
        return Choice(score / MILLIONTHS, tuple(parts), self._runners_up(zero), rejections, more)

    def take(self, row: int) -> bool:
        """Count one on the best node, and return whether another one fits there."""
        at = self._at
        at.count += 1
        at.running += 1
        at.same_version += 1
        at.free = [left - needed for left, needed in zip(at.free, self._needed, strict=True)]
        fits = self._still_fits(row, at)
        key, path = self._best
        if fits:
            at.siblings = siblings(at.running, at.same_version, self._total)
            own = at.rating.of(at.free) + at.preferred + at.siblings
            self._tree.replace_best((-own << _RANK_BITS) + (key & _RANKS))
        else:
            self._book(row)
            self._tree.replace_best(None)
        if self._spreads:
            opens = [s.add(code) for s, code in zip(self._spreads, self._values(path), strict=True)]
            if any(opens):
                self._tree.reopen()
        return fits

    def book(self) -> None:
        """Count in the ledger what was taken."""
        for row in list(self._taken):
            self._book(row)

    def _book(self, row: int) -> None:
        taken = self._taken.pop(row)
        self._ledger.free[:, row] = taken.free
        self._ledger.holdings.count(self._workload, self._ask.version, row, taken.count)

    def _begin(self, row: int) -> _Taken:
        nodes, free = self._ledger.nodes, self._ledger.free[:, row].tolist()
        running, same_version = self._running.get(row, 0), self._same_version.get(row, 0)
        preferences: list[tuple[str, int]] = []
        if self._preferences:
            place = int(np.searchsorted(self._rows, row))
            preferences = [(name, part) for name, scores in self._preferences if (part := int(scores[place]))]
        return _Taken(
            free=free,
            rating=self._rating(tuple(nodes.inverse[:, row].tolist())),
            preferences=tuple([(name, part / MILLIONTHS) for name, part in preferences]),
            preferred=sum([part for _, part in preferences]),
            running=running,
            same_version=same_version,
            siblings=siblings(running, same_version, self._total),
        )

    def _rating(self, inverse: tuple[float, ...]) -> Rating:
        """Return the one of all nodes of that size."""
        known = self._ratings.get(inverse)
        if known is None:
            known = self._ratings[inverse] = Rating(self._needed, inverse, self._ask.policy, self._weights)
        return known

    def _still_fits(self, row: int, at: _Taken) -> bool:
        ask, free, needed = self._ask, at.free, self._needed
        return (
            min([free[kind] - needed[kind] for kind in self._checked]) >= 0.0
            and (ask.max_per_node is None or at.running < ask.max_per_node)
            and (not ask.ports or has_ports(ask.ports, self._ledger.holdings, row))
        )

    # --- scores ---

    def _values(self, path: Path) -> Path:
        return path[1:] if self._avoided else path

    def _shared_parts(self, path: Path) -> tuple[list[tuple[str, int]], int]:
        """Return the parts that the node shares with its groups, and what counts as zero among them."""
        least = [spread.least() for spread in self._spreads]
        codes = self._values(path)
        parts = [
            (f"spread {s.spread.over}", s.part(code) - zero)
            for s, code, zero in zip(self._spreads, codes, least, strict=True)
        ]
        if self._avoided and path[0]:
            parts.insert(0, ("avoid", self._avoided.part))
        return parts, sum(least)

    def _runners_up(self, zero: int) -> tuple[Runner, ...]:
        keys = self._tree.top(MOST_RUNNERS_UP + 1)[1:]
        if self._spreads:  # what the groups add changes all the time
            return tuple([self._runner(key, zero) for key in keys])
        known = self._runners
        return tuple([known.get(key) or known.setdefault(key, self._runner(key, zero)) for key in keys])

    def _runner(self, key: Key, zero: int) -> Runner:
        name = self._ledger.nodes.view(self._ties.rows[key & _RANKS]).name
        return Runner(name, (-(key >> _RANK_BITS) - zero) / MILLIONTHS)

    # --- the beginning ---

    def _keys(self) -> Scores:
        """Return the key of each candidate."""
        own = fitness_of(self._ask, self._ledger, self._rows, self._weights)
        for _, scores in self._preferences:
            own += scores
        if self._running:
            own += self._siblings()
        return (-own << _RANK_BITS) + self._ties.ranks[self._rows]

    def _siblings(self) -> Scores:
        rows = self._rows.tolist() if len(self._rows) < len(self._running) else self._running
        among = {row: self._running[row] for row in rows if row in self._running}
        scores = np.zeros(len(self._rows), np.int64)
        places = np.searchsorted(self._rows, np.fromiter(among, np.int64, len(among)))
        for place, (row, running) in zip(places.tolist(), among.items(), strict=True):
            if place < len(scores) and self._rows[place] == row:
                scores[place] = siblings(running, self._same_version.get(row, 0), self._total)
        return scores


class _Values:
    """The level of a tree that is one spread of the ask."""

    def __init__(self, counts: SpreadCounts) -> None:
        self.codes = counts.candidates
        self._counts = counts

    def penalty(self, code: int) -> Key:
        return -self._counts.part(code) << _RANK_BITS

    def is_closed(self, code: int) -> bool:
        return self._counts.is_closed(code)


class _Avoided:
    """The level of a tree that puts nodes where it failed (1) below all others (0), whatever spreads add up to."""

    def __init__(self, ask: Ask, ledger: Ledger, rows: Rows, spreads: Sequence[SpreadCounts], total: int) -> None:
        heaviest = max((s.weight for s in spreads), default=SPREAD_WEIGHT)
        self.part = -round(heaviest * 2 * (total + 1) / LEAST_SHARE) * MILLIONTHS
        marks = np.zeros(ledger.nodes.size, np.int32)
        marks[[row for name in ask.avoid if (row := ledger.nodes.rows.get(name)) is not None]] = 1
        self.codes: Codes = marks[rows]

    def penalty(self, code: int) -> Key:
        return (-self.part << _RANK_BITS) if code else 0

    def is_closed(self, code: int) -> bool:
        return False
