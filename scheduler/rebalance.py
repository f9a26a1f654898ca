"""The fewest moves that free whole nodes, for a cluster that has become ragged. Pure; see `moves` for what one is.

Greedy: the nodes with the fewest allocations are emptied first, each wholly or not at all, onto nodes that stay in use.
Those only gain, so what found no place once finds none later, and a second look after the moves proposes nothing.
"""

from collections import Counter
from collections.abc import Iterator

import numpy as np

from manifests.placement import Policy
from scheduler.columns import Flags
from scheduler.hashing import key_of
from scheduler.ledger import Ledger
from scheduler.model import Ask, PlacedAllocation
from scheduler.moves import Asks, Moves, Proposal, running_on, stays, told
from scheduler.nodes import Rows
from scheduler.rulings import judge
from scheduler.score import preferences
from scheduler.spreading import counts_of

MOST_SOURCES = 64  # nodes that are tried, those with the fewest allocations first


def pack(ledger: Ledger, asks: Asks, *, max_moves: int) -> Proposal:
    """Return the moves that free whole nodes of all but daemons. What is to be spread out isn't moved for that."""
    asks = {id_: ask for id_, ask in asks.items() if ask.policy is not Policy.SPREAD}
    moves, in_use = Moves(ledger, asks), _in_use(ledger)
    beyond: set[int] = set()
    freed: list[int] = []
    while True:
        before = len(freed)
        for row in list(_sources(moves, in_use, asks)):
            here = moves.on(row)
            if len(here) + len(moves.targets) > max_moves:
                beyond.add(row)
                continue
            then = moves.with_moved(here, _Gently(ledger, in_use - {row}))
            if then is None:
                continue
            moves = then
            in_use.discard(row)
            beyond.discard(row)
            freed.append(row)
        if len(freed) == before:
            break
    many = Counter(a.node for a, _ in moves.origins())

    def of(a: PlacedAllocation) -> tuple[float, str]:
        others = f" with {many[a.node] - 1} more" if many[a.node] > 1 else ""
        return 1 / many[a.node], f"frees {a.node}{others}"

    names = tuple(sorted(ledger.nodes.view(row).name for row in freed))
    return Proposal(told(moves, of), freed=names, has_more=bool(beyond))


class _Gently:
    """Accepts nodes among some, where no workload is more crowded than anywhere now, nor likes it less."""

    def __init__(self, start: Ledger, among: set[int]) -> None:
        self._start = start
        self._among = np.zeros(start.nodes.size, np.bool_)
        self._among[list(among)] = True

    def __call__(self, ask: Ask, ledger: Ledger, own: int, rows: Rows) -> Flags:
        workload = key_of(ask.workload)
        most = max(self._start.holdings.running(workload).values(), default=0)
        if ask.spread:  # what is to be spread out over anything isn't to share nodes either
            most = ledger.holdings.running(workload).get(own, 0) + 1
        is_fine: Flags = self._among[rows] & (running_on(rows, workload, ledger) < most)
        both = np.union1d(rows, [own])
        places, place = np.searchsorted(both, rows), int(np.searchsorted(both, own))
        for _, scores in preferences(ask, ledger, both):
            is_fine &= scores[places] >= scores[place]
        if ask.spread:
            for counts in counts_of(ask, ledger, judge(ask, ledger).open_rows(), both):
                parts = counts.parts()
                is_fine &= parts[places] >= parts[place]
        return is_fine


def _in_use(ledger: Ledger) -> set[int]:
    """Return the open nodes that hold more than what belongs to them."""
    rows = ledger.nodes.present().tolist()
    return {row for row in rows if ledger.nodes.is_open[row] and any(map(stays, ledger.holdings.on(row)))}


def _sources(moves: Moves, in_use: set[int], asks: Asks) -> Iterator[int]:
    """Yield the nodes of which all may be moved, those with the fewest allocations first."""
    ledger, found = moves.ledger, []
    for row in in_use:
        here = [a for a in ledger.holdings.on(row) if stays(a)]
        if all(a.id in asks for a in here):
            found.append((len(here), ledger.nodes.view(row).name, row))
    yield from (row for _, _, row in sorted(found)[:MOST_SOURCES])
