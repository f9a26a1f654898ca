"""Every rule that a node breaks, on all nodes at once: not only the first one, as a plan's reasons have it."""

from collections.abc import Collection, Iterator
from dataclasses import replace

import numpy as np

from manifests.explanations import NodeFaults, NodeGroup
from manifests.reasons import MOST_LISTED, Code, Rejection, Unlisted
from manifests.taints import Toleration, untolerated
from scheduler.columns import Flags
from scheduler.ledger import Ledger
from scheduler.model import Ask, Eligibility
from scheduler.nodes import CPU, DISK, MEMORY, PIDS, Rows
from scheduler.rulings import Ruling, Subject, Verdict, judge, judge_unevenness
from scheduler.spreading import SpreadCounts, counts_of

KIND_OF = {Code.CPU: CPU, Code.MEMORY: MEMORY, Code.PIDS: PIDS, Code.DISK: DISK}
MOST_GROUPS = MOST_LISTED
_ELIGIBILITIES = list(Eligibility)
_BITS = 32


def capped_counts(ask: Ask, ledger: Ledger, verdict: Verdict) -> list[SpreadCounts]:
    """Return the counts of the spreads that limit how uneven they may become."""
    capped = replace(ask, spread=tuple(s for s in ask.spread if s.max_skew is not None))
    open_rows = verdict.open_rows()
    if not capped.spread or not len(open_rows):  # without a node that may be filled there is no emptiest value
        return []
    return counts_of(capped, ledger, open_rows, verdict.fitting())


class Faults:
    """The rules of one ask, each once, and where they fail. Places are those of nodes in the order of their names."""

    def __init__(self, ask: Ask, ledger: Ledger, among: Collection[str] | None = None) -> None:
        """Judge all nodes, or those `among` them."""
        self.ask, self.ledger = ask, ledger
        verdict = judge(ask, ledger)
        self.spreads = capped_counts(ask, ledger, verdict)
        judge_unevenness(verdict, self.spreads)
        places = verdict.places()
        rows = places if isinstance(verdict.selection, slice) else verdict.selection[places]
        if among is not None:
            is_meant = np.zeros(ledger.nodes.size, np.bool_)
            is_meant[[ledger.nodes.rows[name] for name in among if name in ledger.nodes.rows]] = True
            places, rows = places[is_meant[rows]], rows[is_meant[rows]]
        self.rows: Rows = rows
        self.rulings = _each_once(verdict.rulings)
        self.fails = np.array([ruling.fails[places] for ruling in self.rulings], np.bool_)
        self.counts: Rows = self.fails.sum(axis=0, dtype=np.int64)

    @property
    def fitting(self) -> Rows:
        """Return the places where nothing fails."""
        return np.flatnonzero(self.counts == 0)

    def name(self, place: int) -> str:
        return self.ledger.nodes.view(int(self.rows[place])).name

    def where(self, *abouts: type) -> Flags:
        """Return where a rule about any of these fails."""
        chosen = [i for i, ruling in enumerate(self.rulings) if isinstance(ruling.about, abouts)]
        found: Flags = np.logical_or.reduce(self.fails[chosen], axis=0)
        return found

    def at(self, place: int) -> tuple[Rejection, ...]:
        """Return everything that rules out the node at that place."""
        return tuple(self._at(place))

    def _at(self, place: int) -> Iterator[Rejection]:
        row = int(self.rows[place])
        view = self.ledger.nodes.view(row)
        for number in np.flatnonzero(self.fails[:, place]).tolist():
            if self.rulings[number].about is Code.TAINT:
                for taint in untolerated(view.taints, self.ask.tolerations):
                    yield Rejection(view.name, Code.TAINT, str(Toleration(taint.key, taint.value or None)), str(taint))
            else:
                yield Rejection(view.name, *self.rulings[number].of(row))

    def groups(self) -> tuple[tuple[NodeGroup, ...], int]:
        """Return the nodes that can't take it by what rules them out, and how many are left out of that.

        Those that lack least come first. At most MOST_LISTED are named, some of each group if possible.
        """
        failing = np.flatnonzero(self.counts)
        if not len(failing):
            return (), 0
        _, firsts, group_of, sizes = np.unique(
            self._signatures()[failing], return_index=True, return_inverse=True, return_counts=True
        )
        weights = self.counts[failing[firsts]]
        order = sorted(range(len(sizes)), key=lambda g: (weights[g], -sizes[g], firsts[g]))[:MOST_GROUPS]
        members = [failing[group_of == g] for g in order]
        named = _shared_out(MOST_LISTED, [len(m) for m in members])
        groups = tuple(self._group(m, count) for m, count in zip(members, named, strict=True))
        return groups, len(failing) - sum(map(len, members))

    def _group(self, members: Rows, named: int) -> NodeGroup:
        listed = tuple(NodeFaults(self.name(p), self.at(p)) for p in members[:named].tolist())
        most = {}
        for number in np.flatnonzero(self.fails[:, members[0]]).tolist():
            kind = self.kind_of(self.rulings[number].about)
            if kind is not None:
                row = int(self.rows[members[np.argmax(self.ledger.free[kind, self.rows[members]])]])
                code, needed, found = self.rulings[number].of(row)
                most[code, needed] = found
        count, first = len(members), self.at(int(members[0]))
        faults = tuple(Unlisted(f.code, f.needed, most.get((f.code, f.needed), f.found), count) for f in first)
        return NodeGroup(count, listed, faults)

    def kind_of(self, about: Subject) -> int | None:
        """Return which of the counted resources a rule is about, if it is about one that a node has any of."""
        match about:
            case Code():
                return KIND_OF.get(about)
            case (str(name), int()):
                return self.ledger.nodes.kind_of(name)
            case _:
                return None

    def _signatures(self) -> Rows:
        """Return a number for each place; equal where the same rules fail, for the same taints and states."""
        codes = np.zeros(len(self.rows), np.int64)
        for number, (ruling, fails) in enumerate(zip(self.rulings, self.fails, strict=True)):
            codes = 2 * codes + fails
            if ruling.about is Code.TAINT:
                sets = self.ledger.nodes.taint_codes[self.rows]
                codes = codes * (len(self.ledger.nodes.taint_sets) + 1) + np.where(fails, sets, 0)
            if ruling.about is Eligibility.READY:
                codes = codes * len(_ELIGIBILITIES) + self._states(fails)
            if number % _BITS == _BITS - 1:
                codes = np.unique(codes, return_inverse=True)[1].astype(np.int64)
        return codes

    def _states(self, is_closed: Flags) -> Rows:
        states = np.zeros(len(self.rows), np.int64)
        for place in np.flatnonzero(is_closed).tolist():
            view = self.ledger.nodes.view(int(self.rows[place]))
            states[place] = _ELIGIBILITIES.index(view.eligibility)
        return states


def _each_once(rulings: list[Ruling]) -> list[Ruling]:
    """Return the rules without repeats: what the manifest says twice is lifted at once."""
    kept: list[Ruling] = []
    for ruling in rulings:
        if ruling.about is Code.HOST_PORT or all(ruling.about != other.about for other in kept):
            kept.append(ruling)
    return kept


def _shared_out(most: int, sizes: list[int]) -> list[int]:
    """Return how many of each are taken, in turns."""
    taken = [0] * len(sizes)
    while most and (waiting := [i for i, size in enumerate(sizes) if taken[i] < size]):
        for i in waiting[:most]:
            taken[i] += 1
        most -= min(len(waiting), most)
    return taken
