"""Which nodes can take an allocation, and the first thing that rules each of the others out.

In this order: whether it takes any, taints, constraints, neighbours, maxPerNode, cpu, memory, pids, disk, devices, host
ports, and how uneven a spread may become. Each rule is tried on all nodes at once.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np

from manifests.constraints import Constraint
from manifests.engines import wanted_driver, wanted_runtime
from manifests.reasons import Code, Rejection, render_amount
from manifests.taints import Toleration, untolerated
from scheduler.columns import Flags
from scheduler.hashing import key_of
from scheduler.holdings import PortKey
from scheduler.ledger import Ledger
from scheduler.model import AUTO_PORTS, Ask, Eligibility, Neighbour, Spread
from scheduler.neighbours import places_of
from scheduler.nodes import CPU, DISK, MEMORY, PIDS, Rows
from scheduler.ports import OTHERS, OWN_PORT, auto_range
from scheduler.spreading import SpreadCounts

NOT_SET = "not set"
_CLOSED = {
    Eligibility.CORDONED: Code.CORDONED,
    Eligibility.DRAINING: Code.DRAINING,
    Eligibility.TROUBLED: Code.TROUBLED,
    Eligibility.SUSPECT: Code.SUSPECT,
    Eligibility.LOST: Code.LOST,
}
_AMOUNTS = ((Code.CPU, CPU), (Code.MEMORY, MEMORY), (Code.PIDS, PIDS), (Code.DISK, DISK))
_MEBIBYTE = 2**20

Selection: TypeAlias = slice | Rows  # the rows in question: all of the arrays', or a few
DeviceKey: TypeAlias = tuple[str, int]  # a kind of devices, and how many of it are wanted
Subject: TypeAlias = Eligibility | Code | Constraint | Neighbour | Spread | DeviceKey | PortKey


@dataclass(frozen=True, slots=True)
class Ruling:
    """One rule: where among the rows in question it fails, and what to say of a row where it does."""

    fails: Flags
    of: Callable[[int], tuple[Code, str, str]]  # row: code, what is needed, what is found
    is_lasting: bool = False  # it doesn't depend on what runs where
    about: Subject = Code.HOST_PORT  # what of the ask it judges; of host ports, only one that somebody else may hold
    is_of_room: bool = False  # stopping something there would help


class Verdict:
    """What all rules together say of the rows in question."""

    def __init__(self, ledger: Ledger, selection: Selection, count: int) -> None:
        self._ledger, self.selection = ledger, selection
        self.rulings: list[Ruling] = []
        self.fails = np.zeros(count, np.bool_)
        self.fails_for_good = np.zeros(count, np.bool_)  # whatever runs where
        self.fails_but_for_room = np.zeros(count, np.bool_)

    def add(self, ruling: Ruling) -> None:
        self.rulings.append(ruling)
        self.fails |= ruling.fails
        if ruling.is_lasting:
            self.fails_for_good |= ruling.fails
        if not ruling.is_of_room:
            self.fails_but_for_room |= ruling.fails

    def fitting(self) -> Rows:
        """Return the rows where nothing fails."""
        return self._rows(~self.fails)

    def open_rows(self) -> Rows:
        """Return the rows where nothing fails for good."""
        return self._rows(~self.fails_for_good)

    def lacking_room(self) -> Rows:
        """Return the rows where nothing but room is missing."""
        return self._rows(self.fails & ~self.fails_but_for_room)

    def _rows(self, marks: Flags) -> Rows:
        places = np.flatnonzero(marks)
        return places if isinstance(self.selection, slice) else self.selection[places]

    def places(self) -> Rows:
        """Return the places of nodes in the arrays here, in the order of the nodes' names."""
        return self._ledger.nodes.present() if isinstance(self.selection, slice) else np.arange(len(self.fails))

    def ruled_out(self) -> Rows:
        """Return the places where something fails, in the order of the nodes' names."""
        places = self.places()
        out: Rows = places[self.fails[places]]
        return out

    def rejection(self, place: int) -> Rejection:
        """Return the first thing that rules out the node at that place."""
        row = place if isinstance(self.selection, slice) else int(self.selection[place])
        ruling = next(ruling for ruling in self.rulings if ruling.fails[place])
        code, needed, found = ruling.of(row)
        return Rejection(self._ledger.nodes.view(row).name, code, needed, found)

    def rejections(self) -> list[Rejection]:
        return [self.rejection(int(place)) for place in self.ruled_out()]


