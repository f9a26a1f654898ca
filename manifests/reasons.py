"""Why something was placed where it is, and why something was not: as data, with one sentence each for people.

Plain dataclasses: the scheduler makes them, records and the API carry them, the command line and the page show them.
"""

from dataclasses import dataclass
from enum import StrEnum

from manifests.quantities import parse_bytes, parse_cpu, render_bytes, render_cpu


class Code(StrEnum):
    """Why a node can't take an allocation."""

    CPU = "cpu"
    MEMORY = "memory"
    PIDS = "pids"
    HOST_PORT = "hostPort"
    CONSTRAINT = "constraint"
    MAX_PER_NODE = "maxPerNode"
    CORDONED = "cordoned"
    DRAINING = "draining"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Rejection:
    """One node and the first thing that rules it out. `needed` and `found` are rendered amounts or values."""

    node: str
    code: Code
    needed: str = ""
    found: str = ""

    def sentence(self) -> str:
        return f"{self.node}: {_DETAIL[self.code].format(needed=self.needed, found=self.found)}"


@dataclass(frozen=True, slots=True)
class Blocked:
    """So many allocations of one version that no node can take, with each node's reason."""

    version: int
    count: int
    rejections: tuple[Rejection, ...]
    note: str = ""  # where no node is to blame, e.g. there is none at all

    def sentence(self) -> str:
        """Return one line that sums up: "2 can't be placed: 2 nodes lack memory (needs 512Mi, ...); 1 is cordoned"."""
        if not self.rejections:
            return f"{self.count} can't be placed: {self.note or 'there are no nodes'}"
        groups: dict[Code, list[Rejection]] = {}
        for rejection in self.rejections:
            groups.setdefault(rejection.code, []).append(rejection)
        parts = [_group_sentence(code, group) for code, group in groups.items()]
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

    def sentence(self) -> str:
        parts = ", ".join(f"{name} {value:.2f}" for name, value in self.parts)
        text = f"score {self.score:.2f} ({parts})"
        if self.runners_up:
            text += "; next " + ", ".join(f"{r.node} {r.score:.2f}" for r in self.runners_up)
        if self.rejections:
            text += "; ruled out " + ", ".join(r.sentence() for r in self.rejections)
        return text


_DETAIL = {
    Code.CPU: "needs {needed} cpu, has {found} free",
    Code.MEMORY: "needs {needed} memory, has {found} free",
    Code.PIDS: "needs {needed} pids, has {found} free",
    Code.HOST_PORT: "host port {needed} is taken by {found}",
    Code.CONSTRAINT: "{needed} doesn't hold, it is {found}",
    Code.MAX_PER_NODE: "runs {found} already, maxPerNode is {needed}",
    Code.CORDONED: "is cordoned",
    Code.DRAINING: "is being drained",
    Code.LOST: "is lost",
}
_GROUP = {
    Code.CPU: "lacks cpu (needs {needed}, most free {found})",
    Code.MEMORY: "lacks memory (needs {needed}, most free {found})",
    Code.PIDS: "lacks pids (needs {needed}, most free {found})",
    Code.HOST_PORT: "has host port {needed} taken",
    Code.CONSTRAINT: "fails {needed}",
    Code.MAX_PER_NODE: "has maxPerNode ({needed}) reached",
    Code.CORDONED: "is cordoned",
    Code.DRAINING: "is being drained",
    Code.LOST: "is lost",
}
_MOST_NAMED = 3


def _group_sentence(code: Code, group: list[Rejection]) -> str:
    """Name the nodes while they are few, else count them."""
    names = ", ".join(r.node for r in group) if len(group) <= _MOST_NAMED else f"{len(group)} nodes"
    best = group[0].found if len(group) == 1 else max((r.found for r in group), key=_amount_key)
    return f"{names}: {_GROUP[code].format(needed=group[0].needed, found=best)}"


def _amount_key(rendered: str) -> tuple[int, str]:
    """Order rendered amounts by size, and anything else by text."""
    if rendered.startswith("0"):
        return 0, rendered
    try:
        return (
            parse_cpu(rendered) if rendered.endswith("m") or rendered.isdigit() else parse_bytes(rendered)
        ), rendered
    except ValueError:
        return 0, rendered


def render_amount(code: Code, amount: int) -> str:
    """Return a free or needed amount of that resource; 0 is an amount here.

    >>> render_amount(Code.CPU, 0), render_amount(Code.MEMORY, 64 * 2**20)
    ('0', '64Mi')
    """
    if amount <= 0 or code is Code.PIDS:
        return str(max(amount, 0))
    return render_cpu(amount) if code is Code.CPU else render_bytes(amount)
