"""What the API shows of events: those that are stored, those told live, and what an allocation's own records tell."""

from collections.abc import Iterator

from control_plane import keys
from control_plane.event_log import LiveEvent, subject_of
from control_plane.records import EndedAllocation
from control_plane.state import ClusterState
from control_plane.views import View
from manifests.allocations import Allocation, Ending
from manifests.base import render_timestamp


def stored(state: ClusterState, event_id: str) -> View | None:
    event = state.events.get(event_id)
    if event is None:
        return None
    return {
        "id": event_id,
        "revision": event.revision,
        "at": render_timestamp(event.last_s),
        "firstAt": render_timestamp(event.first_s),
        "count": event.count,
        "subject": event.subject,
        "namespace": event.namespace,
        "reason": event.reason,
        "message": event.message,
        "allocation": event.allocation,
        "workload": event.subject if event.namespace else "",
        "by": event.by,
    }


def live(event: LiveEvent) -> View:
    told = event.told
    return _once(told.place, event.at_s, told.reason, told.message, told.allocation, revision=event.revision)


def of_allocation(state: ClusterState, allocation_id: str) -> Iterator[View]:
    """Yield what the records of an allocation, or what is kept of one that is gone, tell of its life, oldest first."""
    a = state.allocations.get(allocation_id)
    if a is not None:
        yield from _of_records(state, a)
    ended = next((e for e in state.ended.values() if e.id == allocation_id), None)
    if ended is not None:
        yield from _of_ended(ended)


def _of_records(state: ClusterState, a: Allocation) -> Iterator[View]:
    place, status = keys.id_of_ref(a.workload), state.statuses.get(a.id)
    yield _once(place, a.created_s, "placed", f"on node {a.node}: {a.why.sentence()}", a.id)
    if status and status.last_ending:
        yield _ending(place, a.id, a.node, status.last_ending)
    if status and status.started_s:
        yield _once(place, status.started_s, "started", f"attempt {status.attempt} started on node {a.node}", a.id)


def _of_ended(ended: EndedAllocation) -> Iterator[View]:
    place = keys.id_of_ref(ended.workload)
    yield _once(place, ended.created_s, "placed", f"on node {ended.node}", ended.id)
    if ended.started_s:
        said = f"attempt {ended.restarts + 1} started on node {ended.node}"
        yield _once(place, ended.started_s, "started", said, ended.id)
    if ended.last_ending:
        yield _ending(place, ended.id, ended.node, ended.last_ending)
    why = f": {ended.stop_reason}" if ended.stop_reason else ""
    yield _once(place, ended.finished_s, ended.phase, f"{ended.phase} on node {ended.node}{why}", ended.id)


def _ending(place: str, allocation_id: str, node: str, ending: Ending) -> View:
    said = f"attempt {ending.attempt} ended on node {node}: {ending.message or ending.reason}"
    return _once(place, ending.finished_s, ending.reason, said, allocation_id)


def _once(place: str, at_s: float, reason: str, message: str, allocation_id: str, *, revision: int = 0) -> View:
    at = render_timestamp(at_s)
    return {
        "id": "",
        "revision": revision,
        "at": at,
        "firstAt": at,
        "count": 1,
        "subject": f"allocation/{allocation_id}" if allocation_id else subject_of(place),
        "namespace": "" if place.startswith("-/") else place.partition("/")[0],
        "reason": reason,
        "message": message,
        "allocation": allocation_id,
        "workload": "" if place.startswith("-/") else subject_of(place),
        "by": "",
    }
