"""How others choose a node, each in a few lines: written from their documentation, for comparison only.

All of them take the items in the order in which they come, on nodes that are all there from the start. A policy rates
every node that has room; the highest rating wins, and the first of equals.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from bench.packing_mixes import Items

_TINY = 1e-9


@dataclass(slots=True)
class Cluster:
    """What is free on each node, in shares, and how many items each has."""

    free: Items
    counts: NDArray[np.int64]
    rng: np.random.Generator


Rate: TypeAlias = Callable[[Cluster, NDArray[np.int64], NDArray[np.float64]], NDArray[np.float64]]


def first_fit(cluster: Cluster, nodes: NDArray[np.int64], item: NDArray[np.float64]) -> NDArray[np.float64]:
    rated: NDArray[np.float64] = -nodes.astype(np.float64)
    return rated


def fewest_tasks(cluster: Cluster, nodes: NDArray[np.int64], item: NDArray[np.float64]) -> NDArray[np.float64]:
    """Swarm: the node with the fewest tasks."""
    rated: NDArray[np.float64] = -cluster.counts[nodes].astype(np.float64)
    return rated


def least_allocated(cluster: Cluster, nodes: NDArray[np.int64], item: NDArray[np.float64]) -> NDArray[np.float64]:
    """Kubernetes' default: the mean of the free shares of cpu and memory with the item placed."""
    rated: NDArray[np.float64] = (cluster.free[nodes, :2] - item[:2]).mean(axis=1)
    return rated


def most_allocated(cluster: Cluster, nodes: NDArray[np.int64], item: NDArray[np.float64]) -> NDArray[np.float64]:
    """Kubernetes' packing: the other way round."""
    rated: NDArray[np.float64] = -least_allocated(cluster, nodes, item)
    return rated


def sampled_best_fit(cluster: Cluster, nodes: NDArray[np.int64], item: NDArray[np.float64]) -> NDArray[np.float64]:
    """Nomad: of log2(n) nodes taken at random, BestFit v3 over cpu and memory."""
    rated: NDArray[np.float64] = -(10.0 ** (cluster.free[nodes, :2] - item[:2])).sum(axis=1)
    sample = max(2, int(np.ceil(np.log2(len(cluster.free)))))
    if len(nodes) > sample:
        rated[cluster.rng.permutation(len(nodes))[sample:]] = -np.inf
    return rated


PEERS: Mapping[str, Rate] = {
    "Swarm's fewest tasks": fewest_tasks,
    "Kubernetes' LeastAllocated": least_allocated,
    "Kubernetes' MostAllocated": most_allocated,
    "Nomad's log2 sample of BestFit": sampled_best_fit,
}


def pack(items: Items, nodes: int, rate: Rate, *, seed: int) -> Items | None:
    """Return what is free on each node once all items are placed; None if one finds no room."""
    cluster = Cluster(np.ones((nodes, items.shape[1])), np.zeros(nodes, np.int64), np.random.default_rng(seed))
    for item in items:
        fitting = np.flatnonzero((cluster.free >= item - _TINY).all(axis=1))
        if not len(fitting):
            return None
        chosen = fitting[np.argmax(rate(cluster, fitting, item))]
        cluster.free[chosen] -= item
        cluster.counts[chosen] += 1
    return cluster.free


def decreasing(items: Items) -> Items:
    """Return the items, the largest first, by the sum of their shares."""
    return items[np.argsort(-items.sum(axis=1), kind="stable")]


def stranded(free: Items) -> float:
    """Return how much of a node is free, on average, that nothing can use for lack of another resource."""
    return float((free - free.min(axis=1, keepdims=True)).mean())
