"""The smallest changes with which one more of an ask would fit somewhere. Each is tried out before it is told."""

from collections.abc import Iterator

import numpy as np

from manifests.explanations import Change, Lift, Remedy
from manifests.reasons import Code
from scheduler.columns import Flags
from scheduler.faults import Faults
from scheduler.hashing import key_of
from scheduler.layers import layer_of
from scheduler.ledger import Ledger
from scheduler.lifts import Step, amounts_of, fits_row, gives_room, moving, step_for, would_fit
from scheduler.model import Ask, Eligibility, NodeView, PlacedAllocation, Snapshot
from scheduler.nodes import BASE, Rows
from scheduler.units import MILLIONTHS

MOST_REMEDIES = 6
_TRIES = 4  # nodes for which one rule's lifting is tried, the likeliest first
_MOST_VICTIMS_NODES = 64
_ORDER = {lift: number for number, lift in enumerate(Lift)}


class Remedies:
    """What would change the answer for one ask."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._counts = faults.counts.copy()  # how many rules are to be lifted; 0: not to be looked at

    def leave_out(self, places: Flags) -> None:
        self._counts[places] = 0

    def best(self, *, with_new_node: bool) -> tuple[Remedy, ...]:
        """Return a handful, the best first: changes of the workload, then of the cluster, then of several things."""
        single = [found for number in range(len(self._faults.rulings)) for found in self._single(number)]
        single += self._moves()
        steps = sorted(single, key=lambda found: (len(found[1].changes), _order(found[1]), found[1].rank))
        remedies = [Remedy(self._faults.name(place), step.changes) for place, step in steps]
        if not remedies:
            remedies = list(self._combined())
        last = list(self._new_node()) if with_new_node else []
        return (*remedies[: MOST_REMEDIES - len(last)], *last)

    # --- one change ---

    def _single(self, number: int) -> Iterator[tuple[int, Step]]:
        """Yield where the rule alone is in the way and how it is lifted, the best place of each kind."""
        alone = np.flatnonzero(self._faults.fails[number] & (self._counts == 1))
        for candidates in self._candidates(number, alone):
            for place in candidates[:_TRIES].tolist():
                step = step_for(self._faults, number, place)
                if step is not None and would_fit(self._faults, place, [step]):
                    yield place, step
                    break

    def _candidates(self, number: int, alone: Rows) -> Iterator[Rows]:
        """Yield the places to try, the likeliest first, apart for what is told apart."""
        faults, about = self._faults, self._faults.rulings[number].about
        rows, kind = faults.rows[alone], faults.kind_of(about)
        if not len(alone):
            return
        if about is Eligibility.READY:
            states = np.array([faults.ledger.nodes.view(row).eligibility for row in rows.tolist()])
            yield from (alone[states == state] for state in np.unique(states))
        elif about is Code.TAINT:
            sets = faults.ledger.nodes.taint_codes[rows]
            yield from (alone[sets == one] for one in np.unique(sets)[:_TRIES])
        elif kind is not None:
            yield alone[np.argsort(-faults.ledger.free[kind, rows], kind="stable")]
        elif about is Code.MAX_PER_NODE:
            running = faults.ledger.holdings.running(key_of(faults.ask.workload))
            yield alone[np.argsort([running.get(row, 0) for row in rows.tolist()], kind="stable")]
        elif counts := next((c for c in faults.spreads if c.spread == about), None):
            skews = [counts.skew_with_one_more(code) for code in counts.codes[rows].tolist()]
            yield alone[np.argsort(skews, kind="stable")]
        else:
            yield alone

    def _moves(self) -> Iterator[tuple[int, Step]]:
        """Yield the least allocation of lower priority which alone makes way, if there is one."""
        faults = self._faults
        is_other = faults.fails[[not ruling.is_of_room for ruling in faults.rulings]].any(axis=0)
        places = np.flatnonzero((self._counts > 0) & ~is_other)
        places = places[np.argsort(self._counts[places], kind="stable")][:_MOST_VICTIMS_NODES]
        found = [
            (_worth(a), place, a)
            for place in places.tolist()
            for a in faults.ledger.holdings.on(int(faults.rows[place]))
            if _may_move(a, faults.ask) and gives_room(faults, int(faults.rows[place]), a)
        ]
        for _, place, allocation in sorted(found, key=lambda item: item[:2])[:_TRIES]:
            step = moving(allocation)
            if would_fit(faults, place, [step]):
                yield place, step
                return

    # --- several changes, and a new node ---

    def _combined(self) -> Iterator[Remedy]:
        """Yield all that must change on the node that lacks least."""
        faults = self._faults
        places = np.flatnonzero(self._counts)
        for place in places[np.lexsort((self._shortfall(places), self._counts[places]))][:_TRIES].tolist():
            numbers = np.flatnonzero(faults.fails[:, place]).tolist()
            steps = [step for number in numbers if (step := step_for(faults, number, place))]
            if len(steps) == len(numbers) and would_fit(faults, place, steps):
                ordered = sorted(steps, key=_order)
                yield Remedy(faults.name(place), tuple(c for step in ordered for c in step.changes))
                return

    def _shortfall(self, places: Rows) -> Rows:
        """Return in millionths of what is needed how much each node lacks, very much where it has nothing."""
        faults, total = self._faults, np.zeros(len(places))
        needed = faults.ledger.nodes.amounts(faults.ask.reserved)
        for kind in range(BASE):
            if needed[kind]:
                free = faults.ledger.free[kind, faults.rows[places]]
                total += np.where(free > 0, np.clip(1 - free / needed[kind], 0, 1), 1000)
        return np.rint(total * MILLIONTHS).astype(np.int64)

    def _new_node(self) -> Iterator[Remedy]:
        """Yield what one more node must have, and which one it must be like if it matters where it is."""
        ask, ledger = self._faults.ask, self._faults.ledger
        if ask.only_node is not None:
            return
        like = self._pattern() if _minds_where(ask) else NodeView("", Eligibility.READY, {}, {}, ask.reserved)
        if like is None:
            return
        name = _unused_name(ledger)
        view = NodeView(name, Eligibility.READY, like.labels, like.attributes, ask.reserved)
        if _is_of_one_node(ask):
            there = Ledger.of(Snapshot(1, (view,), ()))
        else:
            there = ledger.fork()
            there.put_node(view)
        if fits_row(ask, there, there.nodes.rows[name]):
            yield Remedy("", (Change(Lift.NODE, like.name, amounts_of(ask.reserved)),))

    def _pattern(self) -> NodeView | None:
        """Return the first node which only lacks room, or doesn't take allocations, or has taints."""
        faults = self._faults
        where = [i for i, r in enumerate(faults.rulings) if not isinstance(r.about, Eligibility | Code | tuple)]
        for place in np.flatnonzero(~faults.fails[where].any(axis=0)).tolist():
            return faults.ledger.nodes.view(int(faults.rows[place]))
        return None


