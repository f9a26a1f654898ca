"""The nodes that fit one ask, best first, kept in order while its replicas are placed one by one.

Nodes with the same spread values form a group. Within a group a node's score changes only when it gets an allocation
itself, so each group is a heap whose entries are always true. Over the groups lies a heap of their best nodes; its
entries may promise too much, never too little, since a value only gets more crowded. So the best one is found by
looking again at the top until it keeps its promise, and a replica costs about log(nodes).
"""

from collections.abc import Iterable
from heapq import heapify, heappop, heapreplace
from typing import TypeAlias

from manifests.reasons import Choice, Rejection, Runner
from scheduler.ledger import Ledger, NodeLedger, Siblings
from scheduler.model import Ask
from scheduler.score import DIGITS, SPREAD_WEIGHT, Spread, best_fit, siblings_part

MOST_RUNNERS_UP = 3
MOST_RULED_OUT = 8  # stored with each allocation; the rest are counted
_HEAP_TOP = 2 ** (MOST_RUNNERS_UP + 1) - 1  # the winner and the runners-up are among so many first entries of a heap

_Values: TypeAlias = tuple[str, ...]
_Entry: TypeAlias = tuple[float, int, str]  # minus the score, the tie, the node's name
_GroupEntry: TypeAlias = tuple[float, int, str, _Values]


class Ranking:
    """Candidates for one ask. Call `best`, count the placement in the ledger, then call `settle`."""

    def __init__(self, ask: Ask, ledger: Ledger, siblings: Siblings, candidates: Iterable[NodeLedger]) -> None:
        self._ask = ask
        self._ledger = ledger
        self._siblings = siblings
        self._total = siblings.running.total() + len(ask.indexes)  # of the workload, once all asked for are placed
        names = [node.name for node in candidates]
        self._spread = Spread(ask, siblings, ledger.nodes, names)
        top_weight = self._spread.weights[0] if ask.spread else SPREAD_WEIGHT
        self._avoid_part = -top_weight * 2 * (self._total + 1)  # below all that spreads can add up to
        self._groups: dict[_Values, list[_Entry]] = {}
        for name in names:
            self._groups.setdefault(self._spread.values(name), []).append(self._entry(name))
        for group in self._groups.values():
            heapify(group)
        self._top = [self._group_entry(values) for values in self._groups]
        heapify(self._top)

    def best(self) -> NodeLedger | None:
        """Return the node with the highest score, or None when none is left."""
        while self._top:
            fresh = self._group_entry(self._top[0][3])
            if fresh == self._top[0]:
                return self._ledger.nodes[fresh[2]]
            heapreplace(self._top, fresh)
        return None

    def choice(self, ruled_out: list[Rejection]) -> Choice:
        """Return why the best node is the best: its parts, who comes next, and who was ruled out."""
        _, _, name, values = self._top[0]
        least = self._spread.least()
        parts = (*self._own_parts(name), *self._spread.parts(values, least))
        zero = sum(least)
        return Choice(
            score=round(sum(value for _, value in parts), DIGITS),
            parts=parts,
            runners_up=tuple(Runner(n, round(-negative - zero, DIGITS)) for negative, _, n in self._runners_up()),
            rejections=tuple(ruled_out[:MOST_RULED_OUT]),
            more=max(len(ruled_out) - MOST_RULED_OUT, 0),
        )

    def settle(self, *, still_fits: bool) -> None:
        """Bring the order up to date after the best node got an allocation."""
        _, _, name, values = self._top[0]
        self._spread.add(values)
        group = self._groups[values]
        if still_fits:
            heapreplace(group, self._entry(name))
        else:
            heappop(group)
        if group:
            heapreplace(self._top, self._group_entry(values))
        else:
            heappop(self._top)

    def _own_parts(self, name: str) -> tuple[tuple[str, float], ...]:
        """Return the parts that don't depend on other nodes."""
        node = self._ledger.nodes[name]
        running, same_version = self._siblings.running[name], self._siblings.same_version[name]
        parts = [("bestFit", best_fit(node.free - self._ask.reserved, node.view.allocatable))]
        if running:
            parts.append(("siblings", siblings_part(running, same_version, self._total)))
        if name in self._ask.avoid:
            parts.append(("avoid", self._avoid_part))
        return tuple(parts)

    def _entry(self, name: str) -> _Entry:
        score = sum(value for _, value in self._own_parts(name))
        return -round(score, DIGITS), self._ledger.nodes[name].tie, name

    def _group_entry(self, values: _Values) -> _GroupEntry:
        negative, tie, name = self._groups[values][0]
        return negative - self._spread.part(values), tie, name, values

    def _runners_up(self) -> list[_Entry]:
        """Return the next best entries. Of several spreads' many groups only those near the top are looked at."""
        entries: list[_Entry] = []
        for _, _, _, values in self._top[:_HEAP_TOP]:
            part = self._spread.part(values)
            entries += [(negative - part, tie, name) for negative, tie, name in self._groups[values][:_HEAP_TOP]]
        entries.sort()
        return entries[1 : MOST_RUNNERS_UP + 1]
