"""What must hold at every revision of the store, checked on its whole history: it is read once, from revision 1.

S1 capacity: what a node's allocations reserve never exceeds what it offers, and no host port is held twice, where an
allocation holds both until its node has said that it ended. S2 slots: at most one wanted allocation has a workload's
index, and a service never gains one beyond replicas + maxSurge; a spare is not wanted: its slot is another's until its
node is back and one of the two is chosen. S3: under onDisconnect.stopAfter a slot is given to no other while the one
before may run within reach. S4 fence: allocations are written only while someone
leads (which leader it was doesn't show in the history).
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import TypeVar

from control_plane import keys
from control_plane.store.protocol import Change, Put, Revision, Store, Txn
from manifests.allocations import Allocation, AllocationStatus, Desired
from manifests.nodes import Liveness, NodeStatus
from manifests.workloads import ServiceSpec, VersionRecord, WorkloadRecord

Record = TypeVar("Record")
READ_S = 20.0
MARK = "/lab/mark"
RESOURCES = ("cpu_m", "memory_bytes", "pids")


async def history(store: Store) -> list[Change]:
    """Return every change of Wherry's keys since the store is there; it must not have been compacted."""
    changes: list[Change] = []
    async with asyncio.timeout(READ_S):
        end = await store.commit(Txn((), (Put(MARK, b""),)))  # a watch says nothing of a revision without changes
        async for item in store.watch("/", after=Revision(1)):
            changes += (change for change in item.changes if change.key.startswith(keys.ROOT))
            if item.revision >= end:
                break
    return changes


def breaches(changes: Iterable[Change]) -> tuple[str, ...]:
    """Return a sentence for each breach at each revision; the changes begin with the store's first and are in order."""
    world = _World()
    found: list[str] = []
    for revision, group in groupby(changes, key=lambda change: change.revision):
        found += [f"at revision {revision}: {breach}" for breach in world.step(tuple(group))]
    return tuple(found)


class _World:
    """The records of the store at one revision, as far as the invariants need them."""

    def __init__(self) -> None:
        self._allocations: dict[str, Allocation] = {}
        self._ended: set[str] = set()
        self._nodes: dict[str, NodeStatus] = {}
        self._workloads: dict[str, WorkloadRecord] = {}
        self._versions: dict[str, VersionRecord] = {}
        self._is_led = False

    def step(self, changes: tuple[Change, ...]) -> Iterator[str]:
        """Take in one revision and yield what it breaks."""
        if not self._is_led and any(change.key.startswith(keys.ALLOCATIONS) for change in changes):
            yield "allocations were written while nobody led (S4)"
        before, known = self._totals(), set(self._allocations)
        for change in changes:
            self._apply(change)
        yield from self._over_capacity()
        yield from self._shared_ports()
        yield from self._shared_slots()
        yield from self._too_many(before)
        yield from self._twice([a for a in self._allocations.values() if a.id not in known])

    def _apply(self, change: Change) -> None:
        key, value = change.key, change.entry.value if change.entry else None
        last = key.rpartition("/")[2]
        if key == keys.LEADER:
            self._is_led = value is not None
        elif key.startswith(keys.ALLOCATIONS):
            _put(self._allocations, last, Allocation.read(value) if value else None)
        elif key.startswith(keys.STATUSES):
            self._ended.discard(last)
            if value and AllocationStatus.read(value).is_terminal:
                self._ended.add(last)
        elif key.startswith(keys.NODES):
            _put(self._nodes, last, NodeStatus.read(value) if value else None)
        elif key.startswith(keys.WORKLOADS):
            _put(self._workloads, key.removeprefix(keys.WORKLOADS), WorkloadRecord.read(value) if value else None)
        elif key.startswith(keys.VERSIONS):
            _put(self._versions, key.removeprefix(keys.VERSIONS), VersionRecord.read(value) if value else None)

    def _holding(self) -> dict[str, list[Allocation]]:
        """Return by node what holds its resources."""
        holding: defaultdict[str, list[Allocation]] = defaultdict(list)
        for allocation in self._allocations.values():
            if allocation.id not in self._ended:
                holding[allocation.node].append(allocation)
        return holding

    def _over_capacity(self) -> Iterator[str]:
        for name, allocations in self._holding().items():
            if (node := self._nodes.get(name)) is None:
                continue
            for resource in RESOURCES:
                reserved = sum(getattr(allocation.reserved, resource) for allocation in allocations)
                offered = getattr(node.facts.allocatable, resource)
                if reserved > offered:
                    yield f"{name} has {reserved} {resource} reserved of {offered} (S1)"

    def _shared_ports(self) -> Iterator[str]:
        for name, allocations in self._holding().items():
            ports = Counter((port.host, port.protocol) for allocation in allocations for port in allocation.ports)
            yield from (f"{count} allocations hold {port} of {name} (S1)" for port, count in ports.items() if count > 1)

    def _shared_slots(self) -> Iterator[str]:
        slots = Counter((a.workload.uid, a.index) for a in self._wanted())
        yield from (f"{count} allocations are wanted in slot {slot} (S2)" for slot, count in slots.items() if count > 1)

    def _too_many(self, before: Counter[str]) -> Iterator[str]:
        after = self._totals()
        for record in self._workloads.values():
            spec = record.workload.spec
            if isinstance(spec, ServiceSpec) and after[record.uid] > before[record.uid]:
                most = spec.replicas + spec.update.max_surge
                if after[record.uid] > most:
                    yield f"{after[record.uid]} allocations of {record.ref.name} are wanted, at most {most} may be (S2)"

    def _twice(self, placed: list[Allocation]) -> Iterator[str]:
        for new in placed:
            for old in self._allocations.values():
                is_same = (old.workload.uid, old.index) == (new.workload.uid, new.index) and old.id != new.id
                if is_same and old.id not in self._ended and self._is_at_most_once(old) and self._is_within_reach(old):
                    yield f"{new.id} was placed, and {old.id} may run in its slot on {old.node} (S3)"

    def _is_at_most_once(self, allocation: Allocation) -> bool:
        version = self._versions.get(keys.version_id(keys.id_of_ref(allocation.workload), allocation.version))
        return version is not None and version.workload.spec.on_disconnect.stop_after_s is not None

    def _is_within_reach(self, allocation: Allocation) -> bool:
        node = self._nodes.get(allocation.node)
        return node is not None and node.liveness is not Liveness.LOST

    def _wanted(self) -> Iterator[Allocation]:
        return (a for a in self._allocations.values() if a.desired is Desired.RUN)

    def _totals(self) -> Counter[str]:
        return Counter(a.workload.uid for a in self._wanted())


def _put(records: dict[str, Record], key: str, value: Record | None) -> None:
    if value is None:
        records.pop(key, None)
    else:
        records[key] = value
