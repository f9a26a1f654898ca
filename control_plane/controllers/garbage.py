"""What nobody needs any more, and may go. Pure: looks at the cache, returns deletions.

Each deletion compares all that it was decided on: the revision of what goes, and of what would need it if it were
there. So what came to life meanwhile, or was written by somebody else, stays. What can't be read is needed: it may
refer to anything, and nothing is concluded from its absence in the cache.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from control_plane import keys
from control_plane.controllers.history import ended_id, newest
from control_plane.controllers.moving import is_over, moving
from control_plane.controllers.writes import Unit
from control_plane.records import EndedAllocation, EventRecord
from control_plane.state import ClusterState, Stored, Table
from control_plane.store.protocol import Compare, Delete, ModifiedAt
from manifests.workloads import VersionRecord, WorkloadRecord

KEPT_VERSIONS = 10  # of each workload, the newest; those that are in use stay besides
KEPT_EVENTS = 50  # of each workload, node and server, the newest
KEPT_EVENTS_OF_GONE = 5  # of one that isn't there any more
KEPT_EVENTS_IN_ALL = 5000


def garbage_of(state: ClusterState) -> Iterator[Unit]:
    """Yield the deletions of all that is left over, each on its own."""
    yield from _versions(state)
    yield from _config_versions(state)
    yield from _workload_statuses(state)
    yield from _cron_states(state)
    yield from _statuses(state)
    yield from _ended(state)
    yield from _events(state)
    yield from _moves(state)


def _versions(state: ClusterState) -> Iterator[Unit]:
    """Yield versions that nothing runs and nothing names; of a deleted workload all, once nothing of it runs."""
    kept_versions: defaultdict[str, set[int]] = defaultdict(set)
    for node in state.nodes.values():
        for allocation in node.kept:
            kept_versions[keys.id_of_ref(allocation.workload)].add(allocation.version)
    for workload in sorted({keys.place_of(version) for version in state.versions.ids()}):
        record = state.workloads.get(workload)
        if state.is_unreadable(keys.WORKLOADS + workload) or _has_unreadable_allocations(state):
            continue
        old = [v for v, of in state.versions_of(workload).items() if _is_old(v, of, record)]
        if not old:
            continue
        used = {a.version for a in state.allocations_of(workload)} | kept_versions[workload]
        if record is None:
            old = [] if used else old
        else:
            used |= _named_by(state, workload, record.version, record.promoted)
        needed = (
            ModifiedAt(keys.WORKLOADS + workload, state.workloads.modified_at(workload)),
            ModifiedAt(keys.WORKLOAD_STATUSES + workload, state.workload_statuses.modified_at(workload)),
        )
        for version in sorted(set(old) - used):
            stored = state.versions.stored(keys.version_id(workload, version))
            if stored:
                yield _deletion(stored, *needed)


def _is_old(version: int, of: VersionRecord, record: WorkloadRecord | None) -> bool:
    return record is None or of.uid != record.uid or version <= record.version - KEPT_VERSIONS


def _named_by(state: ClusterState, workload: str, version: int, promoted: int) -> set[int]:
    status = state.workload_statuses.get(workload)
    rollout = status.rollout if status else None
    return {version, promoted, *((rollout.version, rollout.target, rollout.last_healthy) if rollout else ())}


def _config_versions(state: ClusterState) -> Iterator[Unit]:
    """Yield contents that no kept version of a workload names, and that aren't a config's present one.

    Whoever names one anew, as an undo does, writes it once more: so the compare fails, and it stays.
    """
    if any(key.startswith((keys.VERSIONS, keys.CONFIGS)) for key in state.quarantined):
        return
    needed = {keys.config_version_id(id_, c.version) for id_ in state.configs.ids() if (c := state.configs.get(id_))}
    for version in state.versions.values():
        namespace = version.workload.metadata.namespace
        needed |= {keys.config_version_id(keys.config_id(namespace, n), v) for n, v in version.configs.items()}
    for id_ in sorted(set(state.config_versions.ids()) - needed):
        stored = state.config_versions.stored(id_)
        name = keys.place_of(id_)
        if stored:
            yield _deletion(stored, ModifiedAt(keys.CONFIGS + name, state.configs.modified_at(name)))


def _has_unreadable_allocations(state: ClusterState) -> bool:
    return any(key.startswith(keys.ALLOCATIONS) for key in state.quarantined)


def _workload_statuses(state: ClusterState) -> Iterator[Unit]:
    for workload in sorted(state.workload_statuses.ids()):
        stored = state.workload_statuses.stored(workload)
        is_needed = workload in state.workloads or state.is_unreadable(keys.WORKLOADS + workload)
        if stored and not is_needed and not state.allocations_of(workload):
            yield _deletion(stored, ModifiedAt(keys.WORKLOADS + workload, state.workloads.modified_at(workload)))


def _cron_states(state: ClusterState) -> Iterator[Unit]:
    for workload in sorted(state.crons.ids()):
        stored = state.crons.stored(workload)
        if stored and workload not in state.workloads and not state.is_unreadable(keys.WORKLOADS + workload):
            yield _deletion(stored, ModifiedAt(keys.WORKLOADS + workload, state.workloads.modified_at(workload)))


def _statuses(state: ClusterState) -> Iterator[Unit]:
    """Yield what a node said of allocations that aren't desired any more: they went without it, which is rare."""
    for id_ in sorted(i for i in state.statuses.ids() if i not in state.allocations):
        stored = state.statuses.stored(id_)
        if stored is None:
            continue
        desired = keys.ALLOCATIONS + keys.placed_id(stored.value.node, id_)
        if not state.is_unreadable(desired):
            yield _deletion(stored, ModifiedAt(desired, state.allocations.modified_at(id_)))


