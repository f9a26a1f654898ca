"""Who is where: the allocations on each node, counted by workload, and the host ports and devices that they hold."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Generic, TypeAlias, TypeVar

from manifests.allocations import HostPort
from scheduler.hashing import WorkloadKey, key_of
from scheduler.model import AUTO_PORTS, DeviceShare, PlacedAllocation

K = TypeVar("K")
V = TypeVar("V")
L = TypeVar("L")

PortKey: TypeAlias = tuple[int, str]  # a host port and its protocol
Holders: TypeAlias = str | tuple[str, ...]  # allocations: hardly ever more than one, and there are very many


class Shelves(Generic[K, L, V]):
    """Mappings by key, of which a fork copies only those that it writes to."""

    def __init__(self) -> None:
        self._shelves: dict[K, dict[L, V]] = {}
        self._own: set[K] = set()

    def fork(self) -> "Shelves[K, L, V]":
        twin: Shelves[K, L, V] = Shelves()
        twin._shelves = self._shelves.copy()
        self._own.clear()
        return twin

    def __getitem__(self, key: K) -> Mapping[L, V]:
        return self._shelves.get(key, {})

    def __len__(self) -> int:
        return len(self._shelves)

    def __contains__(self, key: object) -> bool:
        return key in self._shelves

    def keys(self) -> Iterator[K]:
        """Yield the keys of all that hold something."""
        return iter(self._shelves)

    def writable(self, key: K) -> dict[L, V]:
        shelf = self._shelves.get(key)
        if shelf is None:
            shelf = self._shelves[key] = {}
        elif key not in self._own:
            shelf = self._shelves[key] = shelf.copy()
        self._own.add(key)
        return shelf

    def remove(self, key: K, label: L) -> None:
        shelf = self.writable(key)
        shelf.pop(label, None)
        if not shelf:
            del self._shelves[key]
            self._own.discard(key)


class Holdings:
    """All by row. What holds something but isn't wanted any more is in no count."""

    def __init__(self) -> None:
        self._on: Shelves[int, str, PlacedAllocation] = Shelves()
        self._running: Shelves[WorkloadKey, int, int] = Shelves()
        self._totals: dict[WorkloadKey, int] = {}
        self._of_version: Shelves[tuple[WorkloadKey, int], int, int] = Shelves()
        self._ports: Shelves[PortKey, int, Holders] = Shelves()
        self._autos: Shelves[str, int, int] = Shelves()
        self._devices: Shelves[int, tuple[str, str], tuple[str, ...]] = Shelves()

    def fork(self) -> "Holdings":
        twin = Holdings()
        twin._on, twin._running, twin._of_version = self._on.fork(), self._running.fork(), self._of_version.fork()
        twin._totals = self._totals.copy()
        twin._ports, twin._autos, twin._devices = self._ports.fork(), self._autos.fork(), self._devices.fork()
        return twin

    def on(self, row: int) -> Iterable[PlacedAllocation]:
        return self._on[row].values()

    def find(self, row: int, allocation_id: str) -> PlacedAllocation | None:
        return self._on[row].get(allocation_id)

    def running(self, workload: WorkloadKey) -> Mapping[int, int]:
        """Return how many wanted allocations of the workload are on each node that has any."""
        return self._running[workload]

    def total(self, workload: WorkloadKey) -> int:
        """Return how many wanted allocations of the workload there are in all."""
        return self._totals.get(workload, 0)

    def of_version(self, workload: WorkloadKey, version: int) -> Mapping[int, int]:
        return self._of_version[workload, version]

    def rows_with_port(self, port: PortKey) -> Collection[int]:
        """Return where the host port is held."""
        return self._ports[port].keys()

    def port_holders(self, port: PortKey, row: int) -> tuple[str, ...]:
        """Return who holds the host port on that node."""
        holders = self._ports[port].get(row, ())
        return (holders,) if isinstance(holders, str) else holders

    def autos(self, protocol: str) -> Mapping[int, int]:
        """Return how many of AUTO_PORTS are held, by row."""
        return self._autos[protocol]

    def devices(self, row: int) -> Mapping[tuple[str, str], tuple[str, ...]]:
        """Return who holds each instance of each kind of devices that is held on the node."""
        return self._devices[row]

    def add(self, row: int, allocation: PlacedAllocation) -> None:
        self._on.writable(row)[allocation.id] = allocation
        self.hold(row, allocation.ports, allocation.devices, allocation.id)
        if allocation.is_wanted:
            self.count(key_of(allocation.workload), allocation.version, row, 1)

    def remove(self, row: int, allocation: PlacedAllocation) -> None:
        self._on.remove(row, allocation.id)
        for port in allocation.ports:
            self._release_port(row, (port.host, port.protocol), allocation.id)
        for kind, instances in allocation.devices:
            for instance in instances:
                _release(self._devices, row, (kind, instance), allocation.id)
        if allocation.is_wanted:
            self.count(key_of(allocation.workload), allocation.version, row, -1)

    def hold(self, row: int, ports: Iterable[HostPort], devices: Iterable[DeviceShare], holder: str) -> None:
        """Note who has these ports and devices. (After a restore two may have the same: until one of them goes.)"""
        for port in ports:
            self.hold_port(row, (port.host, port.protocol), holder)
        for kind, instances in devices:
            shelf = self._devices.writable(row)
            for instance in instances:
                shelf[kind, instance] = (*shelf.get((kind, instance), ()), holder)

    def hold_port(self, row: int, port: PortKey, holder: str) -> None:
        before = self.port_holders(port, row)
        if not before and port[0] in AUTO_PORTS:
            _count(self._autos, port[1], row, 1)
        self._ports.writable(port)[row] = (*before, holder) if before else holder

    def count(self, workload: WorkloadKey, version: int, row: int, change: int) -> None:
        """Count more or fewer wanted allocations of the workload on the node."""
        _count(self._running, workload, row, change)
        total = self._totals[workload] = self._totals.get(workload, 0) + change
        if not total:
            del self._totals[workload]
        _count(self._of_version, (workload, version), row, change)

    def _release_port(self, row: int, port: PortKey, holder: str) -> None:
        left = tuple(h for h in self.port_holders(port, row) if h != holder)
        if left:
            self._ports.writable(port)[row] = left[0] if len(left) == 1 else left
        else:
            self._ports.remove(port, row)
        if row not in self._ports[port] and port[0] in AUTO_PORTS:
            _count(self._autos, port[1], row, -1)


def _count(shelves: Shelves[K, int, int], key: K, row: int, change: int) -> None:
    counts = shelves.writable(key)
    counts[row] = counts.get(row, 0) + change
    if not counts[row]:
        shelves.remove(key, row)


def _release(shelves: Shelves[K, L, tuple[str, ...]], key: K, label: L, holder: str) -> None:
    left = tuple(h for h in shelves[key].get(label, ()) if h != holder)
    if left:
        shelves.writable(key)[label] = left
    else:
        shelves.remove(key, label)
