"""What nodes have of one attribute, as numbers: so that a constraint is tried once per value and not once per node."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from manifests.constraints import attribute_of
from scheduler.model import NodeView

Flags: TypeAlias = NDArray[np.bool_]
Codes: TypeAlias = NDArray[np.int32]


class Column:
    """The values of one attribute over all rows; `codes[row]` says which of `values` the node has."""

    def __init__(self, attribute: str, views: Sequence[NodeView | None], size: int) -> None:
        self._attribute = attribute
        self._code_of: dict[str | None, int] = {}
        self.values: list[str | None] = []
        self.codes: Codes = np.zeros(size, np.int32)
        for row, view in enumerate(views):
            if view is not None:
                self.put(row, view)

    def put(self, row: int, view: NodeView) -> None:
        value = attribute_of(self._attribute, view.name, view.labels, view.attributes)
        code = self._code_of.get(value)
        if code is None:
            code = self._code_of[value] = len(self.values)
            self.values.append(value)
        self.codes[row] = code

    def grow(self, size: int) -> None:
        self.codes = np.concatenate([self.codes, np.zeros(size - len(self.codes), np.int32)])

    def where(self, holds: Callable[[str | None], bool]) -> Flags:
        """Return for each value whether it holds."""
        return np.array([holds(value) for value in self.values] or [False], np.bool_)

    def value(self, row: int) -> str | None:
        return self.values[int(self.codes[row])]
