"""How good a node is for an allocation, part by part, in millionths: the sum is the score, and the highest one wins.

Each part is given twice: for all nodes at once, and for one node. Both do the same operations in the same order on the
same numbers, and only + - * / and square roots, which IEEE 754 defines to the last bit: so they agree everywhere.
"""

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from manifests.placement import Policy
from scheduler.columns import Flags
from scheduler.ledger import Ledger
from scheduler.model import Affinity, Ask, Neighbour
from scheduler.neighbours import places_of
from scheduler.nodes import BASE, Rows
from scheduler.units import AFFINITY_WEIGHT, MILLIONTHS, SAME_VERSION_WEIGHT

Scores = NDArray[np.int64]


class Weights(NamedTuple):
    """What the parts of how well an ask goes to a node weigh. They add up to one."""

    shape: float
    fullness: float
    in_use: float


CONSOLIDATING = Weights(0.5, 0.3, 0.2)  # keeps empty nodes empty, as long as there is room
TIGHT = Weights(0.9, 0.1, 0.0)  # finds room for more: every node is used, and what each has left goes together


def fitness_of(ask: Ask, ledger: Ledger, rows: Rows, weights: Weights) -> Scores:
    """Rate each node from 0 to a million by how well the ask goes there.

    Shape is the cosine between what is needed and what is free, each as shares of the node: it leaves no resource
    stranded for want of another one. Fullness is one minus the mean cube of what stays free. (Panigrahy et al.,
    Heuristics for vector bin packing, 2011, compare such measures; bench/packing.py measures ours.) For Policy.SPREAD
    it is that mean cube alone: emptiness.
    """
    needed = ledger.nodes.amounts(ask.reserved)
    emptiness, product, free_square, need_square = (np.zeros(len(rows)) for _ in range(4))
    is_used = np.zeros(len(rows), np.bool_)
    for kind in range(BASE):
        inverse, free = ledger.nodes.inverse[kind, rows], ledger.free[kind, rows]
        is_used |= free != ledger.nodes.allocatable[kind, rows]
        share, need = free * inverse, needed[kind] * inverse
        left = share - need
        emptiness += left * left * left
        product += share * need
        free_square += share * share
        need_square += need * need
    if ask.policy is Policy.SPREAD:
        return np.rint(emptiness * (MILLIONTHS / BASE)).astype(np.int64)
    both = free_square * need_square
    shape = np.divide(product, np.sqrt(both), out=np.ones(len(rows)), where=both > 0.0)
    fullness = 1.0 - emptiness / BASE
    rated = shape * weights.shape + fullness * weights.fullness + np.where(is_used, weights.in_use, 0.0)
    return np.rint(rated * MILLIONTHS).astype(np.int64)


class Rating:
    """How well replicas of an ask go to one node that is in use, one after the other, as `fitness_of` rates it."""

    __slots__ = ("_inverse", "_is_spread", "_need_square", "_shares", "_weights")

    def __init__(self, needed: Sequence[float], inverse: Sequence[float], policy: Policy, weights: Weights) -> None:
        self._inverse, self._weights, self._is_spread = inverse[:BASE], weights, policy is Policy.SPREAD
        self._shares = [need * by for need, by in zip(needed, self._inverse, strict=False)]
        self._need_square = 0.0
        for share in self._shares:
            self._need_square += share * share

    def of(self, free: Sequence[float]) -> int:
        """Rate the node with so much free."""
        emptiness = product = free_square = 0.0
        for amount, by, need in zip(free, self._inverse, self._shares, strict=False):
            share = amount * by
            left = share - need
            emptiness += left * left * left
            product += share * need
            free_square += share * share
        if self._is_spread:
            return round(emptiness * (MILLIONTHS / BASE))
        shape_weight, fullness_weight, in_use_weight = self._weights
        both = free_square * self._need_square
        shape = product / sqrt(both) if both > 0.0 else 1.0
        rated = shape * shape_weight + (1.0 - emptiness / BASE) * fullness_weight + in_use_weight
        return round(rated * MILLIONTHS)


def size_of(ask: Ask, ledger: Ledger) -> float:
    """Return how much one allocation of the ask takes: the sum of its shares of all that the nodes have."""
    totals = ledger.nodes.totals()
    return sum(need / total for need, total in zip(ledger.nodes.amounts(ask.reserved), totals, strict=True) if total)


def crowding(running: int, same_version: int) -> float:
    """Return how many there are, and between equal counts, more where more of them are of the asked version.

    The second makes a rollout end balanced: the old ones that still run beside the new ones will go.
    """
    return running + SAME_VERSION_WEIGHT * same_version / (running + 1)


def siblings(running: int, same_version: int, total: int) -> int:
    """Return minus the share of its workload that the node would hold, or 0 where none of it is yet.

    So the few replicas of a small service stand apart, those of a large one may be packed, and no service has all of
    its replicas on one node while another one fits. Nomad's job anti-affinity has the same shape.
    """
    return -round((crowding(running, same_version) + 1) / total * MILLIONTHS) if running else 0


def preferences(ask: Ask, ledger: Ledger, rows: Rows) -> list[tuple[str, Scores]]:
    """Return what each preference of the ask adds to each node's score, by the preference's name."""
    parts = [(f"affinity {a.constraint}", _affinity(a, ledger, rows)) for a in ask.affinities]
    for neighbour in ask.neighbours:
        if neighbour.weight is not None:
            name = f"near {neighbour.workload.kind}/{neighbour.workload.name}".lower()
            parts.append((name, _near(neighbour, neighbour.weight, ledger, rows)))
    return parts


def _affinity(affinity: Affinity, ledger: Ledger, rows: Rows) -> Scores:
    column = ledger.nodes.column(affinity.constraint.attribute)
    return _weighed(column.where(affinity.constraint.holds)[column.codes[rows]], affinity.weight)


def _near(neighbour: Neighbour, weight: int, ledger: Ledger, rows: Rows) -> Scores:
    column = ledger.nodes.column(neighbour.over)
    return _weighed(places_of(neighbour, ledger)[column.codes[rows]], weight if neighbour.is_wanted else -weight)


def _weighed(holds: Flags, weight: int) -> Scores:
    return np.where(holds, round(weight / 100 * AFFINITY_WEIGHT * MILLIONTHS), 0)
