"""The watch cache: the whole cluster in memory, as of one store revision, and word of what changes.

It knows keys and records, nothing of leaders, sessions or HTTP. Readers look at its tables between awaits, where they
are consistent; subscribers are called with each batch of changes right after it was applied.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from sys import intern
from typing import Generic, TypeAlias, TypeVar

from pydantic import ValidationError

from control_plane import keys
from control_plane.compact import Compactor
from control_plane.records import (
    BrakeRecord,
    ClusterRecord,
    DeletionRecord,
    EndedAllocation,
    EventRecord,
    FreezeRecord,
    LeaderRecord,
    ServerRecord,
    TokenRecord,
)
from control_plane.snapshots import begin_generation
from control_plane.store.protocol import ABSENT, Change, Entry, Revision, Store
from foundation.clock import Clock
from foundation.logs import Log
from manifests.allocations import Allocation, AllocationStatus
from manifests.base import Model
from manifests.configs import ConfigRecord, ConfigVersionRecord
from manifests.errors import CompactedError, ConflictError, UnavailableError
from manifests.moves import MoveRecord
from manifests.nodes import NodeIntent, NodeStatus
from manifests.settings import SettingsRecord
from manifests.status import WorkloadStatus
from manifests.workloads import CronState, VersionRecord, WorkloadRecord
from scheduler.holdings import Shelves

log = Log(__name__)
T = TypeVar("T", bound=Model)

WAIT_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Stored(Generic[T]):
    """A record and where the store has it: at `place` and its id."""

    value: T
    place: str  # one object for all that are in the same
    id: str
    created_at: Revision
    modified_at: Revision

    @property
    def key(self) -> str:
        return self.place + self.id


@dataclass(frozen=True, slots=True)
class ObjectChange:
    """One record before and after; None where there is none."""

    table: str
    id: str
    old: Model | None
    new: Model | None
    revision: Revision = ABSENT


@dataclass(frozen=True, slots=True)
class Batch:
    revision: Revision
    changes: tuple[ObjectChange, ...]
    is_first: bool = False  # all that there was when this server began to look: no news


Subscriber: TypeAlias = Callable[[Batch], None]


class Table(Generic[T]):
    """The records under one prefix, by what follows it in their keys."""

    def __init__(
        self,
        name: str,
        prefix: str,
        model: type[T],
        *,
        is_by_node: bool = False,
        compact: Callable[[T], T] = lambda record: record,
    ) -> None:
        """`is_by_node`: ids follow a node's name in the keys. `compact` makes what was read small."""
        self.name, self.prefix, self.model = name, prefix, model
        self._is_by_node, self._compact = is_by_node, compact
        self._records: dict[str, Stored[T]] = {}

    def get(self, record_id: str) -> T | None:
        stored = self._records.get(record_id)
        return stored.value if stored else None

    def stored(self, record_id: str) -> Stored[T] | None:
        return self._records.get(record_id)

    def find(self, key: str) -> Stored[T] | None:
        """Return the record at a key of the store."""
        return self._records.get(self._split(key)[1])

    def modified_at(self, record_id: str) -> Revision:
        """Return the revision to compare with when writing it: 0 if there is none."""
        stored = self._records.get(record_id)
        return stored.modified_at if stored else Revision(0)

    def values(self) -> Iterator[T]:
        return (stored.value for stored in self._records.values())

    def ids(self) -> Iterator[str]:
        return iter(self._records)

    def stored_keys(self) -> list[str]:
        return [stored.key for stored in self._records.values()]

    def has(self, entry: Entry) -> bool:
        stored = self.find(entry.key)
        return stored is not None and stored.modified_at == entry.mod_revision

    def __contains__(self, record_id: object) -> bool:
        return record_id in self._records

    def __len__(self) -> int:
        return len(self._records)

    def apply(self, key: str, entry: Entry | None, revision: Revision) -> ObjectChange:
        place, record_id = self._split(key)
        old = self._records.pop(record_id, None)
        new = None
        if entry is not None:
            value = self._compact(self.model.read(entry.value))
            new = Stored(value, place, record_id, entry.create_revision, entry.mod_revision)
            self._records[record_id] = new
        return ObjectChange(self.name, record_id, old.value if old else None, new.value if new else None, revision)

    def share(self, other: "Table[T]") -> None:
        """Take over all records of another one, which goes its own way from then on."""
        self._records = other._records.copy()

    def _split(self, key: str) -> tuple[str, str]:
        """Return what comes before the record's id in the key, and the id."""
        if not self._is_by_node:
            return self.prefix, key.removeprefix(self.prefix)
        place, slash, record_id = key.rpartition("/")
        return intern(place + slash), intern(record_id)


