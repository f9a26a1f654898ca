"""Why something was placed where it is, and why something was not: as data, with one sentence each for people.

Plain dataclasses: the scheduler makes them, records and the API carry them, the command line and the page show them.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from manifests.quantities import parse_bytes, parse_cpu, render_bytes, render_cpu


class Code(StrEnum):
    """Why a node can't take an allocation."""

    CPU = "cpu"
    MEMORY = "memory"
    PIDS = "pids"
    DISK = "disk"
    DEVICES = "devices"  # `needed` is the count and the kind
    HOST_PORT = "hostPort"
    KEPT = "kept"  # `needed` is what of higher priority waits for the room there
    CONSTRAINT = "constraint"
    DRIVER = "driver"  # `needed` is the one that the manifest names, `found` the node's
    RUNTIME = "runtime"
    TAINT = "taint"  # `needed` is the toleration, `found` the taint
    MAX_PER_NODE = "maxPerNode"
    SKEW = "maxSkew"  # `found` tells how full its value and the emptiest one are
    APART = "apart"  # `needed` is the other workload, `found` where it is
    TOGETHER = "together"
    CORDONED = "cordoned"
    DRAINING = "draining"
    TROUBLED = "troubled"  # its container manager doesn't answer
    SUSPECT = "suspect"  # silent for a while
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Rejection:
    """One node and the first thing that rules it out. `needed` and `found` are rendered amounts or values."""

    node: str
    code: Code
    needed: str = ""
    found: str = ""

    def sentence(self) -> str:
        return f"{self.node}: {self.reason()}"

    def reason(self) -> str:
        return _REASON[self.code].format(needed=self.needed, found=self.found)


@dataclass(frozen=True, slots=True)
class Unlisted:
    """So many nodes more that the same thing rules out, without their names; `found` is the most among them."""

    code: Code
    needed: str
    found: str
    count: int

    def reason(self) -> str:
        """Return what they have in common, to follow their number.

        >>> Unlisted(Code.MEMORY, "512Mi", "200Mi", 40).reason()
        'lack memory (512Mi needed, at most 200Mi free)'
        """
        return (_OF_ONE if self.count == 1 else _OF_MANY)[self.code].format(needed=self.needed, found=self.found)


@dataclass(frozen=True, slots=True)
class Wait:
    """Room that comes on a node for one of them or more: the allocations that make way there, and how many wait."""

    node: str
    leaving: tuple[str, ...]
    count: int = 1

    def sentence(self) -> str:
        """Return a clause.

        >>> Wait("n1", ("web-0-1f3a9c2e",)).sentence()
        'room comes on n1, where web-0-1f3a9c2e makes way'
        """
        shown = list(self.leaving) if len(self.leaving) <= _MOST_NAMED else [f"{len(self.leaving)} allocations"]
        makes = "makes" if len(self.leaving) == 1 else "make"
        return f"room comes on {self.node}, where {listing(shown)} {makes} way"


MOST_LISTED = 50  # rejections that are stored by name; the rest are counted


@dataclass(frozen=True, slots=True)
class Blocked:
    """So many allocations of one version that no node can take, with each node's reason."""

    version: int
    count: int
    rejections: tuple[Rejection, ...]
    note: str = ""  # where no node is to blame, e.g. there is none at all
    unlisted: tuple[Unlisted, ...] = ()  # in a large cluster: the nodes that `rejections` leaves out
    waits: tuple[Wait, ...] = ()  # where what is being stopped or evicted makes room for some of them

    @classmethod
    def summed_up(cls, version: int, count: int, rejections: Sequence[Rejection]) -> "Blocked":
        """Return it with at most MOST_LISTED rejections listed, some of every kind if possible, and the rest counted.

        Kinds of which a remedy is likelier come first: amounts before cordoned and lost nodes.
        """
        groups = [group for _, group in sorted(_by_kind(rejections).items(), key=lambda item: _order(*item[0]))]
        turns = sorted((turn, place) for place, group in enumerate(groups) for turn in range(len(group)))
        kept = Counter(place for _, place in turns[:MOST_LISTED])
        listed = [r for place, group in enumerate(groups) for r in group[: kept[place]]]
        rest = [_unlisted(group[kept[place] :]) for place, group in enumerate(groups) if kept[place] < len(group)]
        return cls(version, count, tuple(listed), unlisted=tuple(rest))

    def sentence(self) -> str:
        """Return one line that sums up.

        >>> lacks = [Rejection(n, Code.MEMORY, "512Mi", f) for n, f in (("n1", "200Mi"), ("n2", "64Mi"))]
        >>> Blocked(1, 2, (*lacks, Rejection("n3", Code.CORDONED))).sentence()
        "2 can't be placed: n1 and n2 lack memory (512Mi needed, at most 200Mi free); n3 is cordoned"
        """
        if not self.rejections:
            return f"{self.count} can't be placed: {self.note or 'there are no nodes'}"
        more = {(u.code, u.needed): u for u in self.unlisted}
        groups = _by_kind(self.rejections)
        kinds = dict.fromkeys((*groups, *more))
        parts = [_group_sentence(code, groups.get((code, n), []), more.get((code, n))) for code, n in kinds]
        parts += [wait.sentence() for wait in self.waits[:_MOST_NAMED]]
        return f"{self.count} can't be placed: {'; '.join(parts)}"


