"""S19: who is evicted for whom."""

from collections.abc import Iterator, Sequence

from control_plane import keys
from manifests.allocations import Allocation, Desired
from manifests.workloads import Kind
from tests.invariants.records import Records, Written
from tests.invariants.steps import Breach, Step


def is_eviction(w: Written) -> bool:
    is_stop = isinstance(w.old, Allocation) and w.old.desired is Desired.RUN and isinstance(w.new, Allocation)
    return is_stop and isinstance(w.new, Allocation) and w.new.evicted_for is not None


def only_lower_priorities_go(step: Step, written: Sequence[Written], records: Records) -> Iterator[Breach]:
    """S19: what is evicted is no daemon's, and is of lower priority than what it makes room for."""
    for w in written:
        if not is_eviction(w) or not isinstance(w.new, Allocation) or w.new.evicted_for is None:
            continue
        if w.new.workload.kind is Kind.DAEMON:
            yield Breach("S19", f"{w.new.id} was evicted, and belongs to its node")
        victim = records.workloads.get(keys.id_of_ref(w.new.workload))
        other = records.workloads.get(keys.id_of_ref(w.new.evicted_for))
        if victim is None or other is None:
            yield Breach("S19", f"{w.new.id} was evicted for {w.new.evicted_for}, and one of the two isn't there")
        elif victim.workload.spec.priority >= other.workload.spec.priority or not other.workload.spec.preempts:
            yield Breach("S19", f"{w.new.id} was evicted for {other.ref}, whose priority is not above its own")