class ClusterState:
    """All tables at `revision`. `follow` keeps them true; `wait_for` waits until they are new enough."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self.clock = store, clock
        compactor = Compactor()
        self.cluster = Table("cluster", keys.CLUSTER, ClusterRecord)
        self.workloads = Table("workload", keys.WORKLOADS, WorkloadRecord, compact=compactor.workload)
        self.versions = Table("version", keys.VERSIONS, VersionRecord, compact=compactor.version)
        self.configs = Table("config", keys.CONFIGS, ConfigRecord)
        self.config_versions = Table("configVersion", keys.CONFIG_VERSIONS, ConfigVersionRecord)
        self.settings = Table("settings", keys.SETTINGS, SettingsRecord)
        self.allocations = Table(
            "allocation", keys.ALLOCATIONS, Allocation, is_by_node=True, compact=compactor.allocation
        )
        self.statuses = Table("status", keys.STATUSES, AllocationStatus, is_by_node=True, compact=compactor.status)
        self.intents = Table("intent", keys.NODE_INTENTS, NodeIntent)
        self.nodes = Table("node", keys.NODES, NodeStatus, compact=compactor.node)
        self.brake = Table("brake", keys.BRAKE, BrakeRecord)
        self.workload_statuses = Table(
            "workloadStatus", keys.WORKLOAD_STATUSES, WorkloadStatus, compact=compactor.workload_status
        )
        self.crons = Table("cron", keys.CRON_STATES, CronState)
        self.moves = Table("move", keys.MOVES, MoveRecord)
        self.freeze = Table("freeze", keys.FREEZE, FreezeRecord)
        self.ended = Table("ended", keys.ENDED, EndedAllocation)
        self.events = Table("event", keys.EVENTS, EventRecord)
        self.deletions = Table("deletion", keys.DELETIONS, DeletionRecord)
        self.servers = Table("server", keys.SERVERS, ServerRecord)
        self.tokens = Table("token", keys.TOKENS, TokenRecord)
        self.leader = Table("leader", keys.LEADER, LeaderRecord)
        self._tables: tuple[Table[Model], ...] = tuple(t for t in vars(self).values() if isinstance(t, Table))
        self._by_workload: Shelves[str, str, None] = Shelves()
        self._by_owner: Shelves[str, str, None] = Shelves()
        self._versions: Shelves[str, int, VersionRecord] = Shelves()
        self._by_node: Shelves[str, str, None] = Shelves()
        self.revision = Revision(0)
        self._heard_s = clock.now_s()
        self.quarantined: dict[str, str] = {}  # keys whose values can't be read, and why
        self._subscribers: list[Subscriber] = []
        self._moved = asyncio.Condition()
        self._gone_back_from: tuple[int, Revision] | None = None  # generation and revision, until that was said to all

    @property
    def generation(self) -> int:
        """Return which life of the store this is: revisions are comparable within one only."""
        cluster = self.cluster.get("")
        return cluster.generation if cluster else 0

    def staleness_s(self) -> float:
        """Return how long ago the store was last heard of: what is here is at most so old."""
        return self.clock.now_s() - self._heard_s

    def find(self, key: str) -> Stored[Model] | None:
        """Return the record at a key of the store, whichever table it is in."""
        table = self._table_of(key)
        return table.find(key) if table else None

    def is_unreadable(self, key: str) -> bool:
        """Say whether there is a record that can't be read: then nothing may be concluded from its absence here."""
        return key in self.quarantined

    def allocations_of(self, workload: str) -> list[Allocation]:
        """Return the allocations of the workload of that id, by index, newest last within one index."""
        found = (self.allocations.get(a) for a in self._by_workload[workload])
        return sorted((a for a in found if a), key=lambda a: (a.index, a.created_s, a.id))

    def allocations_on(self, node: str) -> list[Allocation]:
        found = (self.allocations.get(a) for a in sorted(self._by_node[node]))
        return [a for a in found if a]

    def jobs_of(self, cron: str) -> list[WorkloadRecord]:
        """Return the jobs that were made for the CronJob of that id, in whichever life of it, by id."""
        found = (self.workloads.get(job) for job in sorted(self._by_owner[cron]))
        return [job for job in found if job]

    def owners(self) -> Iterator[str]:
        """Yield the ids of all CronJobs that have jobs."""
        return self._by_owner.keys()

    def versions_of(self, workload: str) -> Mapping[int, VersionRecord]:
        """Return the kept versions of the workload of that id, by number."""
        return self._versions[workload]

    def workloads_with_allocations(self) -> Iterator[str]:
        return self._by_workload.keys()

    def count_of(self, workload: str) -> int:
        """Return how many allocations the workload of that id has, whatever is desired of them."""
        return len(self._by_workload[workload])

    def fork(self, clock: Clock) -> "ClusterState":
        """Return one with the same records, which shares them, follows no store and goes its own way with `take_in`."""
        twin = ClusterState(self._store, clock)
        for own, other in zip(twin._tables, self._tables, strict=True):
            own.share(other)
        twin._by_workload, twin._by_owner = self._by_workload.fork(), self._by_owner.fork()
        twin._versions, twin._by_node = self._versions.fork(), self._by_node.fork()
        twin.revision, twin.quarantined = self.revision, self.quarantined.copy()
        return twin

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Have it called with each batch, without awaiting, until the returned function is called."""
        self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber)

    async def wait_for(self, revision: int, *, timeout_s: float = WAIT_TIMEOUT_S) -> None:
        """Return once this state is at least that new. Raises UnavailableError if it stays behind."""
        try:
            async with asyncio.timeout(timeout_s), self._moved:
                await self._moved.wait_for(lambda: self.revision >= revision)
        except TimeoutError:
            raise UnavailableError(
                "this server is behind the store",
                why=f"it has seen revision {self.revision}, and revision {revision} is needed",
                fix="Try again, or ask another server.",
            ) from None

    async def load(self) -> None:
        """Read everything at one revision, then tell subscribers what differs from before."""
        entries: dict[str, Entry] = {}
        page = await self._store.list_prefix(keys.ROOT)
        entries.update((e.key, e) for e in page.entries)
        while page.next_key is not None:
            page = await self._store.list_prefix(keys.ROOT, at=page.revision, start=page.next_key)
            entries.update((e.key, e) for e in page.entries)
        known = [key for table in self._tables for key in table.stored_keys()]
        gone = [key for key in (*known, *self.quarantined) if key not in entries]
        changes = [Change(key, None, page.revision) for key in gone]
        has_gone_back = page.revision < self.revision
        changes += [Change(e.key, e, e.mod_revision) for e in entries.values() if has_gone_back or not self._has(e)]
        if has_gone_back:
            log.error("the store has gone back in time", revision=page.revision, seen=self.revision)
            self._gone_back_from, self.revision = (self.generation, self.revision), page.revision
        await self._apply(changes, page.revision, is_first=self.revision == 0)

    async def follow(self) -> None:
        """Keep up with the store for ever. Call `load` first."""
        while True:
            try:
                await self._say_gone_back()
                async for batch in self._store.watch(keys.ROOT, after=self.revision):
                    await self._apply(batch.changes, batch.revision)
            except CompactedError:
                log.warning("history was compacted away, listing again", revision=self.revision)
                await self.load()
            except UnavailableError as error:
                log.warning("the store can't be watched", why=error.why or error.what)
                await self.clock.sleep(1.0)

    async def _say_gone_back(self) -> None:
        """Begin a new generation if the store was restored by its own tools, unless another server has done it."""
        if self._gone_back_from is not None:
            generation, seen = self._gone_back_from
            with contextlib.suppress(ConflictError):
                await begin_generation(self._store, seen, of=generation)
            self._gone_back_from = None

    async def _apply(self, changes: Sequence[Change], revision: Revision, *, is_first: bool = False) -> None:
        self.take_in(changes, revision, is_first=is_first)
        async with self._moved:
            self._moved.notify_all()

    def take_in(self, changes: Sequence[Change], revision: Revision, *, is_first: bool = False) -> None:
        """Apply what changed up to that revision, and tell the subscribers."""
        done: list[ObjectChange] = []
        for change in changes:
            table = self._table_of(change.key)
            if table is None:
                continue
            if not keys.is_well_formed(table.prefix, change.key):
                self._set_aside(change, "no record of this table has such a key")
                continue
            try:
                applied = table.apply(change.key, change.entry, change.revision)
            except ValidationError as error:
                self._set_aside(change, str(error))
                continue
            self.quarantined.pop(change.key, None)
            self._index(applied)
            done.append(applied)
        self.revision = max(self.revision, revision)
        self._heard_s = self.clock.now_s()
        if done:
            batch = Batch(self.revision, tuple(done), is_first)
            for subscriber in list(self._subscribers):
                subscriber(batch)

    def _set_aside(self, change: Change, why: str) -> None:
        if change.entry is None:
            self.quarantined.pop(change.key, None)
        else:
            self.quarantined[change.key] = why
            log.error("a record could not be read and is left out", key=change.key, why=why[:200])

    def _has(self, entry: Entry) -> bool:
        table = self._table_of(entry.key)
        return table is not None and table.has(entry)

    def _table_of(self, key: str) -> Table[Model] | None:
        return next((t for t in self._tables if key.startswith(t.prefix)), None)

    def _index(self, change: ObjectChange) -> None:
        old, new = change.old, change.new
        if change.table == "version":
            workload, _, number = change.id.rpartition("/")
            if isinstance(new, VersionRecord):
                self._versions.writable(workload)[int(number)] = new
            elif workload in self._versions:
                self._versions.remove(workload, int(number))
        if isinstance(old, WorkloadRecord) and old.owner:
            self._by_owner.remove(keys.id_of_ref(old.owner), change.id)
        if isinstance(new, WorkloadRecord) and new.owner:
            self._by_owner.writable(keys.id_of_ref(new.owner))[change.id] = None
        if isinstance(old, Allocation):
            self._by_workload.remove(keys.id_of_ref(old.workload), change.id)
            self._by_node.remove(old.node, change.id)
        if isinstance(new, Allocation):
            self._by_workload.writable(keys.id_of_ref(new.workload))[change.id] = None
            self._by_node.writable(new.node)[change.id] = None
