"""The store's records at one revision, kept up step by step, with what each step changed."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from control_plane import keys
from control_plane.controllers.bursts import MOST_PER_PASS
from control_plane.records import FreezeRecord, LeaderRecord, ServerRecord
from control_plane.store.protocol import ABSENT, Revision
from manifests.allocations import Allocation, AllocationStatus
from manifests.base import Model
from manifests.configs import ConfigRecord, ConfigVersionRecord
from manifests.nodes import NodeIntent, NodeStatus
from manifests.status import WorkloadStatus
from manifests.workloads import Kind, VersionRecord, WorkloadRecord
from tests.invariants.past import NodeThen, Past
from tests.invariants.steps import Step

TABLES: dict[str, type[Model]] = {
    keys.WORKLOADS: WorkloadRecord,
    keys.VERSIONS: VersionRecord,
    keys.ALLOCATIONS: Allocation,
    keys.NODE_INTENTS: NodeIntent,
    keys.NODES: NodeStatus,
    keys.STATUSES: AllocationStatus,
    keys.WORKLOAD_STATUSES: WorkloadStatus,
    keys.SERVERS: ServerRecord,
    keys.LEADER: LeaderRecord,
    keys.CONFIGS: ConfigRecord,
    keys.CONFIG_VERSIONS: ConfigVersionRecord,
    keys.FREEZE: FreezeRecord,
}
BY_LAST_PART = (keys.ALLOCATIONS, keys.STATUSES)  # allocations' ids are unique without their node


@dataclass(frozen=True, slots=True)
class Written:
    """One key's record before and after a step."""

    table: str  # its prefix, one of control_plane.keys
    id: str
    old: Model | None
    new: Model | None
    old_revision: Revision  # when `old` was last changed


