"""The cluster in arrays: one column per node, with what is left of each resource, and who is where.

The shell keeps one between passes, brings it up to date with `put` and `drop`, and gives a `fork` of it to each plan.
Row numbers mean nothing: a plan is the same whatever order the nodes came in.
"""

from dataclasses import dataclass, replace

import numpy as np

from manifests.allocations import allocation_id
from scheduler.hashing import WorkloadKey, key_of
from scheduler.holdings import Holdings
from scheduler.layers import Layers
from scheduler.model import NOTHING, Ask, NodeView, PlacedAllocation, Placement, Snapshot
from scheduler.nodes import BASE, LEAST_ROWS, Amounts, NodeTable


@dataclass(frozen=True, slots=True)
class Claim:
    """Room that a plan keeps for what waits for it; so those of lower priority find less of it free."""

    amounts: list[float]
    whose: str


class Ledger:
    """The cluster as it is, or as a plan leaves it so far."""

    def __init__(self) -> None:
        self.revision = 0
        self.nodes = NodeTable()
        self.free: Amounts = np.zeros((BASE, LEAST_ROWS))
        self.holdings = Holdings()
        self.layers = Layers()
        self.may_miss: dict[WorkloadKey, int] = {}  # so many of a workload's may go now; not named: any number
        self.claims: dict[int, list[Claim]] = {}  # by row
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
        ledger.may_miss = {key_of(workload): count for workload, count in snapshot.may_miss.items()}
        return ledger

    def fork(self) -> "Ledger":
        """Return one that can be changed without changing this one, as long as this one isn't changed meanwhile."""
        twin = Ledger()
        twin.revision, twin.nodes, twin.free = self.revision, self.nodes, self.free.copy()
        twin.holdings, twin.layers, twin.may_miss = self.holdings.fork(), self.layers.fork(), self.may_miss.copy()
        twin.claims = {row: claims.copy() for row, claims in self.claims.items()}
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

    def no_longer_wanted(self, node: str, allocation_id: str, *, is_leaving: bool = True) -> None:
        """Have an allocation hold what it holds, and count nowhere else."""
        row = self.nodes.rows.get(node)
        known = self.holdings.find(row, allocation_id) if row is not None else None
        if row is not None and known is not None:
            self._unbook(row, known)
            self._book(row, replace(known, is_wanted=False, is_leaving=is_leaving))

    def hold(self, placement: Placement, row: int) -> None:
        """Note the ports and the devices of what a plan placed; its amounts are counted in bulk."""
        holder = allocation_id(placement.workload, placement.index, self.revision)
        self.holdings.hold(row, placement.ports, placement.devices, holder)

    def claim(self, ask: Ask, row: int) -> None:
        """Keep the room that one of the ask needs on the node, once it is there, from all that are served later."""
        amounts = self.nodes.amounts(ask.reserved)
        self.free[: len(amounts), row] -= amounts
        self.claims.setdefault(row, []).append(Claim(amounts, str(ask.workload)))
        for port in ask.ports:
            if port.host is not None:
                self.holdings.hold_port(row, (port.host, port.protocol), str(ask.workload))
        self.holdings.count(key_of(ask.workload), ask.version, row, 1)

    def has_enough(self, row: int) -> bool:
        """Say whether what is on the node fits it."""
        return bool((self.free[:, row] >= 0).all())

    def _book(self, row: int, allocation: PlacedAllocation) -> None:
        for kind, _ in allocation.reserved.devices:
            if kind not in self.nodes.device_kinds:
                self._own_nodes()
                self.nodes.kind_row(kind)
                self._fit_free()
        amounts = self.nodes.amounts(allocation.reserved)
        self.free[:, row] -= amounts
        self.layers.add(row, allocation, amounts, sign=1, size=self.nodes.size)
        self.holdings.add(row, allocation)

    def _unbook(self, row: int, allocation: PlacedAllocation) -> None:
        amounts = self.nodes.amounts(allocation.reserved)
        self.free[:, row] += amounts
        self.layers.add(row, allocation, amounts, sign=-1, size=self.nodes.size)
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
