"""Over random stores: nothing refers to what is removed, it is what it was decided on, and nothing is left over."""

from collections import Counter
from typing import TypeAlias

from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane import keys
from control_plane.controllers.garbage import (
    KEPT_EVENTS,
    KEPT_EVENTS_OF_GONE,
    KEPT_VERSIONS,
    garbage_of,
)
from control_plane.controllers.history import KEPT_FAILURES, KEPT_OTHERS, ended_of, kept_of, newest
from control_plane.controllers.writes import Unit, removal_unit
from control_plane.records import EndedAllocation, EventRecord
from control_plane.state import ClusterState
from control_plane.store.protocol import Delete, ModifiedAt, Put
from manifests.allocations import Allocation, Phase
from manifests.rollouts import Rollout, RolloutState
from manifests.status import WorkloadStatus
from manifests.workloads import CronState, VersionRecord, WorkloadRecord
from tests.builders import record, seen, status
from tests.cache import Cache

NAMES = ("web", "api")
UIDS = ("u1", "u2")
Writes: TypeAlias = list[Put]

names, uids, versions = st.sampled_from(NAMES), st.sampled_from(UIDS), st.integers(1, 30)


def workload_of(name: str, uid: str, version: int) -> WorkloadRecord:
    made = record(version=version, uid=uid)
    metadata = made.workload.metadata.model_copy(update={"name": name})
    return made.model_copy(update={"workload": made.workload.model_copy(update={"metadata": metadata})})


def allocation_of(of: WorkloadRecord, index: int, version: int) -> Allocation:
    return seen(of, index, version=version).allocation


@st.composite
def puts(draw: st.DrawFn) -> Put:
    """Return any record, which fits to the others or doesn't."""
    of = workload_of(draw(names), draw(uids), draw(versions))
    id_ = keys.id_of_ref(of.ref)
    allocation = allocation_of(of, draw(st.integers(0, 3)), draw(versions))
    placed = keys.placed_id(allocation.node, allocation.id)
    said = status(allocation, draw(st.sampled_from(Phase)))
    version = VersionRecord(uid=of.uid, version=of.version, created_s=0.0, workload=of.workload)
    healthy = (draw(versions),)
    rollout = Rollout(version=of.version, state=RolloutState.PROGRESSING, target=draw(versions), healthy=healthy)
    cron = CronState(uid=of.uid, schedule="* * * * *", time_zone="UTC", handled_s=1.0)
    ended = ended_of(allocation, said, draw(st.floats(0, 100)))
    event = EventRecord(subject="any", reason="r", message="m", revision=1, first_s=0.0, last_s=0.0)
    place = draw(st.sampled_from((id_, keys.node_place("n1"), keys.server_place("s1"))))
    return draw(
        st.sampled_from(
            (
                Put(keys.WORKLOADS + id_, of.to_bytes()),
                Put(keys.WORKLOADS + id_, b"{garbage"),
                Put(keys.VERSIONS + keys.version_id(id_, of.version), version.to_bytes()),
                Put(keys.VERSIONS + keys.version_id(id_, of.version), version.to_bytes()),
                Put(keys.ALLOCATIONS + placed, allocation.to_bytes()),
                Put(keys.STATUSES + placed, said.to_bytes()),
                Put(keys.WORKLOAD_STATUSES + id_, WorkloadStatus(ref=of.ref, generation=1, rollout=rollout).to_bytes()),
                Put(keys.CRON_STATES + id_, cron.to_bytes()),
                Put(f"{keys.ENDED}{id_}/{allocation.id}", ended.to_bytes()),
                Put(f"{keys.EVENTS}{place}/e-{draw(st.integers(0, 99))}", event.to_bytes()),
            )
        )
    )


def filled(writes: Writes) -> Cache:
    cache = Cache()
    for write in writes:
        cache.write([write])
    return cache


