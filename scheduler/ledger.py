"""The cluster in arrays: one column per node, with what is left of each resource, and who is where.

The shell keeps one between passes, brings it up to date with `put` and `drop`, and gives a `fork` of it to each plan.
Row numbers mean nothing: a plan is the same whatever order the nodes came in.
"""

from dataclasses import replace

import numpy as np

from manifests.allocations import allocation_id
from scheduler.holdings import Holdings
from scheduler.model import NOTHING, NodeView, PlacedAllocation, Placement, Snapshot
from scheduler.nodes import BASE, LEAST_ROWS, Amounts, NodeTable


class Ledger:
    """The cluster as it is, or as a plan leaves it so far."""

    def __init__(self) -> None:
        self.revision = 0
        self.nodes = NodeTable()
        self.free: Amounts = np.zeros((BASE, LEAST_ROWS))
        self.holdings = Holdings()
        self._shares_nodes = False
        self._homeless: dict[str, dict[str, PlacedAllocation]] = {}  # by the node that isn't there

    @classmethod
    def of(cls, snapshot: Snapshot) -> "Ledger":
        ledger = cls()
        ledger.revision = snapshot.revision
        for view in snapshot.nodes:
            ledger.put_node(view)
        for allocation in snapshot.allocations:
            ledger.put(allocation)
        return ledger

    def fork(self) -> "Ledger":
        """Return one that can be changed without changing this one, as long as this one isn't changed meanwhile."""
        twin = Ledger()
        twin.revision, twin.nodes, twin.free = self.revision, self.nodes, self.free.copy()
        twin.holdings = self.holdings.fork()
        twin._shares_nodes = True
        twin._homeless = {node: held.copy() for node, held in self._homeless.items()}
        return twin

    def apart(self) -> "Ledger":
        """Return one that shares nothing which changes: both may be changed from now on, in any order."""
        twin = self.fork()
        twin._own_nodes()
        return twin

    def put_node(self, view: NodeView) -> None:
        """Take in a node, new or changed."""
        self._own_nodes()
        is_new = view.name not in self.nodes.rows
        row = self.nodes.put(view)
        self._fit_free()
        if is_new:
            self.free[:, row] = self.nodes.allocatable[:, row]
            for allocation in self._homeless.pop(view.name, {}).values():
                self._book(row, allocation)
        else:
            held = self._held_by(row)
            self.free[:, row] = self.nodes.allocatable[:, row] - held

    def drop_node(self, name: str) -> None:
        """Forget a node; what is on it is nobody's then, until there is one of that name again."""
        self._own_nodes()
        row = self.nodes.rows.get(name)
        if row is not None:
            for allocation in list(self.holdings.on(row)):
                self._unbook(row, allocation)
                self._homeless.setdefault(name, {})[allocation.id] = allocation
            self.nodes.drop(name)
            self.free[:, row] = 0.0

    def put(self, allocation: PlacedAllocation) -> None:
        """Take in an allocation, new or changed."""
        self.drop(allocation.node, allocation.id)
        row = self.nodes.rows.get(allocation.node)
        if row is None:
            self._homeless.setdefault(allocation.node, {})[allocation.id] = allocation
        else:
            self._book(row, allocation)

    def drop(self, node: str, allocation_id: str) -> None:
        """Forget an allocation, if it is known."""
        row = self.nodes.rows.get(node)
        if row is None:
            self._homeless.get(node, {}).pop(allocation_id, None)
        elif (known := self.holdings.find(row, allocation_id)) is not None:
            self._unbook(row, known)

    def no_longer_wanted(self, node: str, allocation_id: str) -> None:
        """Have an allocation hold what it holds, and count nowhere else."""
        row = self.nodes.rows.get(node)
        known = self.holdings.find(row, allocation_id) if row is not None else None
        if row is not None and known is not None:
            self.holdings.remove(row, known)
            self.holdings.add(row, replace(known, is_wanted=False))

    def hold(self, placement: Placement, row: int) -> None:
        """Note the ports and the devices of what a plan placed; its amounts are counted in bulk."""
        holder = allocation_id(placement.workload, placement.index, self.revision)
        self.holdings.hold(row, placement.ports, placement.devices, holder)

    def has_enough(self, row: int) -> bool:
        """Say whether what is on the node fits it."""
        return bool((self.free[:, row] >= 0).all())

    def _book(self, row: int, allocation: PlacedAllocation) -> None:
        for kind, _ in allocation.reserved.devices:
            if kind not in self.nodes.device_kinds:
                self._own_nodes()
                self.nodes.kind_row(kind)
                self._fit_free()
        self.free[:, row] -= self.nodes.amounts(allocation.reserved)
        self.holdings.add(row, allocation)

    def _unbook(self, row: int, allocation: PlacedAllocation) -> None:
        self.free[:, row] += self.nodes.amounts(allocation.reserved)
        self.holdings.remove(row, allocation)

    def _held_by(self, row: int) -> list[float]:
        total = NOTHING
        for allocation in self.holdings.on(row):
            total = total + allocation.reserved
        return self.nodes.amounts(total)

    def _own_nodes(self) -> None:
        if self._shares_nodes:
            self.nodes = self.nodes.copy()
            self._shares_nodes = False

    def _fit_free(self) -> None:
        """Give `free` the shape that the nodes' arrays have."""
        kinds, size = self.nodes.allocatable.shape
        if self.free.shape != (kinds, size):
            self.free = np.pad(self.free, ((0, kinds - self.free.shape[0]), (0, size - self.free.shape[1])))
