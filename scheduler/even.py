"""The moves that even out what is to be spread, where it has become uneven. Pure; see `moves` for what one is.

What counts, in this order: each spread of the workload, how many of it share a node, and for `policy: spread` how empty
nodes are. The move that gains most comes first; what gains little isn't worth a move.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from manifests.placement import Policy
from scheduler.columns import Flags
from scheduler.hashing import WorkloadKey, key_of
from scheduler.ledger import Ledger
from scheduler.model import Ask, PlacedAllocation
from scheduler.moves import Asks, Moves, Only, Proposal, running_on, told
from scheduler.nodes import Rows
from scheduler.rulings import judge
from scheduler.score import CONSOLIDATING, fitness_of
from scheduler.spreading import SpreadCounts, counts_of
from scheduler.units import MILLIONTHS

LEAST_CROWD = 0.5  # allocations, measured by the share of where they are
LEAST_EMPTINESS = 0.05  # of a node that is wholly empty
MOST_SOURCES = 4  # of one workload, the most crowded places first

Parts: TypeAlias = NDArray[np.float64]
Reasons: TypeAlias = Callable[[int], str]  # why that row is better


@dataclass(frozen=True, slots=True)
class _Gain:
    amount: float
    reason: str


class _Better:
    """Accepts nodes where the workload is spread better than with that allocation on its own; knows by how much."""

    def __init__(self) -> None:
        self._rows: Rows = np.zeros(0, np.int64)
        self._found: list[tuple[Flags, Parts, Reasons]] = []

    def __call__(self, ask: Ask, ledger: Ledger, own: int, rows: Rows) -> Flags:
        self._rows, self._found = rows, []
        both = np.union1d(rows, [own])
        places, place = np.searchsorted(both, rows), int(np.searchsorted(both, own))
        is_open, accepted = np.ones(len(rows), np.bool_), np.zeros(len(rows), np.bool_)
        for scores, least, reasons in self._measures(ask, ledger, own, both):
            more = scores[places] - scores[place]
            better: Flags = is_open & (more >= least)
            self._found.append((better, more, reasons))
            accepted |= better
            is_open &= more == 0
        return accepted

    def gain(self, row: int) -> _Gain:
        """Return what is gained there, of the rows that were accepted."""
        place = int(np.searchsorted(self._rows, row))
        more, reasons = next((more, reasons) for better, more, reasons in self._found if better[place])
        return _Gain(float(more[place]), reasons(row))

    def _measures(self, ask: Ask, ledger: Ledger, own: int, rows: Rows) -> Iterator[tuple[Parts, float, Reasons]]:
        """Yield what is looked at: the scores of the nodes, by how much more is worth a move, and how that is said."""
        if ask.spread:
            for counts in counts_of(ask, ledger, judge(ask, ledger).open_rows(), rows):
                yield counts.parts() / (counts.weight * MILLIONTHS), LEAST_CROWD, _of_spread(counts, ask, own)
        workload = key_of(ask.workload)
        running = dict(ledger.holdings.running(workload))  # as it is without the one
        yield -running_on(rows, workload, ledger).astype(np.float64), 1.0, _of_siblings(running, ask, ledger, own)
        if ask.policy is Policy.SPREAD:
            name = ledger.nodes.view(own).name
            emptiness = fitness_of(ask, ledger, rows, CONSOLIDATING) / MILLIONTHS
            yield emptiness, LEAST_EMPTINESS, lambda row: f"{name} is fuller than {ledger.nodes.view(row).name}"


def _of_spread(counts: SpreadCounts, ask: Ask, own: int) -> Reasons:
    here, many = counts.place(int(counts.codes[own]))

    def reason(row: int) -> str:
        there, few = counts.place(int(counts.codes[row]))
        return f"{counts.spread.over} {here} has {many + 1} of {ask.workload}, {there} has {few}"

    return reason


def _of_siblings(running: Mapping[int, int], ask: Ask, ledger: Ledger, own: int) -> Reasons:
    def reason(row: int) -> str:
        here, there = (ledger.nodes.view(r).name for r in (own, row))
        return f"{here} has {running.get(own, 0) + 1} of {ask.workload}, {there} has {running.get(row, 0)}"

    return reason


def even(ledger: Ledger, asks: Asks, *, max_moves: int) -> Proposal:
    """Return the moves after which no other one gains enough, those that gain most first."""
    asks = {id_: ask for id_, ask in asks.items() if ask.spread or ask.policy is Policy.SPREAD}
    moves, gains = Moves(ledger, asks), dict[str, _Gain]()
    specs = {key_of(ask.workload): ask for ask in asks.values()}
    queue = [(-inf, workload) for workload in sorted(specs) if _is_uneven(specs[workload], ledger)]
    while queue:
        hoped, workload = heappop(queue)
        found = _best(workload, moves)
        if found is None:
            continue
        gain, a, row = found
        if queue and -gain.amount > max(hoped, queue[0][0]):  # another one may gain more
            heappush(queue, (-gain.amount, workload))
            continue
        then = moves.with_moved([a], Only(row))
        if then is None:
            continue
        if len(then.targets) > max_moves:
            return Proposal(told(moves, lambda a: _told(gains[a.id])), has_more=True)
        moves, gains[a.id] = then, gain
        heappush(queue, (-inf, workload))
    return Proposal(told(moves, lambda a: _told(gains[a.id])))


def _is_uneven(ask: Ask, ledger: Ledger) -> bool:
    """Say whether anything may gain: soon said of the many workloads that are as even as can be."""
    running = ledger.holdings.running(key_of(ask.workload))
    has_shares = any(spread.shares for spread in ask.spread)
    if ask.policy is Policy.SPREAD or has_shares or max(running.values(), default=0) > 1:
        return True
    rows, counts = list(running.keys()), list(running.values())
    for spread in ask.spread:
        codes = ledger.nodes.column(spread.over).codes
        there = np.bincount(codes[rows], counts, len(ledger.nodes.column(spread.over).values))
        known = there[np.unique(codes[ledger.nodes.is_open])]
        if there.max() - min(known, default=0.0) > 1:
            return True
    return False


def _told(gain: _Gain) -> tuple[float, str]:
    return gain.amount, gain.reason


def _best(workload: WorkloadKey, moves: Moves) -> tuple[_Gain, PlacedAllocation, int] | None:
    """Return what gains most of the workload by moving now, and to which row."""
    found: list[tuple[float, str, _Gain, PlacedAllocation, int]] = []
    for a in _sources(workload, moves):
        better = _Better()
        row = moves.target_of(a, better)
        if row is not None:
            gain = better.gain(row)
            found.append((-gain.amount, a.id, gain, a, row))
    best = min(found, key=lambda item: item[:2], default=None)
    return best[2:] if best else None


def _sources(workload: WorkloadKey, moves: Moves) -> list[PlacedAllocation]:
    """Return one allocation of each node, preferably one that isn't moved yet, of the most crowded places."""
    ledger = moves.ledger
    found = []
    for row, running in ledger.holdings.running(workload).items():
        here = [a for a in moves.on(row) if key_of(a.workload) == workload]
        if here:
            a = min(here, key=lambda a: (a.id in moves.targets, a.id))
            found.append((row, running, a))
    crowds = _crowds(moves, [(row, running) for row, running, _ in found], found[0][2]) if found else {}
    found.sort(key=lambda item: (crowds[item[0]], ledger.nodes.view(item[0]).name))
    return [a for _, _, a in found[:MOST_SOURCES]]


def _crowds(moves: Moves, held: Sequence[tuple[int, int]], one: PlacedAllocation) -> dict[int, tuple[float, ...]]:
    """Return what each node's places score as they are, by the order of what counts: the lowest is the most crowded."""
    ledger, ask = moves.ledger, moves.ask_of(one)
    rows = np.array([row for row, _ in held], np.int64)
    counts = counts_of(ask, ledger, judge(ask, ledger).open_rows(), rows) if ask.spread else []
    free = fitness_of(ask, ledger, rows, CONSOLIDATING).tolist()
    return {
        row: (*(float(c.part(int(c.codes[row]))) for c in counts), -float(running), free[number])
        for number, (row, running) in enumerate(held)
    }
