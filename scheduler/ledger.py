"""What is left on each node, and who is where, while a plan grows: the snapshot, and what was placed since.

Only `place` and its parts change a ledger; it lives as long as one call.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TypeAlias

from manifests.allocations import HostPort, allocation_id
from manifests.workloads import WorkloadRef
from scheduler.model import AUTO_PORTS, Ask, NodeView, Placement, Snapshot, Vector

WorkloadKey: TypeAlias = tuple[str, str, str, str]


@dataclass(slots=True)
class NodeLedger:
    """One node's free amounts, and the host ports held on it, each with its holder's id."""

    view: NodeView
    free: Vector
    tie: int  # breaks ties between equal scores: by the seed, not by the name, so that no node is always first
    held: dict[tuple[int, str], str] = field(default_factory=dict)
    auto_held: Counter[str] = field(default_factory=Counter)  # by protocol: how many of AUTO_PORTS are held

    @property
    def name(self) -> str:
        return self.view.name

    def hold(self, ports: tuple[HostPort, ...], holder: str) -> None:
        for port in ports:
            if (port.host, port.protocol) not in self.held:
                self.auto_held[port.protocol] += port.host in AUTO_PORTS
            self.held[port.host, port.protocol] = holder


@dataclass(slots=True)
class Siblings:
    """The wanted allocations of one workload, counted by node: all, and those of the version that is asked for.

    Both grow with the ledger.
    """

    running: Counter[str]
    same_version: Counter[str]


class Ledger:
    """The cluster as the plan leaves it so far."""

    def __init__(self, snapshot: Snapshot, *, seed: int) -> None:
        ordered = sorted(snapshot.nodes, key=lambda n: n.name)
        self.seed = seed
        self.revision = snapshot.revision
        self.nodes = {n.name: NodeLedger(n, n.allocatable, hash_of(seed, n.name)) for n in ordered}
        self._running: defaultdict[WorkloadKey, Counter[str]] = defaultdict(Counter)
        self._of_version: defaultdict[tuple[WorkloadKey, int], Counter[str]] = defaultdict(Counter)
        for a in snapshot.allocations:
            self._book(a.node, a.reserved, a.ports, a.id)
            if a.is_wanted:
                self._count(a.workload, a.version, a.node)

    def siblings(self, ask: Ask) -> Siblings:
        key = _key(ask.workload)
        return Siblings(self._running[key], self._of_version[key, ask.version])

    def take(self, placement: Placement) -> None:
        """Count the placement as made."""
        holder = allocation_id(placement.workload, placement.index, self.revision) if placement.ports else ""
        self._book(placement.node, placement.reserved, placement.ports, holder)
        self._count(placement.workload, placement.version, placement.node)

    def _count(self, ref: WorkloadRef, version: int, node: str) -> None:
        key = _key(ref)
        self._running[key][node] += 1
        self._of_version[key, version][node] += 1

    def _book(self, name: str, reserved: Vector, ports: tuple[HostPort, ...], holder: str) -> None:
        node = self.nodes.get(name)
        if node is not None:  # what a deleted node still holds is nobody's any more
            node.free = node.free - reserved
            node.hold(ports, holder)


def hash_of(*values: object) -> int:
    """Return 64 bits that are the same on every machine and in every process, unlike `hash`."""
    text = "/".join(str(v) for v in values)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def _key(ref: WorkloadRef) -> WorkloadKey:
    """Return a key that hashes fast: the model's own hash costs more than all else that is done per allocation."""
    return ref.uid, ref.namespace, ref.kind, ref.name
