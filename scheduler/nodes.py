"""What is known of the nodes themselves, in arrays: one row per node, one column per resource.

Row numbers mean nothing: a plan is the same whatever order the nodes came in.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from manifests.taints import Taint
from scheduler.columns import Codes, Column, Flags
from scheduler.hashing import hash_of
from scheduler.model import Eligibility, NodeView, Vector

Amounts: TypeAlias = NDArray[np.float64]  # whole numbers, exact up to 2**53
Rows: TypeAlias = NDArray[np.int64]

CPU, MEMORY, PIDS, DISK = range(4)  # the first resources; devices follow by kind
BASE = 4
LEAST_ROWS = 16
_MOST = 2.0**53


class NodeTable:
    """What is known of nodes themselves, by row. Shared by forks until one of them changes a node."""

    def __init__(self) -> None:
        self.views: list[NodeView | None] = []
        self.rows: dict[str, int] = {}
        self.device_kinds: list[str] = []
        self.allocatable: Amounts = np.zeros((BASE, LEAST_ROWS))
        self.inverse: Amounts = np.zeros((BASE, LEAST_ROWS))  # 1 / allocatable, 0 where there is none of it
        self.is_open: Flags = np.zeros(LEAST_ROWS, np.bool_)
        self.taint_codes: Codes = np.zeros(LEAST_ROWS, np.int32)
        self.taint_sets: dict[tuple[Taint, ...], int] = {(): 0}
        self.name_hashes: NDArray[np.uint64] = np.zeros(LEAST_ROWS, np.uint64)
        self._columns: dict[str, Column] = {}
        self._free_rows: list[int] = []
        self._name_order: Rows | None = None
        self._totals: list[float] | None = None

    def copy(self) -> "NodeTable":
        twin = NodeTable()
        twin.views, twin.rows, twin.device_kinds = self.views.copy(), self.rows.copy(), self.device_kinds.copy()
        twin.allocatable, twin.inverse = self.allocatable.copy(), self.inverse.copy()
        twin.is_open, twin.taint_codes = self.is_open.copy(), self.taint_codes.copy()
        twin.taint_sets, twin.name_hashes = self.taint_sets.copy(), self.name_hashes.copy()
        twin._free_rows = self._free_rows.copy()
        return twin

    @property
    def size(self) -> int:
        """Return how many rows the arrays have; those without a node are never open."""
        return len(self.is_open)

    def present(self) -> Rows:
        """Return the rows of all nodes, in the order of their names."""
        if self._name_order is None:
            self._name_order = np.array([self.rows[name] for name in sorted(self.rows)], np.int64)
        return self._name_order

    def view(self, row: int) -> NodeView:
        view = self.views[row]
        assert view is not None
        return view

    def column(self, attribute: str) -> Column:
        column = self._columns.get(attribute)
        if column is None:
            column = self._columns[attribute] = Column(attribute, self.views, self.size)
        return column

    def put(self, view: NodeView) -> int:
        row = self.rows.get(view.name)
        if row is None:
            row = self._new_row()
            self.rows[view.name] = row
            self.name_hashes[row] = hash_of(view.name)
            self._name_order = None
        for kind, _ in view.allocatable.devices:
            self.kind_row(kind)
        self.views[row] = view
        self._totals = None
        amounts = self.amounts(view.allocatable)
        self.allocatable[:, row] = amounts
        self.inverse[:, row] = [1.0 / a if a > 0 else 0.0 for a in amounts]
        self.is_open[row] = view.eligibility is Eligibility.READY
        self.taint_codes[row] = self.taint_sets.setdefault(view.taints, len(self.taint_sets))
        for column in self._columns.values():
            column.put(row, view)
        return row

    def drop(self, name: str) -> int | None:
        row = self.rows.pop(name, None)
        if row is not None:
            self.views[row] = None
            self._totals = None
            self.is_open[row] = False
            self.allocatable[:, row] = self.inverse[:, row] = 0.0
            self._free_rows.append(row)
            self._name_order = None
        return row

    def totals(self) -> list[float]:
        """Return how much of each resource all nodes have together."""
        if self._totals is None:
            self._totals = self.allocatable.sum(axis=1).tolist()
        return self._totals

    def amounts(self, vector: Vector) -> list[float]:
        """Return the vector as one number for each resource, devices by kind; kinds that no node has are left out."""
        amounts = [float(vector.cpu_m), float(vector.memory_bytes), float(vector.pids), float(vector.disk_bytes)]
        counts = dict(vector.devices)
        amounts += [float(counts.get(kind, 0)) for kind in self.device_kinds]
        return [min(max(amount, -_MOST), _MOST) for amount in amounts]

    def kind_of(self, kind: str) -> int | None:
        """Return which resource that kind of devices is; None: no node has any."""
        return BASE + self.device_kinds.index(kind) if kind in self.device_kinds else None

    def kind_row(self, kind: str) -> int:
        """Return which resource that kind of devices is, a new one if no node had any until now."""
        if kind not in self.device_kinds:
            self.device_kinds.append(kind)
            self._totals = None
            more = np.zeros((1, self.size))
            self.allocatable, self.inverse = np.vstack([self.allocatable, more]), np.vstack([self.inverse, more])
        return BASE + self.device_kinds.index(kind)

    def _new_row(self) -> int:
        if self._free_rows:
            return self._free_rows.pop()
        row = len(self.views)
        self.views.append(None)
        if row == self.size:
            self._grow(2 * row)
        return row

    def _grow(self, size: int) -> None:
        more = size - self.size
        self.allocatable, self.inverse = (np.pad(a, ((0, 0), (0, more))) for a in (self.allocatable, self.inverse))
        self.is_open, self.taint_codes = np.pad(self.is_open, (0, more)), np.pad(self.taint_codes, (0, more))
        self.name_hashes = np.pad(self.name_hashes, (0, more))
        for column in self._columns.values():
            column.grow(size)
