"""How many allocations of each workload may go now before fewer serve than should, for who is evicted first.

Kept up to date with the watch cache: each change of an allocation costs the same, however many its workload has.
"""

from collections import Counter
from sys import intern

from control_plane import keys
from control_plane.state import ClusterState
from manifests.allocations import Desired
from manifests.status import WorkloadStatus
from manifests.workloads import ServiceSpec, WorkloadRecord
from scheduler.hashing import WorkloadKey, key_of
from scheduler.ledger import Ledger


class Allowances:
    """Tell it of each allocation and each workload that may have changed."""

    def __init__(self, state: ClusterState) -> None:
        self._state = state
        self._serving: dict[str, str] = {}  # allocations that are wanted and ready, and their workloads
        self._counts: Counter[str] = Counter()  # of these, by workload
        self._known: dict[str, WorkloadKey] = {}  # by workload, what the ledger has it under
        self._changed: dict[str, None] = {}

    def fork(self, state: ClusterState) -> "Allowances":
        """Return those of a fork of the cache, made at the same moment."""
        twin = Allowances(state)
        twin._serving, twin._counts = self._serving.copy(), self._counts.copy()
        twin._known, twin._changed = self._known.copy(), self._changed.copy()
        return twin

    def renew_allocation(self, allocation_id: str) -> None:
        before = self._serving.pop(allocation_id, None)
        if before is not None:
            self._counts[before] -= 1
            self.renew_workload(before)
        allocation, status = self._state.allocations.get(allocation_id), self._state.statuses.get(allocation_id)
        if allocation and allocation.desired is Desired.RUN and status and status.is_ready:
            workload = self._serving[allocation_id] = intern(keys.id_of_ref(allocation.workload))
            self._counts[workload] += 1
            self.renew_workload(workload)

    def renew_workload(self, workload: str) -> None:
        self._changed[workload] = None

    def tell(self, ledger: Ledger) -> None:
        """Bring the ledger up to date."""
        for workload in self._changed:
            record = self._state.workloads.get(workload)
            if (known := self._known.pop(workload, None)) is not None:
                ledger.may_miss.pop(known, None)
            count = self._may_miss(workload, record) if record else None
            if record is not None and count is not None:
                key = self._known[workload] = key_of(record.ref)
                ledger.may_miss[key] = count
        self._changed = {}

    def _may_miss(self, workload: str, record: WorkloadRecord) -> int | None:
        said = self._state.workload_statuses.get(workload)
        return may_miss_of(record, said, self._counts[workload])


def may_miss_of(record: WorkloadRecord, said: WorkloadStatus | None, serving: int) -> int | None:
    """Return how many may go; None: any number. A service at rest may miss one, even if its rollouts may not."""
    spec = record.workload.spec
    if not isinstance(spec, ServiceSpec):
        return None
    rollout = said.rollout if said and said.ref.uid == record.uid else None
    if rollout is None or rollout.version != record.version or not rollout.is_over:
        return 0
    return max(0, max(1, spec.update.max_unavailable) - (spec.replicas - serving))