class Records:
    """All that is known at `revision`."""

    def __init__(self, portion: int = MOST_PER_PASS) -> None:
        self.portion = portion  # how much of one workload is placed in one pass
        self.revision = Revision(0)
        self.allocations: dict[str, Allocation] = {}
        self.statuses: dict[str, AllocationStatus] = {}
        self.nodes: dict[str, NodeStatus] = {}
        self.intents: dict[str, NodeIntent] = {}
        self.workloads: dict[str, WorkloadRecord] = {}
        self.versions: dict[str, VersionRecord] = {}
        self.workload_statuses: dict[str, WorkloadStatus] = {}
        self.servers: dict[str, ServerRecord] = {}
        self.leader: dict[str, LeaderRecord] = {}
        self.leader_created_at = ABSENT
        self.configs: dict[str, ConfigRecord] = {}
        self.config_versions: dict[str, ConfigVersionRecord] = {}
        self.freeze: dict[str, FreezeRecord] = {}
        self.on_node: defaultdict[str, dict[str, Allocation]] = defaultdict(dict)
        self.of_workload: defaultdict[str, dict[str, Allocation]] = defaultdict(dict)  # by uid
        self.ever: dict[str, Allocation] = {}  # each allocation that there ever was, as it was last
        self.told_in: dict[str, tuple[int, int]] = {}  # by allocation: the node's session of its last two steps
        self.versions_ever: dict[tuple[str, int], VersionRecord] = {}  # by the workload's uid
        self.contents_ever: dict[tuple[str, int], str] = {}  # of configs, by id and version
        self.past = Past()
        self.began_s: dict[tuple[str, str], float] = {}  # when each was last changed, as far as is known
        self.cron_slots: set[tuple[str, str]] = set()  # that ever made a job: the CronJob's uid and the job's name
        self._modified_at: dict[tuple[str, str], Revision] = {}
        self._tables: dict[str, dict[str, Model]] = {
            keys.WORKLOADS: self.workloads,  # type: ignore[dict-item]  # each holds the models of its prefix
            keys.VERSIONS: self.versions,  # type: ignore[dict-item]
            keys.ALLOCATIONS: self.allocations,  # type: ignore[dict-item]
            keys.NODE_INTENTS: self.intents,  # type: ignore[dict-item]
            keys.NODES: self.nodes,  # type: ignore[dict-item]
            keys.STATUSES: self.statuses,  # type: ignore[dict-item]
            keys.WORKLOAD_STATUSES: self.workload_statuses,  # type: ignore[dict-item]
            keys.SERVERS: self.servers,  # type: ignore[dict-item]
            keys.LEADER: self.leader,  # type: ignore[dict-item]
            keys.CONFIGS: self.configs,  # type: ignore[dict-item]
            keys.CONFIG_VERSIONS: self.config_versions,  # type: ignore[dict-item]
            keys.FREEZE: self.freeze,  # type: ignore[dict-item]
        }

    def apply(self, step: Step) -> list[Written]:
        """Take the step in, and return what it changed. What can't be read isn't there, as for any server."""
        written = []
        for change in step.changes:
            table = next((prefix for prefix in TABLES if change.key.startswith(prefix)), None)
            if table is None or not keys.is_well_formed(table, change.key):
                continue
            rest = change.key.removeprefix(table)
            id_ = rest.rpartition("/")[2] if table in BY_LAST_PART else rest
            new = _read(TABLES[table], change.entry.value) if change.entry else None
            records = self._tables[table]
            old = records.pop(id_, None)
            if old is None and new is None:
                continue
            if new is not None:
                records[id_] = new
            old_revision = self._modified_at.get((table, id_), ABSENT)
            self._modified_at[table, id_] = change.revision if new is not None else ABSENT
            if step.began_s is not None:
                self.began_s[table, id_] = step.began_s
            self._index(old, new)
            if isinstance(new, ConfigVersionRecord):
                self.contents_ever[keys.place_of(id_), new.version] = new.data
            if table == keys.LEADER:
                self.leader_created_at = change.entry.create_revision if change.entry else ABSENT
            written.append(Written(table, id_, old, new, old_revision))
        self.revision = step.revision
        self._remember(written)
        return written

    def _remember(self, written: Sequence[Written]) -> None:
        """Note what rules about decisions need: how things stood when they were made."""
        touched: set[str] = set()
        for w in written:
            match w.new or w.old:
                case Allocation(node=node):
                    touched.add(node)
                    self.past.allocations.note(w.id, self.revision, w.new if isinstance(w.new, Allocation) else None)
                case AllocationStatus(node=node, is_ready=is_ready, is_terminal=is_terminal):
                    touched |= {node} if is_terminal or w.new is None else set()
                    self.past.ready.note(w.id, self.revision, is_ready and w.new is not None)
                case NodeStatus() | NodeIntent():
                    touched.add(w.id)
                case WorkloadRecord():
                    self.past.workloads.note(w.id, self.revision, w.new if isinstance(w.new, WorkloadRecord) else None)
                case _:
                    pass
        if any(isinstance(w.new, Allocation | WorkloadStatus) for w in written):
            self.past.decided.append(self.revision)
        for name in touched:
            status = self.nodes.get(name)
            self.past.nodes.note(name, self.revision, self._node_now(name, status) if status else None)

    def _node_now(self, name: str, node: NodeStatus) -> NodeThen:
        holding = list(self.holding(name))
        offered = node.facts.allocatable
        return NodeThen(
            status=node,
            intent=self.intents.get(name),
            cpu_m=offered.cpu_m - sum(a.reserved.cpu_m for a in holding),
            memory_bytes=offered.memory_bytes - sum(a.reserved.memory_bytes for a in holding),
            pids=offered.pids - sum(a.reserved.pids for a in holding),
            ports=frozenset((port.host, port.protocol) for a in holding for port in a.ports),
        )

    def modified_at(self, table: str, id_: str) -> Revision:
        return self._modified_at.get((table, id_), ABSENT)

    def _index(self, old: Model | None, new: Model | None) -> None:
        if isinstance(old, Allocation):
            self.on_node[old.node].pop(old.id, None)
            self.of_workload[old.workload.uid].pop(old.id, None)
        if isinstance(new, Allocation):
            self.on_node[new.node][new.id] = new
            self.of_workload[new.workload.uid][new.id] = new
            self.ever[new.id] = new
        if isinstance(new, VersionRecord):
            self.versions_ever[new.uid, new.version] = new
        if isinstance(new, AllocationStatus) and not _is_where_it_was(old, new):
            node = self.nodes.get(new.node)
            self.told_in[new.id] = (self.told_in.get(new.id, (0, 0))[1], node.session if node else 0)

    def has_ended(self, allocation: str) -> bool:
        status = self.statuses.get(allocation)
        return status is not None and status.is_terminal

    def is_at_most_once(self, allocation: Allocation) -> bool:
        """Say whether its slot must never run twice at once: by the spec of its own version."""
        if allocation.workload.kind is Kind.DAEMON:
            return False
        version = self.versions.get(keys.version_id(keys.id_of_ref(allocation.workload), allocation.version))
        return version is not None and version.workload.spec.on_disconnect.stop_after_s is not None

    def holding(self, node: str) -> Iterator[Allocation]:
        """Yield what holds its resources on the node: until the node has said that it ended."""
        return (a for a in self.on_node[node].values() if not self.has_ended(a.id))


def _read(model: type[Model], value: bytes) -> Model | None:
    try:
        return model.read(value)
    except ValidationError:
        return None


def _is_where_it_was(old: Model | None, new: AllocationStatus) -> bool:
    return isinstance(old, AllocationStatus) and (old.phase, old.attempt) == (new.phase, new.attempt)
