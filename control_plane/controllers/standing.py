"""The cluster as the scheduler sees it, kept up to date with the watch cache: a pass costs what has changed since.

Built when it is first asked for. What is returned belongs to this object: plans are made on forks, between awaits.
"""

from collections.abc import Iterator
from dataclasses import replace

from control_plane import keys
from control_plane.controllers.allowances import Allowances
from control_plane.controllers.snapshot import holds_resources, node_view, placed
from control_plane.state import Batch, ClusterState, ObjectChange
from manifests.allocations import Allocation, AllocationStatus, Desired
from manifests.base import Model
from manifests.status import WorkloadStatus
from manifests.workloads import MOST_PRIORITY, WorkloadRecord
from scheduler.ledger import Ledger
from scheduler.model import NodeView


class Standing:
    """Subscribe `on_batch` to the cache before anything is asked."""

    def __init__(self, state: ClusterState) -> None:
        self._state = state
        self._allowances = Allowances(state)
        self._ledger: Ledger | None = None
        self._views: tuple[NodeView, ...] | None = None
        self._nodes: dict[str, None] = {}  # those to look at again, in order
        self._allocations: dict[str, str] = {}  # those to look at again, and on which node each is
        self._kept: dict[str, dict[str, Allocation]] = {}  # by node: what it keeps from before a restore
        self._unreadable: frozenset[str] = frozenset()  # keys of which nothing is concluded
        self._restless: dict[str, None] = {}  # allocations that their nodes haven't done all about that they are told

    def on_batch(self, batch: Batch) -> None:
        """Remember what is to be looked at again."""
        if self._ledger is not None:
            for change in batch.changes:
                self._mark(change)

    def ledger(self) -> Ledger:
        """Return the cluster as it is in the cache now."""
        if self._ledger is None:
            self._ledger = Ledger()
            self._nodes = dict.fromkeys(sorted(self._state.nodes.ids()))
            self._allocations = {a.id: a.node for a in self._state.allocations.values()}
            for workload in self._state.workloads.ids():
                self._allowances.renew_workload(workload)
        self._mark_unreadable()
        for name in self._nodes:
            self._renew_node(self._ledger, name)
        for allocation, node in self._allocations.items():
            self._renew(self._ledger, allocation, node)
            self._allowances.renew_allocation(allocation)
        self._allowances.tell(self._ledger)
        if self._nodes:
            self._views = None
        self._nodes, self._allocations = {}, {}
        self._ledger.revision = self._state.revision
        return self._ledger

    def views(self) -> tuple[NodeView, ...]:
        """Return all nodes by name."""
        table = self.ledger().nodes
        if self._views is None:
            self._views = tuple(table.view(row) for row in table.present().tolist())
        return self._views

    def restless(self) -> list[str]:
        """Return the allocations that aren't ready, or are to stop and haven't."""
        self.ledger()
        return list(self._restless)

    def fork(self, state: ClusterState) -> "Standing":
        """Return that of a fork of the cache, made at the same moment; subscribe it there."""
        twin = Standing(state)
        twin._ledger, twin._views = self.ledger().apart(), self.views()
        twin._kept, twin._unreadable = {node: kept.copy() for node, kept in self._kept.items()}, self._unreadable
        twin._restless = self._restless.copy()
        twin._allowances = self._allowances.fork(state)
        return twin

    def _mark(self, change: ObjectChange) -> None:
        if change.table in ("node", "intent"):
            self._nodes[change.id] = None
        if isinstance(change.new or change.old, WorkloadRecord | WorkloadStatus):
            self._allowances.renew_workload(change.id)
        for known in (change.old, change.new):
            match known:
                case Allocation():
                    self._allocations[known.id] = known.node
                case AllocationStatus() if (allocation := self._state.allocations.get(change.id)) is not None:
                    self._allocations[change.id] = allocation.node
                case WorkloadRecord() if _priority_differs(change):
                    self._mark_allocations_of(keys.id_of_ref(known.ref))
                case _:
                    pass

    def _mark_allocations_of(self, workload: str) -> None:
        self._allocations |= {a.id: a.node for a in self._state.allocations_of(workload)}

    def _mark_unreadable(self) -> None:
        """Look again at what has become unreadable or readable, of which no batch tells."""
        now = frozenset(self._state.quarantined)
        for key in sorted(now ^ self._unreadable):
            for prefix in (keys.NODE_INTENTS, keys.NODES):
                if key.startswith(prefix):
                    self._nodes[key.removeprefix(prefix)] = None
            if key.startswith(keys.WORKLOADS):
                self._mark_allocations_of(key.removeprefix(keys.WORKLOADS))
                self._allowances.renew_workload(key.removeprefix(keys.WORKLOADS))
            for prefix in (keys.ALLOCATIONS, keys.STATUSES):
                if key.startswith(prefix):
                    node, _, allocation = key.removeprefix(prefix).rpartition("/")
                    self._allocations[allocation] = node
        self._unreadable = now

    def _renew_node(self, ledger: Ledger, name: str) -> None:
        status = self._state.nodes.get(name)
        if status is None:
            ledger.drop_node(name)
        else:
            ledger.put_node(node_view(self._state, name))
        before = self._kept.pop(name, {})
        kept = {a.id: a for a in status.kept} if status else {}
        if kept:
            self._kept[name] = kept
        self._allocations |= dict.fromkeys((*before, *kept), name)

    def _renew(self, ledger: Ledger, allocation_id: str, node: str) -> None:
        allocation = self._state.allocations.get(allocation_id)
        self._restless.pop(allocation_id, None)
        if allocation is not None:
            if _is_restless(allocation, self._state.statuses.get(allocation_id)):
                self._restless[allocation_id] = None
            if holds_resources(self._state, allocation):
                ledger.put(placed(allocation, self._priority_of(allocation)))
            else:
                ledger.drop(node, allocation_id)
        elif (kept := self._kept.get(node, {}).get(allocation_id)) is not None:
            stopped = kept.model_copy(update={"desired": Desired.STOP})  # it runs, and counts nowhere else
            ledger.put(replace(placed(stopped), is_leaving=False))
        else:
            ledger.drop(node, allocation_id)

    def _priority_of(self, allocation: Allocation) -> int:
        return _priority(self._state.workloads.get(keys.id_of_ref(allocation.workload)))


def _is_restless(allocation: Allocation, status: AllocationStatus | None) -> bool:
    if status is None:
        return True
    return not status.is_terminal and not (allocation.desired is Desired.RUN and status.is_ready)


def _priority_differs(change: ObjectChange) -> bool:
    return _priority(change.old) != _priority(change.new)


def _priority(record: Model | None) -> int:
    """Return the workload's priority; of one that nobody knows nothing is evicted."""
    return record.workload.spec.priority if isinstance(record, WorkloadRecord) else MOST_PRIORITY


def overfull(ledger: Ledger) -> Iterator[str]:
    """Yield the nodes that hold more than they have, as they may after a restore."""
    for row in ledger.nodes.present().tolist():
        if not ledger.has_enough(row):
            yield ledger.nodes.view(row).name
