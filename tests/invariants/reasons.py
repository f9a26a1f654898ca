"""S18: each reason for which something is blocked was true when it was given; and L5: all else is placed at once.

The amounts are those that were free then, less what the same plan took before.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from control_plane import keys
from control_plane.store.protocol import Revision
from manifests.allocations import Allocation
from manifests.containers import Resources
from manifests.nodes import Liveness
from manifests.quantities import parse_bytes, parse_cpu
from manifests.reasons import Blocked, Code, Rejection
from manifests.status import WorkloadStatus
from manifests.workloads import DaemonSpec, ServiceSpec, WorkloadSpec
from tests.invariants.past import NodeThen
from tests.invariants.records import Records, Written
from tests.invariants.steps import Breach, Step

MEBIBYTE = 2**20  # free memory is told in whole ones
AMOUNTS: Mapping[Code, tuple[Callable[[str], int], str]] = {
    Code.CPU: (parse_cpu, "cpu_m"),
    Code.MEMORY: (parse_bytes, "memory_bytes"),
    Code.PIDS: (int, "pids"),
}


def reasons_are_true(step: Step, written: Sequence[Written], records: Records) -> Iterator[Breach]:
    """S18: at a revision at which the plan can have been made, all that it says of each node was so."""
    for w in written:
        if not isinstance(w.new, WorkloadStatus):
            continue
        for blocked in w.new.blocked:
            version = records.versions.get(keys.version_id(w.id, blocked.version))
            if version is None:
                continue
            spec = version.workload.spec
            found = [
                _Plan(step, written, records, revision).untrue(blocked, spec)
                for revision in reversed(records.past.of_decision(step))
            ]
            if found and all(found):
                yield Breach("S18", f"{w.id} is said to be blocked, and {found[0]}")


@dataclass(frozen=True, slots=True)
class _Plan:
    """A plan of which `written` are the placements, made of how things stood at `revision`."""

    step: Step
    written: Sequence[Written]
    records: Records
    revision: int

    def untrue(self, blocked: Blocked, spec: WorkloadSpec) -> str:
        """Return what isn't true of it, "" if all is."""
        nodes = dict(self.records.past.nodes.all_at(self.revision))
        if any(node.status.kept for node in nodes.values()):
            return ""  # after a restore nodes hold what has no record
        if not blocked.rejections:
            return "there are nodes" if nodes and not isinstance(spec, DaemonSpec) else ""
        told = len(blocked.rejections) + sum(unlisted.count for unlisted in blocked.unlisted)
        if not isinstance(spec, DaemonSpec) and told != len(nodes):
            return f"reasons are given against {told} nodes of {len(nodes)}"
        for rejection in blocked.rejections:
            node = nodes.get(rejection.node)
            if node is None or not self._is_true(rejection, node, spec):
                return f"that isn't so: {rejection.sentence()}"
        return ""

    def _is_true(self, rejection: Rejection, node: NodeThen, spec: WorkloadSpec) -> bool:
        match rejection.code:
            case Code.LOST:
                return node.is_lost
            case Code.DRAINING:
                return node.is_draining and not node.is_lost
            case Code.SUSPECT:
                return node.status.liveness is Liveness.SUSPECT
            case Code.CORDONED:
                return node.is_cordoned and node.status.liveness is Liveness.READY
            case Code.TROUBLED:
                return bool(node.status.trouble)
            case Code.CPU | Code.MEMORY | Code.PIDS | Code.HOST_PORT if self.records.freeze:
                return node.is_open  # what the plan took before is held back
            case Code.CPU | Code.MEMORY | Code.PIDS:
                return node.is_open and self._lacks(rejection, node, spec.reservation())
            case Code.HOST_PORT:
                return node.is_open and self._has_no_port(rejection.node, node, spec)
            case _:
                return True  # what they name hardly ever changes: the scheduler's own tests judge them

    def _lacks(self, rejection: Rejection, node: NodeThen, needed: Resources) -> bool:
        amount_of, resource = AMOUNTS[rejection.code]
        free, need = getattr(node, resource), getattr(needed, resource)
        least = free - sum(getattr(a.reserved, resource) for a in self._taken(rejection.node))
        if rejection.code is Code.MEMORY:
            least -= MEBIBYTE
        told = amount_of(rejection.found) if rejection.found != "0" else 0
        return bool(amount_of(rejection.needed) == need and told < need and least <= told <= max(free, 0))

    def _has_no_port(self, name: str, node: NodeThen, spec: WorkloadSpec) -> bool:
        fixed = {(p.publish, p.protocol) for p in spec.all_ports() if isinstance(p.publish, int)}
        held = node.ports | {(port.host, port.protocol) for a in self._taken(name) for port in a.ports}
        return not fixed or spec.network == "host" or bool(fixed & held)

    def _taken(self, node: str) -> list[Allocation]:
        """Return what the plan itself placed there."""
        return [w.new for w in self.written if w.old is None and isinstance(w.new, Allocation) and w.new.node == node]


