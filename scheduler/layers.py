"""What could come free on each node, in arrays: what is being stopped holds, and what each priority holds.

A daemon's allocations are in no layer: they belong to their node, and nobody may have them stopped.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from manifests.workloads import Kind
from scheduler.model import PlacedAllocation
from scheduler.nodes import Amounts

LEAVING = -1  # the layer of what is being stopped; the others go by priority


class Layers:
    """Amounts by layer, shared with forks until one of them changes them."""

    def __init__(self) -> None:
        self._layers: dict[int, Amounts] = {}
        self._own: set[int] = set()
        self._counts: Counter[int] = Counter()  # of allocations, by layer
        self._priorities: Counter[int] = Counter()  # of allocations in any layer

    def fork(self) -> "Layers":
        twin = Layers()
        twin._layers, twin._counts, twin._priorities = self._layers.copy(), self._counts.copy(), self._priorities.copy()
        self._own.clear()
        return twin

    def add(self, row: int, allocation: PlacedAllocation, amounts: Sequence[float], *, sign: int, size: int) -> None:
        """Count an allocation on the node, or with `sign` -1 no longer; `size` is how many rows there are."""
        layer = layer_of(allocation)
        if layer is None:
            return
        self._writable(layer, len(amounts), size)[: len(amounts), row] += np.multiply(amounts, sign)
        self._counts[layer] += sign
        self._priorities[allocation.priority] += sign
        if not self._counts[layer]:
            del self._layers[layer], self._counts[layer]

    def has_below(self, priority: int) -> bool:
        """Say whether there is anything of a lower priority, be it on its way out."""
        return any(count and below < priority for below, count in self._priorities.items())

    def leaving(self, shape: tuple[int, int]) -> Amounts:
        """Return what comes free by itself, in an array of that shape."""
        return self._padded(LEAVING, shape)

    def below(self, priority: int, shape: tuple[int, int]) -> list[tuple[int, Amounts]]:
        """Return each lower priority that holds something, the lowest first, and what it holds."""
        return [(p, self._padded(p, shape)) for p in sorted(self._layers) if LEAVING < p < priority]

    def _padded(self, layer: int, shape: tuple[int, int]) -> Amounts:
        amounts = self._layers.get(layer)
        if amounts is None:
            return np.zeros(shape)
        kinds, size = amounts.shape
        return amounts if amounts.shape == shape else np.pad(amounts, ((0, shape[0] - kinds), (0, shape[1] - size)))

    def _writable(self, layer: int, kinds: int, size: int) -> Amounts:
        amounts = self._layers.get(layer)
        if amounts is None:
            amounts = np.zeros((kinds, size))
        elif amounts.shape[0] < kinds or amounts.shape[1] < size:
            amounts = self._padded(layer, (max(kinds, amounts.shape[0]), max(size, amounts.shape[1])))
        elif layer not in self._own:
            amounts = amounts.copy()
        self._own.add(layer)
        self._layers[layer] = amounts
        return amounts


def layer_of(allocation: PlacedAllocation) -> int | None:
    """Return the layer that the allocation is in; None: what it holds can't be had."""
    if not allocation.is_wanted:
        return LEAVING if allocation.is_leaving else None
    return None if allocation.workload.kind is Kind.DAEMON else allocation.priority