def _order(step: Step) -> tuple[bool, int]:
    return not all(c.lift.is_of_the_workload for c in step.changes), _ORDER[step.changes[0].lift]


def _may_move(allocation: PlacedAllocation, ask: Ask) -> bool:
    """Say whether it may make way for the ask; what belongs to its node may not."""
    return allocation.is_wanted and layer_of(allocation) is not None and allocation.priority < ask.priority


def _worth(allocation: PlacedAllocation) -> tuple[int, int, int, str]:
    reserved = allocation.reserved
    return allocation.priority, reserved.memory_bytes, reserved.cpu_m, allocation.id


def _minds_where(ask: Ask) -> bool:
    """Say whether it depends on a new node's labels and name whether the ask fits there."""
    over = [n.over for n in ask.neighbours if n.weight is None]
    return bool(ask.constraints) or any(s.max_skew is not None for s in ask.spread) or bool(set(over) - {"node.name"})


def _is_of_one_node(ask: Ask) -> bool:
    """Say whether nothing about other nodes matters."""
    return all(n.weight is not None for n in ask.neighbours) and all(s.max_skew is None for s in ask.spread)


def _unused_name(ledger: Ledger) -> str:
    return next(
        name for number in range(len(ledger.nodes.rows) + 1) if (name := f"new-{number}") not in ledger.nodes.rows
    )