def all_is_placed(step: Step, written: Sequence[Written], records: Records) -> Iterator[Breach]:
    """L5: the pass that first answers a new service places all of it, or says why not, whatever else there is to do.

    Of a burst it is the first portion.
    """
    for w in written:
        record = records.workloads.get(w.id)
        if not isinstance(w.new, WorkloadStatus) or record is None or not isinstance(record.workload.spec, ServiceSpec):
            continue
        is_first = w.old is None and w.new.generation == record.generation == 1
        if not is_first or w.new.blocked or w.new.is_waiting or records.freeze:
            continue
        placed = sum(a.workload.uid == record.uid for a in records.ever.values())
        if placed < min(record.workload.spec.replicas, records.portion) and not any(
            node.kept for node in records.nodes.values()
        ):
            yield Breach("L5", f"{w.id} was answered with {placed} of {record.workload.spec.replicas} placed")


class Patience:
    """L5: what a node has room for doesn't stay blocked for longer than two passes of one leader take."""

    MOST_S = 2.5

    def __init__(self, records: Records) -> None:
        self._records = records
        self._since: dict[tuple[str, Revision], float] = {}  # by workload and leader

    def look(self, now_s: float) -> Iterator[Breach]:
        records = self._records
        placeable = {
            (id_, records.leader_created_at): node
            for id_, status in records.workload_statuses.items()
            if records.leader and not records.freeze and (node := self._home_of(id_, status))
        }
        self._since = {key: self._since.get(key, now_s) for key in placeable}
        for key, since_s in self._since.items():
            if now_s - since_s > self.MOST_S:
                yield Breach("L5", f"{key[0]} is blocked, and {placeable[key]} has had room for {now_s - since_s:g} s")

    def _home_of(self, id_: str, status: WorkloadStatus) -> str:
        """Return a node that could take what is blocked, as far as can be told simply; "" for none."""
        for blocked in status.blocked:
            version = self._records.versions.get(keys.version_id(id_, blocked.version))
            record = self._records.workloads.get(id_)
            if version is None or record is None or record.generation != status.generation:
                continue
            placement = record.workload.spec.placement
            if placement.constraints or placement.max_per_node is not None:
                continue
            kept = {r.node for r in blocked.rejections if r.code is Code.KEPT}  # for a higher priority
            asked = {r.node for r in blocked.rejections} if isinstance(record.workload.spec, DaemonSpec) else None
            for name in self._records.nodes if asked is None else sorted(asked):
                node = self._records.past.nodes.at(name, self._records.revision)
                if name not in kept and node is not None and _has_room(node, version.workload.spec):
                    return name
        return ""


def _has_room(node: NodeThen, spec: WorkloadSpec) -> bool:
    needed = spec.reservation()
    fixed = {(p.publish, p.protocol) for p in spec.all_ports() if isinstance(p.publish, int)}
    fits = needed.cpu_m <= node.cpu_m and needed.memory_bytes <= node.memory_bytes and needed.pids <= node.pids
    has_taints = node.intent is not None and bool(node.intent.taints)
    return node.is_open and fits and not (fixed & node.ports) and not has_taints and spec.network != "host"
