"""Places what is asked for on nodes, and says why: a snapshot in, a plan out.

The same snapshot and seed give the same plan, on every machine and in whatever order the snapshot lists its nodes.
The leader commits what this returns; dry runs and simulations call it just the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from manifests.allocations import allocation_id
from manifests.reasons import Blocked, Rejection
from scheduler.ledger import Ledger
from scheduler.model import Ask, BlockedAsk, Eviction, PlacedAllocation, Placement, Plan, Snapshot
from scheduler.ports import assign_devices, assign_ports
from scheduler.preemption import make_room
from scheduler.ranking import Orders, Ranking
from scheduler.rulings import Verdict, judge, judge_unevenness
from scheduler.score import CONSOLIDATING, TIGHT, Weights, size_of
from scheduler.soundness import unsound
from scheduler.spreading import counts_of

MOST_RULED_OUT = 8  # stored with each allocation; the rest are counted


def place(asks: Sequence[Ask], snapshot: Snapshot | Ledger, *, seed: int) -> Plan:
    """Return a node, or the reasons against all nodes, for every index of every ask.

    Those of higher priority are served first. Among equals the larger ones are, which packs best, and empty nodes stay
    empty, as long as all of them find room; if not, they are packed as tightly as can be. If even so not all find room,
    they are served in their order. One that can't be met never stops another of its priority. What still has no room is
    waited for, or made: see `preemption`. The seed is for host ports: one that was just freed isn't given away at once.
    """
    ledger = snapshot if isinstance(snapshot, Ledger) else Ledger.of(snapshot)
    orders = Orders(ledger)
    queue = sorted((_without_repeats(ask) for ask in asks), key=lambda ask: -ask.priority)
    larger_first = sorted(queue, key=lambda ask: (-ask.priority, -size_of(ask, ledger)))
    for weights in (CONSOLIDATING, TIGHT):
        plan = _serve(larger_first, ledger.fork(), orders, weights, seed=seed)
        if len(queue) == 1 or all(_is_hopeless(ask, ledger) for ask in _blocked_asks(plan, queue)):
            return plan
    return _serve(queue, ledger.fork(), orders, CONSOLIDATING, seed=seed)


def _without_repeats(ask: Ask) -> Ask:
    """Return it with each slot once."""
    return ask if len(set(ask.indexes)) == len(ask.indexes) else replace(ask, indexes=tuple(dict.fromkeys(ask.indexes)))


def _blocked_asks(plan: Plan, asks: Sequence[Ask]) -> list[Ask]:
    left = {(b.workload.uid, index) for b in plan.blocked for index in b.indexes}
    return [ask for ask in asks if any((ask.workload.uid, index) in left for index in ask.indexes)] if left else []


def _is_hopeless(ask: Ask, ledger: Ledger) -> bool:
    """Say whether not one of it fits even if it is served first."""
    return bool(unsound(ask) or _nowhere(ask, ledger)) or not len(judge(ask, ledger).fitting())


def _serve(asks: Sequence[Ask], ledger: Ledger, orders: Orders, weights: Weights, *, seed: int) -> Plan:
    placements: list[Placement] = []
    blocked: list[BlockedAsk] = []
    evictions: list[Eviction] = []
    for _, equals in groupby(asks, key=lambda ask: ask.priority):
        short: list[tuple[Ask, BlockedAsk]] = []
        for ask in equals:
            note = unsound(ask) or _nowhere(ask, ledger)
            placed = [] if note else _place_ask(ask, ledger, orders, weights, seed=seed)
            placements += placed
            if left := ask.indexes[len(placed) :]:
                short.append((ask, BlockedAsk(ask.workload, left, _blocked(ask, len(left), ledger, note))))
        for ask, one in short:
            if not one.blocked.note:
                room = make_room(ask, len(one.indexes), ledger, orders.ties_of(ask))
                evictions += room.evictions
                one = replace(one, blocked=replace(one.blocked, waits=tuple(room.waits)))
            blocked.append(one)
    return Plan(tuple(placements), tuple(blocked), tuple(evictions))


def with_plan(snapshot: Snapshot, plan: Plan) -> Snapshot:
    """Return the snapshot as it will be once the plan is carried out, for what-if questions."""
    placed = (placed_of(p, snapshot.revision) for p in plan.placements)
    evicted = {e.allocation for e in plan.evictions}
    here = [replace(a, is_wanted=False, is_leaving=True) if a.id in evicted else a for a in snapshot.allocations]
    return replace(snapshot, allocations=(*here, *placed))


def placed_of(placement: Placement, revision: int) -> PlacedAllocation:
    """Return the allocation that a placement of a plan made at that revision becomes."""
    return PlacedAllocation(
        id=allocation_id(placement.workload, placement.index, revision),
        workload=placement.workload,
        version=placement.version,
        index=placement.index,
        node=placement.node,
        reserved=placement.reserved,
        ports=placement.ports,
        is_wanted=True,
        devices=placement.devices,
    )


def _place_ask(ask: Ask, ledger: Ledger, orders: Orders, weights: Weights, *, seed: int) -> list[Placement]:
    """Place the indexes as far as they fit: on the nodes that it prefers, and then on all."""
    first = _place_among(ask, ask.prefer, ledger, orders, weights, seed=seed) if ask.prefer else []
    rest = replace(ask, indexes=ask.indexes[len(first) :]) if first else ask
    return [*first, *_place_among(rest, None, ledger, orders, weights, seed=seed)] if rest.indexes else first


def _place_among(
    ask: Ask, names: frozenset[str] | None, ledger: Ledger, orders: Orders, weights: Weights, *, seed: int
) -> list[Placement]:
    """Place the indexes one by one on the node that is best by then, until none fits: the nodes are filtered once."""
    verdict = judge(ask, ledger)
    rows = verdict.fitting()
    if names is not None:
        rows = rows[np.isin(rows, [row for name in names if (row := ledger.nodes.rows.get(name)) is not None])]
    if not len(rows):
        return []
    ranking = Ranking(
        ask, ledger, orders.ties_of(ask), rows, counts_of(ask, ledger, verdict.open_rows(), rows), weights
    )
    ruled_out = _RuledOut.by(verdict)
    placements: list[Placement] = []
    for index in ask.indexes:
        row = ranking.best()
        if row is None:
            break
        node = ledger.nodes.view(row)
        placement = Placement(
            ask.workload,
            ask.version,
            index,
            node.name,
            ask.reserved,
            assign_ports(ask, index, node.name, ledger.holdings, row, seed=seed) if ask.ports else (),
            ranking.choice(ruled_out.listed, ruled_out.more),
            assign_devices(ask, node, ledger.holdings, row) if ask.reserved.devices else (),
        )
        placements.append(placement)
        if placement.ports or placement.devices:
            ledger.hold(placement, row)
        if not ranking.take(row):
            ruled_out.add(ask, ledger, row)
    ranking.book()
    return placements


@dataclass(slots=True)
class _RuledOut:
    """Which nodes can't take another one: a few by name, the rest counted. Not what is only too uneven for now."""

    listed: tuple[Rejection, ...]
    more: int

    @classmethod
    def by(cls, verdict: Verdict) -> "_RuledOut":
        places = verdict.ruled_out()
        listed = tuple(verdict.rejection(int(place)) for place in places[:MOST_RULED_OUT])
        return cls(listed, len(places) - len(listed))

    def add(self, ask: Ask, ledger: Ledger, row: int) -> None:
        if len(self.listed) < MOST_RULED_OUT:
            self.listed += (judge(ask, ledger, row).rejection(0),)
        else:
            self.more += 1


def _nowhere(ask: Ask, ledger: Ledger) -> str:
    if not ledger.nodes.rows:
        return "there are no nodes"
    if ask.only_node is not None and ask.only_node not in ledger.nodes.rows:
        return f"there is no node {ask.only_node}"
    return ""


def _blocked(ask: Ask, count: int, ledger: Ledger, note: str) -> Blocked:
    if note:
        return Blocked(ask.version, count, (), note)
    return Blocked.summed_up(ask.version, count, rejections_of(ask, ledger))


def rejections_of(ask: Ask, ledger: Ledger) -> list[Rejection]:
    """Return what rules out each node that can't take one more of the ask now, by name."""
    verdict = judge(ask, ledger)
    judge_unevenness(verdict, counts_of(ask, ledger, verdict.open_rows(), verdict.fitting()))
    return verdict.rejections()
