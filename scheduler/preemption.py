"""Makes room for what fits nowhere: waits for what is being stopped anyhow, else stops the least of lower priority.

Called by `place` for what an ask lacks room for, once all of that priority are served. What waits for room claims it,
so that what is of lower priority, and served later, finds it taken. Nothing is placed where something must end first:
the next plan finds it on its way out, and waits; the one after that finds the room.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from manifests.reasons import Wait
from scheduler.columns import Flags
from scheduler.hashing import key_of
from scheduler.layers import layer_of
from scheduler.ledger import Ledger
from scheduler.model import Ask, Eviction, PlacedAllocation
from scheduler.nodes import BASE, Amounts, Rows
from scheduler.ranking import Ties
from scheduler.rulings import judge, judge_unevenness
from scheduler.spreading import counts_of
from scheduler.victims import Candidate, Cost, cost_of, least_victims

MOST_AT_ONCE = 64  # of one ask; the others are waited for once these have their places
NODES_AT_ONCE = 32  # are searched for the best victims
MOST_NODES = 96  # while all that was found takes more of a workload than it may miss
_STEPS = 8  # in which it is told how much a node lacks


@dataclass(slots=True)
class Room:
    """For how many of an ask room comes, where, and what must go for that."""

    waits: list[Wait] = field(default_factory=list)
    evictions: list[Eviction] = field(default_factory=list)


def make_room(ask: Ask, count: int, ledger: Ledger, ties: Ties) -> Room:
    """Return where so many of the ask will find room, as far as they will, and claim it in the ledger.

    An ask that doesn't preempt has nothing evicted, and claims the room that comes free anyhow as others do.
    """
    room = Room()
    if not ledger.layers.has_below(ask.priority):
        return room
    counts: dict[int, int] = {}
    known: dict[int, tuple[Candidate, ...]] = {}
    for _ in range(min(count, MOST_AT_ONCE)):
        prospect = _Prospect(ask, ledger, _rows_without_room(ask, ledger), known)
        row = prospect.where_room_comes()
        if row is None:
            found = prospect.cheapest(ties) if ask.preempts else None
            if found is None:
                break
            row, victims = found
            room.evictions += [_evicted(ask, victim, ledger) for victim in victims]
            gone = {key_of(victim.workload) for victim in victims}
            known = {r: there for r, there in known.items() if gone.isdisjoint(c.workload for c in there)}
        ledger.claim(ask, row)
        known.pop(row, None)
        counts[row] = counts.get(row, 0) + 1
    for row, many in counts.items():
        leaving = tuple(sorted(a.id for a in ledger.holdings.on(row) if a.is_leaving))
        room.waits.append(Wait(ledger.nodes.view(row).name, leaving, many))
    return room


def _rows_without_room(ask: Ask, ledger: Ledger) -> Rows:
    """Return the rows of the nodes that lack nothing but room."""
    verdict = judge(ask, ledger)
    if any(spread.max_skew is not None for spread in ask.spread):
        judge_unevenness(verdict, counts_of(ask, ledger, verdict.open_rows(), verdict.fitting()))
    return verdict.lacking_room()


def _evicted(ask: Ask, victim: PlacedAllocation, ledger: Ledger) -> Eviction:
    """Return the eviction, once the ledger has it on its way out."""
    ledger.no_longer_wanted(victim.node, victim.id)
    workload = key_of(victim.workload)
    if workload in ledger.may_miss:
        ledger.may_miss[workload] = max(0, ledger.may_miss[workload] - 1)
    return Eviction(victim.id, victim.node, victim.workload, ask.workload, ask.priority)


class _Prospect:
    """What nodes would have if things went, for one more of an ask."""

    def __init__(self, ask: Ask, ledger: Ledger, rows: Rows, known: dict[int, tuple[Candidate, ...]]) -> None:
        """`known` are the least victims of nodes that were searched before, and haven't changed since."""
        self._ask, self._ledger, self._rows, self._known = ask, ledger, rows, known
        needed = ledger.nodes.amounts(ask.reserved)
        devices = [ledger.nodes.kind_of(kind) for kind, _ in ask.reserved.devices]
        self._kinds = [*range(BASE), *(kind for kind in devices if kind is not None)]  # in the ask's order
        self._needed = np.array([needed[kind] for kind in self._kinds])[:, None]
        self._shape = (len(needed), ledger.nodes.size)
        self._has_all_kinds = None not in devices
        self._ports = [(port.host, port.protocol) for port in ask.ports if port.host is not None]
        self._coming = self._part(ledger.free) + self._part(ledger.layers.leaving(self._shape))
        self._companions = {key_of(n.workload) for n in ask.neighbours if n.weight is None and n.is_wanted}

    def _part(self, amounts: Amounts) -> Amounts:
        part: Amounts = amounts[self._kinds][:, self._rows]
        return part

    def _lacks(self, amounts: Amounts) -> Flags:
        lacks: Flags = np.asarray((amounts < self._needed).any(axis=0))
        return lacks

    def where_room_comes(self) -> int | None:
        """Return the first node by name that will have room once what is being stopped there has ended."""
        if not self._has_all_kinds:
            return None
        fits = np.zeros(self._ledger.nodes.size, np.bool_)
        fits[self._rows[~self._lacks(self._coming)]] = True
        present = self._ledger.nodes.present()
        return next((row for row in present[fits[present]].tolist() if not self._port_holders(row)), None)

    def cheapest(self, ties: Ties) -> tuple[int, tuple[PlacedAllocation, ...]] | None:
        """Return the node where the least has to go, and what that is; None if no node can make room."""
        best: tuple[Cost, int, int, Sequence[Candidate]] | None = None
        for rows in self._shortlists(ties):
            for row in rows:
                if row not in self._known:
                    self._known[row] = self._victims(row)
                if victims := self._known[row]:
                    cost = cost_of(victims, self._ledger.may_miss)
                    found = (cost, int(ties.ranks[row]), row, victims)
                    best = found if best is None or found[:2] < best[:2] else best
            if best is not None and best[0][0] == 0:
                break
        return (best[2], tuple(v.allocation for v in best[3])) if best else None

    def _shortlists(self, ties: Ties) -> Iterator[list[int]]:
        """Yield the nodes that can make room, some at a time: those that lack little first, then the lowest tiers."""
        if not self._has_all_kinds:
            return
        total = self._coming.copy()
        missing = self._lacks(total)
        tiers = np.zeros(len(self._rows), np.int64)
        for _, amounts in self._ledger.layers.below(self._ask.priority, self._shape):
            tiers += missing
            total += self._part(amounts)
            missing = self._lacks(total)
        shares = np.maximum(self._needed - self._coming, 0) * self._part(self._ledger.nodes.inverse)
        lacks = np.ceil(shares.max(axis=0, initial=0) * _STEPS)
        order = np.lexsort((ties.ranks[self._rows], tiers, lacks))
        rows = self._rows[order[~missing[order]]][:MOST_NODES].tolist()
        for start in range(0, len(rows), NODES_AT_ONCE):
            yield rows[start : start + NODES_AT_ONCE]

    def _victims(self, row: int) -> tuple[Candidate, ...]:
        """Return the least that must go from the node, nothing if that isn't enough."""
        ledger, holders = self._ledger, self._port_holders(row)
        place = int(np.searchsorted(self._rows, row))
        lacks = (self._needed[:, 0] - self._coming[:, place]).tolist()
        lacking = {kind: lack for kind, lack in zip(self._kinds, lacks, strict=True) if lack > 0}
        candidates = []
        for a in ledger.holdings.on(row):
            if a.is_wanted and a.priority < self._ask.priority and self._may_go(a):
                amounts = ledger.nodes.amounts(a.reserved)
                candidates.append(Candidate(a, tuple(amounts[kind] for kind in lacking), a.id in holders))
        if len(holders) > sum(c.is_forced for c in candidates):
            return ()  # a port's holder stays
        return least_victims(candidates, tuple(lacking.values()), ledger.may_miss) or ()

    def _may_go(self, a: PlacedAllocation) -> bool:
        """Say whether it isn't what belongs to its node, nor what the ask must be together with."""
        return layer_of(a) is not None and key_of(a.workload) not in self._companions

    def _port_holders(self, row: int) -> set[str]:
        """Return who has the host ports that are needed, and isn't on its way out."""
        holdings = self._ledger.holdings
        holders = {holder for port in self._ports for holder in holdings.port_holders(port, row)}
        return {h for h in holders if not ((known := holdings.find(row, h)) and known.is_leaving)}
