"""What the scheduler sees and answers: plain frozen values, so that one code plans, explains and simulates."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import TypeAlias

from manifests.allocations import HostPort
from manifests.constraints import Constraint
from manifests.containers import Resources
from manifests.placement import Policy
from manifests.reasons import Blocked, Choice
from manifests.taints import Taint, Toleration
from manifests.workloads import DEFAULT_PRIORITY, WorkloadRef

DeviceShare: TypeAlias = tuple[str, tuple[str, ...]]  # a kind of devices, and which instances of it


@dataclass(frozen=True, slots=True)
class Vector:
    """Amounts of what is counted: four resources that every node has, and devices by kind, sorted."""

    cpu_m: int
    memory_bytes: int
    pids: int
    disk_bytes: int = 0
    devices: tuple[tuple[str, int], ...] = ()

    def __add__(self, other: "Vector") -> "Vector":
        return self._with(other, 1)

    def __sub__(self, other: "Vector") -> "Vector":
        return self._with(other, -1)

    def fits(self, free: "Vector") -> bool:
        return (
            self.cpu_m <= free.cpu_m
            and self.memory_bytes <= free.memory_bytes
            and self.pids <= free.pids
            and self.disk_bytes <= free.disk_bytes
            and (not (self.devices or free.devices) or self._devices_fit(free))
        )

    def _devices_fit(self, free: "Vector") -> bool:
        there, wanted = dict(free.devices), dict(self.devices)
        return all(wanted.get(kind, 0) <= there.get(kind, 0) for kind in there.keys() | wanted.keys())

    def _with(self, other: "Vector", sign: int) -> "Vector":
        devices = self.devices
        if other.devices:
            counts = dict(devices)
            for kind, count in other.devices:
                counts[kind] = counts.get(kind, 0) + sign * count
            devices = tuple(sorted((kind, count) for kind, count in counts.items() if count))
        return Vector(
            self.cpu_m + sign * other.cpu_m,
            self.memory_bytes + sign * other.memory_bytes,
            self.pids + sign * other.pids,
            self.disk_bytes + sign * other.disk_bytes,
            devices,
        )


NOTHING = Vector(0, 0, 0)


def vector_of(resources: Resources) -> Vector:
    """Return the amounts: one object for equal ones that were asked for lately, as replicas have them."""
    devices = tuple(sorted(resources.devices.items()))
    return _shared_vector(resources.cpu_m, resources.memory_bytes, resources.pids, resources.disk_bytes, devices)


_shared_vector = lru_cache(maxsize=4096)(Vector)


def resources_of(vector: Vector) -> Resources:
    return Resources.of(
        cpu_m=vector.cpu_m,
        memory_bytes=vector.memory_bytes,
        pids=vector.pids,
        disk_bytes=vector.disk_bytes,
        devices=dict(vector.devices),
    )


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
    is_wanted: bool  # desired to run; counts for spread, maxPerNode and what is apart or together
    devices: tuple[DeviceShare, ...] = ()
    priority: int = DEFAULT_PRIORITY
    created_s: float = 0.0  # since when it has been at work
    is_leaving: bool = False  # it is being stopped: what it holds comes free


@dataclass(frozen=True, slots=True)
class NodeView:
    name: str
    eligibility: Eligibility
    labels: Mapping[str, str]
    attributes: Mapping[str, str]
    allocatable: Vector
    taints: tuple[Taint, ...] = ()
    devices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # instances by kind; allocatable counts them


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The cluster at one revision, read-only."""

    revision: int
    nodes: tuple[NodeView, ...]
    allocations: tuple[PlacedAllocation, ...]
    may_miss: Mapping[WorkloadRef, int] = field(default_factory=dict)  # so many may go now; not named: any number


@dataclass(frozen=True, slots=True)
class PortAsk:
    name: str
    container: int
    host: int | None  # None: any free one of AUTO_PORTS
    protocol: str


AUTO_PORTS = range(20_000, 32_000)  # below Linux's ephemeral range, so that outgoing connections don't take them


@dataclass(frozen=True, slots=True)
class Affinity:
    """A preference for nodes where a constraint holds (or against them): from -100 to 100."""

    constraint: Constraint
    weight: int


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Another workload, and what counts as the same place as it: nodes with one value of the attribute `over`.

    `weight` is None where the rule must hold, else how much it counts, from -100 to 100.
    """

    workload: WorkloadRef
    is_wanted: bool = True  # to be in one place with it; False: apart from it
    over: str = "node.name"
    weight: int | None = None


@dataclass(frozen=True, slots=True)
class Spread:
    """Evens out over the values of an attribute, or by target shares; `max_skew` is how uneven it may become."""

    over: str
    shares: tuple[tuple[str, float], ...] = ()  # (value, share of all), which add up to 1 at most
    max_skew: int | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """Allocations of one version of one workload that want a node: one for each of `indexes`."""

    workload: WorkloadRef
    version: int
    indexes: tuple[int, ...]
    reserved: Vector
    ports: tuple[PortAsk, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    spread: tuple[Spread, ...] = ()
    max_per_node: int | None = None
    avoid: frozenset[str] = field(default_factory=frozenset)  # nodes where it failed: only if no other node fits
    only_node: str | None = None  # a Daemon's allocation belongs to this node
    tolerations: tuple[Toleration, ...] = ()
    affinities: tuple[Affinity, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    policy: Policy = Policy.PACK
    priority: int = DEFAULT_PRIORITY
    preempts: bool = True
    volumes: tuple[str, ...] = ()  # named ones of the namespace, of which each index has its own
    prefer: frozenset[str] = field(default_factory=frozenset)  # nodes that are taken before all others, if any fits


@dataclass(frozen=True, slots=True)
class Placement:
    workload: WorkloadRef
    version: int
    index: int
    node: str
    reserved: Vector
    ports: tuple[HostPort, ...]
    why: Choice
    devices: tuple[DeviceShare, ...] = ()


@dataclass(frozen=True, slots=True)
class BlockedAsk:
    workload: WorkloadRef
    indexes: tuple[int, ...]
    blocked: Blocked


@dataclass(frozen=True, slots=True)
class Eviction:
    """An allocation that has done nothing wrong, and ends because one of higher priority needs its room."""

    allocation: str
    node: str
    workload: WorkloadRef
    by: WorkloadRef  # whose allocation gets the room
    priority: int  # of that one

    def sentence(self) -> str:
        return f"makes room for {self.by}, priority {self.priority}"


@dataclass(frozen=True, slots=True)
class Plan:
    """The scheduler's whole answer: every index of every ask is either placed or blocked.

    What others are evicted for is blocked: it waits until they have ended.
    """

    placements: tuple[Placement, ...]
    blocked: tuple[BlockedAsk, ...]
    evictions: tuple[Eviction, ...] = ()
