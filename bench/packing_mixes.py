"""Generated mixes of what asks for room, in shares of a node; and how few nodes could hold them at all."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Items: TypeAlias = NDArray[np.float64]  # one row per item, one column per resource: cpu, memory, disk
_RESOURCES = 3


def uniform(rng: np.random.Generator, count: int) -> Items:
    return rng.uniform(0.01, 0.2, (count, _RESOURCES))


def skewed(rng: np.random.Generator, count: int) -> Items:
    """Each wants little of two resources and much of a third."""
    items = rng.uniform(0.01, 0.05, (count, _RESOURCES))
    items[np.arange(count), rng.integers(0, _RESOURCES, count)] = rng.uniform(0.1, 0.4, count)
    return items


def correlated(rng: np.random.Generator, count: int) -> Items:
    """What is large is large in everything."""
    return rng.uniform(0.01, 0.2, (count, 1)) * rng.uniform(0.7, 1.3, (count, _RESOURCES))


def trace_like(rng: np.random.Generator, count: int) -> Items:
    """Many small ones and a heavy tail, cpu and memory loosely tied, as in published cluster traces."""
    common = rng.normal(0.0, 1.0, (count, 1))
    own = rng.normal(0.0, 1.0, (count, _RESOURCES))
    return np.clip(np.exp(-3.8 + 0.6 * common + 0.8 * own), 0.002, 0.6)


MIXES: Mapping[str, Callable[[np.random.Generator, int], Items]] = {
    "uniform": uniform,
    "skewed": skewed,
    "correlated": correlated,
    "trace-like": trace_like,
}


def fewest_nodes(items: Items) -> int:
    """Return a number of nodes below which no packing exists: the best of one bound for each resource.

    The bound is L2 of Martello and Toth (Knapsack Problems, 1990, chapter 8): for a threshold, what is larger than one
    minus it needs a node of its own, what is larger than a half one each, and the rest fills what these leave.
    """
    return max(_fewest_by(items[:, resource]) for resource in range(items.shape[1]))


def _fewest_by(sizes: NDArray[np.float64]) -> int:
    best = _whole(float(sizes.sum()))
    for threshold in np.unique(sizes[sizes <= 0.5]):
        alone = int((sizes > 1 - threshold).sum())
        halves = sizes[(sizes > 0.5) & (sizes <= 1 - threshold)]
        small = sizes[(sizes <= 0.5) & (sizes >= threshold)]
        over = float(small.sum() - (len(halves) - halves.sum()))
        best = max(best, alone + len(halves) + max(0, _whole(over)))
    return best


def _whole(amount: float) -> int:
    return int(np.ceil(amount - 1e-9))