def _ended(state: ClusterState) -> Iterator[Unit]:
    by_workload: defaultdict[str, list[EndedAllocation]] = defaultdict(list)
    for ended in state.ended.values():
        by_workload[keys.id_of_ref(ended.workload)].append(ended)
    for workload in sorted(by_workload):
        if state.is_unreadable(keys.WORKLOADS + workload):
            continue
        record = state.workloads.get(workload)
        present = [e for e in by_workload[workload] if record is not None and e.workload.uid == record.uid]
        kept = {ended_id(e) for e in newest(present)}
        yield from _deletions(state.ended, (ended_id(e) for e in by_workload[workload] if ended_id(e) not in kept))


def _events(state: ClusterState) -> Iterator[Unit]:
    """Yield the oldest events over the counts: first those over their subject's, then those over all."""
    by_place: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
    for id_ in state.events.ids():
        by_place[keys.place_of(id_)].append((state.events.modified_at(id_), id_))
    kept: list[tuple[bool, int, str]] = []
    for place in sorted(by_place):
        is_there = _is_there(state, place)
        most = KEPT_EVENTS if is_there else KEPT_EVENTS_OF_GONE
        newest_first = sorted(by_place[place], reverse=True)
        yield from _deletions(state.events, (id_ for _, id_ in newest_first[most:]))
        kept += [(is_there, revision, id_) for revision, id_ in newest_first[:most]]
    over = len(kept) - KEPT_EVENTS_IN_ALL
    if over > 0:
        yield from _deletions(state.events, (id_ for _, _, id_ in sorted(kept)[:over]))


def _moves(state: ClusterState) -> Iterator[Unit]:
    """Yield marks of moves that are done or matter no more, and those for whose allocations there is no other place."""
    for id_ in sorted(state.moves.ids()):
        stored = state.moves.stored(id_)
        if stored is None:
            continue
        move, workload = stored.value, keys.id_of_ref(stored.value.workload)
        desired = keys.placed_id(move.from_node, id_)
        if state.is_unreadable(keys.WORKLOADS + workload) or state.is_unreadable(keys.ALLOCATIONS + desired):
            continue
        said = state.workload_statuses.get(workload)
        if is_over(state, move) or (said is not None and said.blocked and moving(state, workload) == move):
            yield _deletion(stored, ModifiedAt(keys.ALLOCATIONS + desired, state.allocations.modified_at(id_)))


def _is_there(state: ClusterState, place: str) -> bool:
    if place.startswith(keys.cluster_place("")):
        return True
    if place.startswith(keys.node_place("")):
        name = place.removeprefix(keys.node_place(""))
        return name in state.nodes or state.is_unreadable(keys.NODES + name)
    if place.startswith(keys.cluster_place("")):
        return True
    if place.startswith(keys.server_place("")):
        return any(server.name == place.removeprefix(keys.server_place("")) for server in state.servers.values())
    namespace, kind, name = place.split("/")
    if kind == "config":
        config = keys.config_id(namespace, name)
        return config in state.configs or state.is_unreadable(keys.CONFIGS + config)
    return place in state.workloads or state.is_unreadable(keys.WORKLOADS + place)


def _deletions(table: Table[EndedAllocation] | Table[EventRecord], ids: Iterator[str]) -> Iterator[Unit]:
    for id_ in ids:
        stored = table.stored(id_)
        if stored:
            yield Unit((Delete(stored.key),), (ModifiedAt(stored.key, stored.modified_at),))


def _deletion(stored: Stored[Any], *needed: Compare) -> Unit:
    return Unit((Delete(stored.key),), (ModifiedAt(stored.key, stored.modified_at), *needed))
