"""How good a node is for an allocation, part by part: the score is the sum of the parts, and the highest one wins.

Why these parts and weights: docs/decisions/0004-scoring.md.
"""

from collections.abc import Iterable, Mapping
from math import pow

from manifests.constraints import attribute_of
from scheduler.ledger import NodeLedger, Siblings
from scheduler.model import Ask, Vector

SPREAD_WEIGHT = 10.0  # for each allocation more at the same value: above all that best fit and siblings can differ by
SPREAD_STEP = 100.0  # each attribute of `spread` weighs so many times the next one
SAME_VERSION_WEIGHT = 0.5
DIGITS = 6  # parts are rounded, so that the last bits of a machine's pow() decide nothing


def best_fit(free: Vector, allocatable: Vector) -> float:
    """Rate a node by how full it would be: 0.0 is empty, 1.0 is full in every resource.

    `free` is what is left with the candidate placed. Evenly full beats lopsided, so that no resource strands.
    Source: Google's BestFit v3, 20 - sum(10 ** free fraction) over cpu and memory, here over pids as well, and scaled
    from [0, 27].

    >>> best_fit(Vector(500, 500, 500), Vector(1000, 1000, 1000))
    0.759747
    """
    total = (
        pow(10.0, _fraction(free.cpu_m, allocatable.cpu_m))
        + pow(10.0, _fraction(free.memory_bytes, allocatable.memory_bytes))
        + pow(10.0, _fraction(free.pids, allocatable.pids))
    )
    return round((30.0 - total) / 27.0, DIGITS)


def _fraction(free: int, allocatable: int) -> float:
    return free / allocatable if 0 < free <= allocatable else 0.0


def crowding(running: int, same_version: int) -> float:
    """Return how many there are, and between equal counts, more where more of them are of the asked version.

    The second makes a rollout end balanced: the old ones that still run beside the new ones will go.
    """
    return running + SAME_VERSION_WEIGHT * same_version / (running + 1)


def siblings_part(running: int, same_version: int, total: int) -> float:
    """Return minus the share of its workload that the node would hold, or 0.0 where none of it is yet.

    So the few replicas of a small service stand apart, those of a large one may be packed, and no service has all of
    its replicas on one node while another one fits. Nomad's job anti-affinity has the same shape.
    """
    return -round((crowding(running, same_version) + 1) / total, DIGITS) if running else 0.0


class Spread:
    """The allocations of one workload, counted by the values of the attributes that it is spread over."""

    def __init__(
        self, ask: Ask, siblings: Siblings, nodes: Mapping[str, NodeLedger], candidates: Iterable[str]
    ) -> None:
        self.attributes = ask.spread
        self.weights = [SPREAD_WEIGHT * SPREAD_STEP**i for i in reversed(range(len(ask.spread)))]
        self._nodes = nodes
        self._crowding: list[dict[str, float]] = [{} for _ in ask.spread]
        self._counts: list[dict[str, tuple[int, int]]] = [{} for _ in ask.spread]
        for name in candidates:
            for value, crowds in zip(self.values(name), self._crowding, strict=True):
                crowds[value] = 0.0
        self._lowest = [_Lowest(crowds) for crowds in self._crowding]
        for name, running in siblings.running.items() if ask.spread else ():
            if name in nodes:
                self._count(self.values(name), running, siblings.same_version[name])

    def values(self, node: str) -> tuple[str, ...]:
        """Return the node's value of each attribute; all nodes that lack it share one."""
        view = self._nodes[node].view
        return tuple(attribute_of(a, view.name, view.labels, view.attributes) or "" for a in self.attributes)

    def add(self, values: tuple[str, ...]) -> None:
        self._count(values, 1, 1)

    def part(self, values: tuple[str, ...]) -> float:
        """Return the part of nodes with these values, up to a constant that is the same for all."""
        return -sum(w * c[v] for w, c, v in zip(self.weights, self._crowding, values, strict=True))

    def least(self) -> list[float]:
        """Return for each attribute the part of its emptiest value, which counts as zero."""
        return [-w * lowest.value for w, lowest in zip(self.weights, self._lowest, strict=True)]

    def parts(self, values: tuple[str, ...], least: list[float]) -> tuple[tuple[str, float], ...]:
        rows = zip(self.attributes, self.weights, self._crowding, values, least, strict=True)
        return tuple((f"spread {a}", round(-w * c[v] - zero, DIGITS) + 0.0) for a, w, c, v, zero in rows)

    def _count(self, values: tuple[str, ...], running: int, same_version: int) -> None:
        for counts, crowds, lowest, value in zip(self._counts, self._crowding, self._lowest, values, strict=True):
            if value in crowds:  # else no candidate has it, and it is nobody's rival
                all_before, same_before = counts.get(value, (0, 0))
                counts[value] = all_before + running, same_before + same_version
                before, crowds[value] = crowds[value], crowding(*counts[value])
                lowest.rise(before)


class _Lowest:
    """The lowest of values that only rise: looked for anew only once the last one that had it has risen."""

    def __init__(self, values: Mapping[str, float]) -> None:
        self._values = values
        self._look()

    def rise(self, before: float) -> None:
        """Take in that a value has risen from there."""
        if before == self.value:
            self._holders -= 1
            if self._holders == 0:
                self._look()

    def _look(self) -> None:
        self.value = min(self._values.values(), default=0.0)
        self._holders = sum(value == self.value for value in self._values.values())