def collect(cache: Cache) -> list[Unit]:
    """Remove everything that may go, and return what that was."""
    units = list(garbage_of(cache.state))
    for unit in units:
        cache.write([write for write in unit.writes if isinstance(write, Delete)])
    return units


def needed_versions(state: ClusterState) -> set[str]:
    """Return the versions that something refers to and that are there."""
    found = {keys.version_id(keys.id_of_ref(a.workload), a.version) for a in state.allocations.values()}
    for of in state.workloads.values():
        found.add(keys.version_id(keys.id_of_ref(of.ref), of.version))
    return found & set(state.versions.ids())


@given(st.lists(puts(), max_size=60))
@settings(max_examples=200)
def test_what_something_refers_to_stays(writes: Writes) -> None:
    cache = filled(writes)
    state = cache.state
    before, allocations = needed_versions(state), set(state.allocations.ids())
    statuses = set(state.statuses.ids()) & allocations
    unreadable = {key for key in state.quarantined if key.startswith(keys.WORKLOADS)}
    of_unreadable = {v for v in state.versions.ids() if keys.WORKLOADS + keys.place_of(v) in unreadable}

    units = collect(cache)

    deleted = {write.key for unit in units for write in unit.writes}
    owned = (keys.VERSIONS, keys.STATUSES, keys.WORKLOAD_STATUSES, keys.CRON_STATES, keys.ENDED, keys.EVENTS)
    assert all(key.startswith(owned) for key in deleted), "it removed what isn't its own to remove"
    assert before | of_unreadable <= set(state.versions.ids())
    assert statuses <= set(state.statuses.ids())
    assert set(state.allocations.ids()) == allocations


@given(st.lists(puts(), max_size=60))
@settings(max_examples=100)
def test_each_deletion_compares_what_it_deletes_and_once_all_are_made_nothing_is_left(writes: Writes) -> None:
    cache = filled(writes)
    units = list(garbage_of(cache.state))
    found = {key: entry.mod_revision for key, entry in cache.entries.items()}
    for unit in units:
        compared = {c.key: c.revision for c in unit.compares if isinstance(c, ModifiedAt)}
        assert all(compared[write.key] == found[write.key] for write in unit.writes)
        assert all(found.get(key, 0) == revision for key, revision in compared.items() if key in cache.entries)
    assert len({w.key for u in units for w in u.writes}) == len(units)
    collect(cache)
    assert collect(cache) == []


@given(st.lists(puts(), max_size=120))
@settings(max_examples=50)
def test_what_is_kept_is_bounded(writes: Writes) -> None:
    cache = filled(writes)
    state = cache.state
    collect(cache)
    for workload in {keys.place_of(v) for v in state.versions.ids()}:
        if not state.is_unreadable(keys.WORKLOADS + workload):
            kept = set(state.versions_of(workload))
            in_use = {a.version for a in state.allocations_of(workload)}
            assert len(kept - in_use) <= KEPT_VERSIONS + 21, "30 numbers of which 10 are new"
    gone = Counter(keys.place_of(e) for e in state.ended.ids())
    for workload, count in gone.items():
        assert count <= KEPT_FAILURES + KEPT_OTHERS or state.is_unreadable(keys.WORKLOADS + workload)
    for place, count in Counter(keys.place_of(e) for e in state.events.ids()).items():
        is_there = place in state.workloads or state.is_unreadable(keys.WORKLOADS + place)
        assert count <= (KEPT_EVENTS if is_there else KEPT_EVENTS_OF_GONE)


def test_the_events_of_one_workload_are_bounded_and_the_newest_stay() -> None:
    cache = Cache()
    of = workload_of("web", "u1", 1)
    cache.write([Put(keys.WORKLOADS + keys.id_of_ref(of.ref), of.to_bytes())])
    for number in range(KEPT_EVENTS + 30):
        event = EventRecord(subject="service/web", reason="r", message="m", revision=1, first_s=0.0, last_s=0.0)
        cache.write([Put(f"{keys.EVENTS}default/service/web/e-{number}", event.to_bytes())])
    collect(cache)
    newest_ids = {f"default/service/web/e-{number}" for number in range(30, KEPT_EVENTS + 30)}
    assert set(cache.state.events.ids()) == newest_ids