def judge(ask: Ask, ledger: Ledger, row: int | None = None) -> Verdict:
    """Try all rules of the ask on all nodes in question, or on one, but how uneven a spread may become.

    That changes with each placement: see `judge_unevenness`.
    """
    selection = _selection(ask, ledger) if row is None else np.array([row], np.int64)
    count = ledger.nodes.size if isinstance(selection, slice) else len(selection)
    verdict = Verdict(ledger, selection, count)
    for ruling in _rulings(ask, ledger, selection, count):
        verdict.add(ruling)
    return verdict


def judge_unevenness(verdict: Verdict, spreads: Iterable[SpreadCounts]) -> None:
    """Try the rules on how uneven a spread may become, as it is now."""
    for counts in spreads:
        if counts.spread.max_skew is not None:
            fails = counts.closed()[counts.codes[verdict.selection]]
            verdict.add(Ruling(fails, counts.reason, about=counts.spread))


def _selection(ask: Ask, ledger: Ledger) -> Selection:
    """Return the rows in question: for an ask that belongs to one node, that one."""
    if ask.only_node is None:
        return slice(0, ledger.nodes.size)
    row = ledger.nodes.rows.get(ask.only_node)
    return np.array([] if row is None else [row], np.int64)


def _rulings(ask: Ask, ledger: Ledger, selection: Selection, count: int) -> Iterator[Ruling]:
    yield _closed(ledger, selection)
    if len(ledger.nodes.taint_sets) > 1:
        yield _taints(ask, ledger, selection)
    for constraint in ask.constraints:
        yield _constraint(constraint, ledger, selection)
    for neighbour in ask.neighbours:
        if neighbour.weight is None:
            yield _neighbour(neighbour, ledger, selection)
    if ask.max_per_node is not None:
        yield _max_per_node(ask, ask.max_per_node, ledger, selection)
    yield from _amounts(ask, ledger, selection, count)
    if ask.ports:
        yield from _ports(ask, ledger, selection, count)


def _closed(ledger: Ledger, selection: Selection) -> Ruling:
    def of(row: int) -> tuple[Code, str, str]:
        return _CLOSED[ledger.nodes.view(row).eligibility], "", ""

    return Ruling(~ledger.nodes.is_open[selection], of, is_lasting=True, about=Eligibility.READY)


def _taints(ask: Ask, ledger: Ledger, selection: Selection) -> Ruling:
    sets = ledger.nodes.taint_sets
    bars = np.fromiter((any(True for _ in untolerated(s, ask.tolerations)) for s in sets), np.bool_, len(sets))

    def of(row: int) -> tuple[Code, str, str]:
        taint = next(untolerated(ledger.nodes.view(row).taints, ask.tolerations))
        return Code.TAINT, str(Toleration(taint.key, taint.value or None)), str(taint)

    return Ruling(bars[ledger.nodes.taint_codes[selection]], of, is_lasting=True, about=Code.TAINT)


def _constraint(constraint: Constraint, ledger: Ledger, selection: Selection) -> Ruling:
    column = ledger.nodes.column(constraint.attribute)

    def of(row: int) -> tuple[Code, str, str]:
        found = column.value(row)
        if runtime := wanted_runtime(constraint):
            return Code.RUNTIME, runtime, ""
        if driver := wanted_driver(constraint):
            return Code.DRIVER, driver, NOT_SET if found is None else found
        return Code.CONSTRAINT, str(constraint), NOT_SET if found is None else found

    fails = ~column.where(constraint.holds)[column.codes[selection]]
    return Ruling(fails, of, is_lasting=True, about=constraint)


def _neighbour(neighbour: Neighbour, ledger: Ledger, selection: Selection) -> Ruling:
    column = ledger.nodes.column(neighbour.over)
    name = f"{neighbour.workload.kind}/{neighbour.workload.name}".lower()
    code = Code.TOGETHER if neighbour.is_wanted else Code.APART

    def of(row: int) -> tuple[Code, str, str]:
        place = "this node" if neighbour.over == "node.name" else f"{neighbour.over} {column.value(row) or NOT_SET}"
        return code, name, place

    is_there = places_of(neighbour, ledger)[column.codes[selection]]
    return Ruling(~is_there if neighbour.is_wanted else is_there, of, about=neighbour)


