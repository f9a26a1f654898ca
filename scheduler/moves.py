"""The cluster as moves leave it, one after another: each is tried out before it is proposed.

A move starts a second one of a slot elsewhere, and stops the first once the second serves. So a place for it must fit
twice: while the old one is there still, and when it is gone. Used by `rebalance` and `make_way`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from manifests.workloads import Kind
from scheduler.columns import Flags
from scheduler.hashing import WorkloadKey
from scheduler.ledger import Ledger
from scheduler.model import Ask, PlacedAllocation
from scheduler.nodes import Rows
from scheduler.ports import assign_devices, assign_ports
from scheduler.ranking import Orders, Ranking
from scheduler.rulings import judge, judge_unevenness
from scheduler.score import TIGHT, size_of
from scheduler.spreading import counts_of

Asks: TypeAlias = Mapping[str, Ask]  # by allocation: what its slot asks for, of all that may be moved
# Which of the rows that fit one are good enough, of the cluster without it; and its own row.
Accepts: TypeAlias = Callable[[Ask, Ledger, int, Rows], Flags]


@dataclass(frozen=True, slots=True)
class Move:
    """An allocation that is better elsewhere. `gain` is in the unit of what is aimed at, which `reason` tells."""

    allocation: PlacedAllocation
    to: str
    gain: float
    reason: str


@dataclass(frozen=True, slots=True)
class Proposal:
    """Moves in the order in which they can be made, each after the one before; and what they come to."""

    moves: tuple[Move, ...] = ()
    freed: tuple[str, ...] = ()  # nodes that are empty then, but for daemons
    rooms: tuple[str, ...] = ()  # nodes that have room then for what had none, one for each that finds it
    short: int = 0  # so many find none
    has_more: bool = False  # with more moves more may come of it


class Moves:
    """Moves in their order, and the cluster after them."""

    def __init__(self, start: Ledger, asks: Asks, orders: Orders | None = None) -> None:
        self.ledger = start.fork()
        self.targets: dict[str, str] = {}  # by allocation: to which node it goes
        self._start, self._asks = start, asks
        self._orders = orders or Orders(start)

    def fork(self) -> "Moves":
        twin = Moves(self.ledger, self._asks, self._orders)
        twin._start, twin.targets = self._start, self.targets.copy()
        return twin

    def origins(self) -> list[tuple[PlacedAllocation, str]]:
        """Return each allocation that is moved, as it was in the beginning, and where it goes."""
        origin = {a.id: a for row in self._start.nodes.rows.values() for a in self._start.holdings.on(row)}
        return [(origin[id_], to) for id_, to in self.targets.items()]

    def ask_of(self, a: PlacedAllocation) -> Ask:
        return self._asks[a.id]

    def on(self, row: int) -> list[PlacedAllocation]:
        """Return what is on the node by now and may be moved, the largest first."""
        here = [a for a in self.ledger.holdings.on(row) if a.id in self._asks]
        return sorted(here, key=lambda a: (-size_of(self._asks[a.id], self._start), a.id))

    def with_moved(self, chosen: Iterable[PlacedAllocation], accepts: Accepts) -> "Moves | None":
        """Return these moves and those of all that are chosen, to accepted nodes; None if one finds no place."""
        then, is_twice = self.fork(), False
        for a in chosen:
            is_twice |= a.id in then.targets
            if not then._move(a, accepts):
                return None
        return then._anew() if is_twice else then

    def _anew(self) -> "Moves | None":
        """Return the same with each moved once, to where it ends up; None if that isn't possible in this order."""
        anew = Moves(self._start, self._asks, self._orders)
        for allocation, to in self.origins():
            if not anew._move(allocation, Only(self.ledger.nodes.rows[to])):
                return None
        return anew

    def target_of(self, a: PlacedAllocation, accepts: Accepts) -> int | None:
        """Return the row of the node that it would go to now; None if it finds no place."""
        ledger, ask = self.ledger, self._asks[a.id]
        own = ledger.nodes.rows[a.node]
        with_old = _fitting(ask, ledger)
        ledger.drop(a.node, a.id)
        rows = np.intersect1d(with_old, _fitting(ask, ledger), assume_unique=True)
        rows = rows[rows != own]
        if len(rows):
            rows = rows[accepts(ask, ledger, own, rows)]
        row = self._best(ask, rows) if len(rows) else None
        ledger.put(a)
        return row

    def _move(self, a: PlacedAllocation, accepts: Accepts) -> bool:
        ledger, ask = self.ledger, self._asks[a.id]
        row = self.target_of(a, accepts)
        if row is None:
            return False
        ledger.drop(a.node, a.id)
        node = ledger.nodes.view(row)
        ports = assign_ports(ask, a.index, node.name, ledger.holdings, row, seed=0) if ask.ports else ()
        devices = assign_devices(ask, node, ledger.holdings, row) if ask.reserved.devices else ()
        ledger.put(replace(a, node=node.name, ports=ports, devices=devices))
        self.targets[a.id] = node.name
        return True

    def _best(self, ask: Ask, rows: Rows) -> int | None:
        """Return the node that is best by the scores that placements go by."""
        ledger = self.ledger
        counts = counts_of(ask, ledger, judge(ask, ledger).open_rows(), rows) if ask.spread else []
        return Ranking(ask, ledger, self._orders.ties_of(ask), rows, counts, TIGHT).best()


@dataclass(frozen=True, slots=True)
class Only:
    """Accepts one node."""

    row: int

    def __call__(self, ask: Ask, ledger: Ledger, own: int, rows: Rows) -> Flags:
        only: Flags = rows == self.row
        return only


def _fitting(ask: Ask, ledger: Ledger) -> Rows:
    verdict = judge(ask, ledger)
    if any(spread.max_skew is not None for spread in ask.spread):
        judge_unevenness(verdict, counts_of(ask, ledger, verdict.open_rows(), verdict.fitting()))
    return verdict.fitting()


def told(moves: Moves, of: Callable[[PlacedAllocation], tuple[float, str]]) -> tuple[Move, ...]:
    """Return the moves in their order, with what `of` says of the gain and the reason of each."""
    return tuple(Move(a, to, *of(a)) for a, to in moves.origins())


def running_on(rows: Rows, workload: WorkloadKey, ledger: Ledger) -> NDArray[np.int64]:
    """Return how many wanted allocations of the workload are on each of the nodes."""
    counts = np.zeros(ledger.nodes.size, np.int64)
    running = ledger.holdings.running(workload)
    counts[list(running.keys())] = list(running.values())
    return counts[rows]


def stays(a: PlacedAllocation) -> bool:
    """Say whether it keeps its node in use: what belongs to the node doesn't, nor what ends soon."""
    return a.workload.kind is not Kind.DAEMON and not a.is_leaving
