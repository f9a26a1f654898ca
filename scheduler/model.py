"""What the scheduler sees and answers: plain frozen values, so that one code plans, explains and simulates."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from manifests.allocations import HostPort
from manifests.constraints import Constraint
from manifests.containers import Resources
from manifests.reasons import Blocked, Choice
from manifests.taints import Taint, Toleration
from manifests.workloads import WorkloadRef


@dataclass(frozen=True, slots=True)
class Vector:
    """Amounts of the three counted resources."""

    cpu_m: int
    memory_bytes: int
    pids: int

    def __add__(self, other: "Vector") -> "Vector":
        return Vector(self.cpu_m + other.cpu_m, self.memory_bytes + other.memory_bytes, self.pids + other.pids)

    def __sub__(self, other: "Vector") -> "Vector":
        return Vector(self.cpu_m - other.cpu_m, self.memory_bytes - other.memory_bytes, self.pids - other.pids)

    def fits(self, free: "Vector") -> bool:
        return self.cpu_m <= free.cpu_m and self.memory_bytes <= free.memory_bytes and self.pids <= free.pids


NOTHING = Vector(0, 0, 0)


def vector_of(resources: Resources) -> Vector:
    return Vector(resources.cpu_m, resources.memory_bytes, resources.pids)


class Eligibility(StrEnum):
    """Whether a node takes new allocations."""

    READY = "ready"
    CORDONED = "cordoned"
    DRAINING = "draining"
    TROUBLED = "troubled"  # its container manager doesn't answer: nothing new, and what runs stays
    SUSPECT = "suspect"  # silent for a while: nothing new, and what runs stays
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class PlacedAllocation:
    """An allocation that holds a node's resources: any that is not observed terminal, whatever is desired of it."""

    id: str
    workload: WorkloadRef
    version: int
    index: int
    node: str
    reserved: Vector
    ports: tuple[HostPort, ...]
    is_wanted: bool  # desired to run; counts for spread and maxPerNode


@dataclass(frozen=True, slots=True)
class NodeView:
    name: str
    eligibility: Eligibility
    labels: Mapping[str, str]
    attributes: Mapping[str, str]
    allocatable: Vector
    taints: tuple[Taint, ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The cluster at one revision, read-only."""

    revision: int
    nodes: tuple[NodeView, ...]
    allocations: tuple[PlacedAllocation, ...]


@dataclass(frozen=True, slots=True)
class PortAsk:
    name: str
    container: int
    host: int | None  # None: any free one of AUTO_PORTS
    protocol: str


AUTO_PORTS = range(20_000, 32_000)  # below Linux's ephemeral range, so that outgoing connections don't take them


@dataclass(frozen=True, slots=True)
class Ask:
    """Allocations of one version of one workload that want a node: one for each of `indexes`."""

    workload: WorkloadRef
    version: int
    indexes: tuple[int, ...]
    reserved: Vector
    ports: tuple[PortAsk, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    spread: tuple[str, ...] = ()
    max_per_node: int | None = None
    avoid: frozenset[str] = field(default_factory=frozenset)  # nodes where it failed: only if no other node fits
    only_node: str | None = None  # a Daemon's allocation belongs to this node
    tolerations: tuple[Toleration, ...] = ()


@dataclass(frozen=True, slots=True)
class Placement:
    workload: WorkloadRef
    version: int
    index: int
    node: str
    reserved: Vector
    ports: tuple[HostPort, ...]
    why: Choice


@dataclass(frozen=True, slots=True)
class BlockedAsk:
    workload: WorkloadRef
    indexes: tuple[int, ...]
    blocked: Blocked


@dataclass(frozen=True, slots=True)
class Plan:
    """The scheduler's whole answer: every index of every ask is in exactly one of the two."""

    placements: tuple[Placement, ...]
    blocked: tuple[BlockedAsk, ...]