def _max_per_node(ask: Ask, most: int, ledger: Ledger, selection: Selection) -> Ruling:
    running = ledger.holdings.running(key_of(ask.workload))
    is_full = _marked((row for row, count in running.items() if count >= most), ledger)

    def of(row: int) -> tuple[Code, str, str]:
        return Code.MAX_PER_NODE, str(most), str(running.get(row, 0))

    return Ruling(is_full[selection], of, about=Code.MAX_PER_NODE)


def _marked(rows: Iterable[int], ledger: Ledger) -> Flags:
    marks = np.zeros(ledger.nodes.size, np.bool_)
    marks[list(rows)] = True
    return marks


def _amounts(ask: Ask, ledger: Ledger, selection: Selection, count: int) -> Iterator[Ruling]:
    needed = ledger.nodes.amounts(ask.reserved)
    for code, kind in _AMOUNTS:
        is_short = ledger.free[kind, selection] < needed[kind]
        yield Ruling(is_short, _lacking(code, kind, needed[kind], ledger), about=code, is_of_room=True)
    for name, wanted in ask.reserved.devices:
        row = ledger.nodes.kind_of(name)
        fails = np.ones(count, np.bool_) if row is None else ledger.free[row, selection] < wanted
        yield Ruling(fails, _lacking_devices(name, row, wanted, ledger), about=(name, wanted), is_of_room=True)


def _lacking(code: Code, kind: int, needed: float, ledger: Ledger) -> Callable[[int], tuple[Code, str, str]]:
    def of(row: int) -> tuple[Code, str, str]:
        free = _free_but_for_claims(ledger, kind, row)
        if free >= needed:
            return _kept(ledger, row)
        return code, render_amount(code, int(needed)), render_amount(code, readable(code, free))

    return of


def _lacking_devices(
    name: str, kind: int | None, wanted: int, ledger: Ledger
) -> Callable[[int], tuple[Code, str, str]]:
    def of(row: int) -> tuple[Code, str, str]:
        free = 0 if kind is None else _free_but_for_claims(ledger, kind, row)
        return _kept(ledger, row) if free >= wanted else (Code.DEVICES, f"{wanted} {name}", str(max(free, 0)))

    return of


def _free_but_for_claims(ledger: Ledger, kind: int, row: int) -> int:
    return int(ledger.free[kind, row] + sum(claim.amounts[kind] for claim in ledger.claims.get(row, ())))


def _kept(ledger: Ledger, row: int) -> tuple[Code, str, str]:
    return Code.KEPT, ledger.claims[row][0].whose, ""


def readable(code: Code, free: int) -> int:
    """Return free bytes in whole mebibytes, rounded down: `15612Mi` says more to people than `16370364416`."""
    return free - free % _MEBIBYTE if code in (Code.MEMORY, Code.DISK) and free > _MEBIBYTE else free


def _ports(ask: Ask, ledger: Ledger, selection: Selection, count: int) -> Iterator[Ruling]:
    own: set[tuple[int, str]] = set()
    autos: Counter[str] = Counter()
    for port in ask.ports:
        if port.host is None:
            autos[port.protocol] += 1
            continue
        wanted = (port.host, port.protocol)
        yield _static_port(wanted, ledger, selection, count, is_twice=wanted in own)
        own.add(wanted)
    for protocol, many in autos.items():
        own_autos = sum(host in AUTO_PORTS and p == protocol for host, p in own)
        most = len(AUTO_PORTS) - many - own_autos
        is_full = _marked((row for row, held in ledger.holdings.autos(protocol).items() if held > most), ledger)
        yield Ruling(is_full[selection], partial(_no_auto_port, auto_range(protocol)))


def _no_auto_port(needed: str, _row: int) -> tuple[Code, str, str]:
    return Code.HOST_PORT, needed, OTHERS


def _static_port(port: tuple[int, str], ledger: Ledger, selection: Selection, count: int, *, is_twice: bool) -> Ruling:
    needed = f"{port[0]}/{port[1]}"
    if is_twice:
        return Ruling(np.ones(count, np.bool_), lambda _row: (Code.HOST_PORT, needed, OWN_PORT), is_lasting=True)

    def of(row: int) -> tuple[Code, str, str]:
        holder = ledger.holdings.port_holders(port, row)[-1]
        is_kept = any(claim.whose == holder for claim in ledger.claims.get(row, ()))
        return (Code.KEPT, holder, "") if is_kept else (Code.HOST_PORT, needed, holder)

    return Ruling(_marked(ledger.holdings.rows_with_port(port), ledger)[selection], of, about=port, is_of_room=True)