@dataclass(frozen=True, slots=True)
class Runner:
    """A node that would also have done, and its score."""

    node: str
    score: float


@dataclass(frozen=True, slots=True)
class Choice:
    """Why this node: its score by part, the runners-up, and the nodes that were ruled out."""

    score: float
    parts: tuple[tuple[str, float], ...]  # (name, value), e.g. ("bestFit", 0.61)
    runners_up: tuple[Runner, ...] = ()
    rejections: tuple[Rejection, ...] = ()
    more: int = 0  # nodes ruled out beside those of `rejections`

    def sentence(self) -> str:
        """Return one line.

        >>> Choice(0.61, (("bestFit", 0.61),), (Runner("n2", 0.4),), (Rejection("n3", Code.LOST),), 4).sentence()
        'score 0.61 (bestFit 0.61); next n2 0.40; ruled out n3 (is lost) and 4 more'
        """
        parts = ", ".join(f"{name} {value:.2f}" for name, value in self.parts)
        text = f"score {self.score:.2f} ({parts})"
        if self.runners_up:
            text += "; next " + ", ".join(f"{r.node} {r.score:.2f}" for r in self.runners_up)
        if self.rejections:
            ruled_out = [f"{r.node} ({r.reason()})" for r in self.rejections]
            text += "; ruled out " + listing([*ruled_out, f"{self.more} more"] if self.more else ruled_out)
        return text


_REASON = {
    Code.CPU: "needs {needed} cpu, has {found} free",
    Code.MEMORY: "needs {needed} memory, has {found} free",
    Code.PIDS: "needs {needed} pids, has {found} free",
    Code.DISK: "needs {needed} disk, has {found} free",
    Code.DEVICES: "needs {needed}, has {found} free",
    Code.HOST_PORT: "host port {needed} is taken by {found}",
    Code.KEPT: "has room, which is kept for {needed}",
    Code.CONSTRAINT: "{needed} doesn't hold, it is {found}",
    Code.DRIVER: "has the driver {found} and not {needed}",
    Code.RUNTIME: "has no runtime {needed}",
    Code.TAINT: "has the taint {found}, which isn't tolerated",
    Code.MAX_PER_NODE: "runs {found} already, maxPerNode is {needed}",
    Code.SKEW: "would make the spread uneven by more than {needed}: {found}",
    Code.APART: "{needed}, from which it is kept apart, is on {found}",
    Code.TOGETHER: "{needed}, with which it must be together, isn't on {found}",
    Code.CORDONED: "is cordoned",
    Code.DRAINING: "is being drained",
    Code.TROUBLED: "can't start containers now",
    Code.SUSPECT: "has been silent for a while",
    Code.LOST: "is lost",
}
_OF_ONE = {
    Code.CPU: "lacks cpu ({needed} needed, {found} free)",
    Code.MEMORY: "lacks memory ({needed} needed, {found} free)",
    Code.PIDS: "lacks pids ({needed} needed, {found} free)",
    Code.DISK: "lacks disk ({needed} needed, {found} free)",
    Code.DEVICES: "lacks devices ({needed} needed, {found} free)",
    Code.HOST_PORT: "has host port {needed} taken by {found}",
    Code.KEPT: "has room, which is kept for {needed}",
    Code.CONSTRAINT: "fails {needed} (it is {found})",
    Code.DRIVER: "has the driver {found} and not {needed}",
    Code.RUNTIME: "has no runtime {needed}",
    Code.TAINT: "has the taint {found}, which isn't tolerated",
    Code.MAX_PER_NODE: "runs {found} already (maxPerNode is {needed})",
    Code.SKEW: "would make the spread uneven by more than {needed} ({found})",
    Code.APART: "is where {needed} is, from which it is kept apart",
    Code.TOGETHER: "isn't where {needed} is, with which it must be together",
    Code.CORDONED: "is cordoned",
    Code.DRAINING: "is being drained",
    Code.TROUBLED: "can't start containers now",
    Code.SUSPECT: "has been silent for a while",
    Code.LOST: "is lost",
}
_OF_MANY = {
    Code.CPU: "lack cpu ({needed} needed, at most {found} free)",
    Code.MEMORY: "lack memory ({needed} needed, at most {found} free)",
    Code.PIDS: "lack pids ({needed} needed, at most {found} free)",
    Code.DISK: "lack disk ({needed} needed, at most {found} free)",
    Code.DEVICES: "lack devices ({needed} needed, at most {found} free)",
    Code.HOST_PORT: "have host port {needed} taken",
    Code.KEPT: "have room, which is kept for {needed}",
    Code.CONSTRAINT: "fail {needed}",
    Code.DRIVER: "have another driver than {needed}",
    Code.RUNTIME: "have no runtime {needed}",
    Code.TAINT: "have the taint {needed}, which isn't tolerated",
    Code.MAX_PER_NODE: "have reached maxPerNode ({needed})",
    Code.SKEW: "would make the spread uneven by more than {needed}",
    Code.APART: "are where {needed} is, from which it is kept apart",
    Code.TOGETHER: "aren't where {needed} is, with which it must be together",
    Code.CORDONED: "are cordoned",
    Code.DRAINING: "are being drained",
    Code.TROUBLED: "can't start containers now",
    Code.SUSPECT: "have been silent for a while",
    Code.LOST: "are lost",
}
_MOST_NAMED = 3
_PLACE_OF = {code: place for place, code in enumerate(Code)}
_Kind: TypeAlias = tuple[Code, str]  # the code and what was needed: two ports that are taken are two kinds