def test_an_old_version_that_is_still_rolled_back_to_stays() -> None:
    cache = Cache()
    of = workload_of("web", "u1", 30)
    id_ = keys.id_of_ref(of.ref)
    cache.write([Put(keys.WORKLOADS + id_, of.to_bytes())])
    for number in range(1, 31):
        version = VersionRecord(uid="u1", version=number, created_s=0.0, workload=of.workload)
        cache.write([Put(keys.VERSIONS + keys.version_id(id_, number), version.to_bytes())])
    rollout = Rollout(version=30, target=3, state=RolloutState.REVERTED, healthy=(4,))
    said = WorkloadStatus(ref=of.ref, generation=1, rollout=rollout)
    cache.write([Put(keys.WORKLOAD_STATUSES + id_, said.to_bytes())])
    collect(cache)
    assert set(cache.state.versions_of(id_)) == {3, 4, *range(21, 31)}


ENDED = st.builds(
    lambda index, phase, at: EndedAllocation(
        id=f"web-{index}",
        workload=record().ref,
        version=1,
        index=index,
        node="n1",
        phase=phase,
        created_s=0.0,
        finished_s=at,
    ),
    st.integers(0, 999),
    st.sampled_from(("stopped", "succeeded", "failed", "lost")),
    st.floats(0, 1000),
)


@given(st.lists(ENDED, max_size=40, unique_by=lambda e: e.id))
def test_the_newest_failures_are_kept_whatever_else_ends(ended: list[EndedAllocation]) -> None:
    kept = newest(ended)
    failures = sorted((e for e in ended if e.has_failed), key=lambda e: (e.finished_s, e.id), reverse=True)
    assert [e for e in kept if e.has_failed] == failures[:KEPT_FAILURES]
    assert sum(not e.has_failed for e in kept) == min(KEPT_OTHERS, len(ended) - len(failures))
    assert newest(kept) == kept


def test_a_removal_compares_the_records_that_it_was_decided_on() -> None:
    """So that a live allocation, which only an outdated look takes for ended, is not removed."""
    cache = Cache()
    of = workload_of("web", "u1", 1)
    allocation = allocation_of(of, 0, 1)
    placed = keys.placed_id(allocation.node, allocation.id)
    cache.write([Put(keys.WORKLOADS + keys.id_of_ref(of.ref), of.to_bytes())])
    decided = cache.write([Put(keys.ALLOCATIONS + placed, allocation.to_bytes())])
    said = cache.write([Put(keys.STATUSES + placed, status(allocation, Phase.FAILED).to_bytes())])
    [(id_, ended)] = kept_of(cache.state, [allocation], 9.0).items()
    unit = removal_unit(cache.state, allocation, ended)
    assert id_ == allocation.id
    assert (ended.phase, ended.last_ending and ended.last_ending.exit_code) == ("failed", 1)
    assert set(unit.compares) == {
        ModifiedAt(keys.ALLOCATIONS + placed, decided),
        ModifiedAt(keys.STATUSES + placed, said),
    }
    assert {type(write) for write in unit.writes} == {Delete, Put}


def test_of_a_workload_that_is_gone_or_was_applied_anew_nothing_is_kept() -> None:
    cache = Cache()
    old = workload_of("web", "u1", 1)
    allocation = allocation_of(old, 0, 1)
    assert kept_of(cache.state, [allocation], 9.0) == {}
    new = workload_of("web", "u2", 1)
    cache.write([Put(keys.WORKLOADS + keys.id_of_ref(new.ref), new.to_bytes())])
    assert kept_of(cache.state, [allocation], 9.0) == {}