def _by_kind(rejections: Iterable[Rejection]) -> dict[_Kind, list[Rejection]]:
    groups: dict[_Kind, list[Rejection]] = {}
    for rejection in rejections:
        groups.setdefault((rejection.code, rejection.needed), []).append(rejection)
    return groups


def _order(code: Code, needed: str) -> tuple[int, str]:
    return _PLACE_OF[code], needed


def _unlisted(group: Sequence[Rejection]) -> Unlisted:
    code = group[0].code
    return Unlisted(code, group[0].needed, _most(code, [r.found for r in group]), len(group))


def _group_sentence(code: Code, listed: Sequence[Rejection], more: Unlisted | None) -> str:
    """Name the nodes while they are few, else count them."""
    count = len(listed) + (more.count if more else 0)
    needed = listed[0].needed if listed else more.needed if more else ""
    found = _most(code, [r.found for r in listed] + ([more.found] if more else []))
    named = bool(listed) and not more and count <= _MOST_NAMED
    names = listing([r.node for r in listed]) if named else "1 node" if count == 1 else f"{count} nodes"
    return f"{names} {(_OF_ONE if count == 1 else _OF_MANY)[code].format(needed=needed, found=found)}"


def listing(items: Sequence[str]) -> str:
    """Return the items as English lists them: `a`, `a and b`, `a, b and c`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _most(code: Code, found: Sequence[str]) -> str:
    return max(found, key=lambda rendered: (_amount(code, rendered), rendered))


def _amount(code: Code, rendered: str) -> int:
    """Return the size of a rendered amount; 0 for what isn't one."""
    try:
        match code:
            case Code.CPU:
                return parse_cpu(rendered)
            case Code.MEMORY | Code.DISK:
                return parse_bytes(rendered)
            case Code.PIDS | Code.MAX_PER_NODE | Code.DEVICES:
                return int(rendered)
            case _:
                return 0
    except ValueError:  # "0" is too small for the parsers
        return 0


def render_amount(code: Code, amount: int) -> str:
    """Return a free or needed amount of that resource; 0 is an amount here.

    >>> render_amount(Code.CPU, 0), render_amount(Code.MEMORY, 64 * 2**20)
    ('0', '64Mi')
    """
    if amount <= 0 or code is Code.PIDS:
        return str(max(amount, 0))
    return render_cpu(amount) if code is Code.CPU else render_bytes(amount)
