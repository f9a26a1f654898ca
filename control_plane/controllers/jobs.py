"""Reconciles a Job: each index runs until it has succeeded once, so many at a time. Pure.

An index that has succeeded never runs again. One that has failed, after its restarts in place, is tried anew up to
`retries` times, elsewhere if possible; then it fails the job, and the rest is stopped. One whose node is lost runs anew
elsewhere, which is no failure. How often an index has failed is in its allocations (`reschedules`): so the last one of
an index is kept until the next one has its place, and a new leader goes on counting.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from control_plane.controllers.asks import ask_of
from control_plane.controllers.decision import (
    Decision,
    Seen,
    Stop,
    Succession,
    failed_reason,
    lost_reason,
    reschedule_delay_s,
    soonest,
)
from manifests.allocations import Allocation, Phase
from manifests.workloads import JobSpec, WorkloadRecord
from scheduler.model import Ask, Eligibility

MOST_SAID = 3  # failures that are told one by one


@dataclass(frozen=True)
class _Index:
    """All allocations of one index, the newest last."""

    number: int
    seen: Sequence[Seen]

    @cached_property
    def has_succeeded(self) -> bool:
        return any(s.phase is Phase.SUCCEEDED for s in self.seen)

    @cached_property
    def running(self) -> Sequence[Seen]:
        """Return what may be running and is to: wanted, and not known to have ended."""
        return [s for s in self.seen if s.is_wanted and not s.has_ended]

    @cached_property
    def is_busy(self) -> bool:
        """Say whether it runs within reach, or still stops there: the same index doesn't run twice at once."""
        return any(not s.has_ended and not s.is_out_of_reach for s in self.seen)

    @cached_property
    def is_lost(self) -> bool:
        return any(s.is_out_of_reach for s in self.running)

    @cached_property
    def failures(self) -> int:
        """Return how many of its allocations have failed, those before a lost one included."""
        return max((s.allocation.reschedules + _has_failed(s) for s in self.seen), default=0)

    @cached_property
    def last(self) -> Seen | None:
        """Return the one that the next one follows: the failed one that was tried last, else the newest."""
        by_tries = sorted(self.seen, key=lambda s: (s.allocation.reschedules, s.is_wanted, s.allocation.created_s))
        return by_tries[-1] if by_tries else None

    @property
    def has_failed_last(self) -> bool:
        return self.last is not None and _has_failed(self.last) and not self.running


def _has_failed(s: Seen) -> bool:
    """Say whether it failed by its own doing: one that is evicted may end with whatever exit code."""
    return s.phase is Phase.FAILED and s.allocation.evicted_for is None


def reconcile_job(record: WorkloadRecord, seen: Sequence[Seen], *, was_complete: bool = False) -> Decision:
    """Return what brings the job nearer to its end; nothing once it has ended.

    `was_complete` says that it was complete before: then it is, also if its allocations were collected since.
    """
    spec = record.workload.spec
    assert isinstance(spec, JobSpec)
    indexes = _by_index(seen)
    if was_complete or sum(i.has_succeeded for i in indexes.values()) >= spec.completions:
        return Decision(stops=_stops(seen, "the job is complete"), removals=_of_gone_nodes(seen), is_complete=True)
    given_up = [i for i in indexes.values() if not i.has_succeeded and i.has_failed_last and i.failures > spec.retries]
    if record.cancelled or given_up:
        return _failed(record, seen, given_up)
    return _next_indexes(record, spec, seen, indexes)


def _by_index(seen: Sequence[Seen]) -> dict[int, _Index]:
    groups: dict[int, list[Seen]] = {}
    for s in seen:
        groups.setdefault(s.allocation.index, []).append(s)
    return {number: _Index(number, groups[number]) for number in sorted(groups)}


def _failed(record: WorkloadRecord, seen: Sequence[Seen], given_up: Sequence[_Index]) -> Decision:
    messages = [f"index {i.number} is given up after {_tries(i.failures)}: {_failure_of(i)}" for i in given_up]
    said = [record.cancelled] if record.cancelled else messages[:MOST_SAID]
    if not record.cancelled and len(messages) > MOST_SAID:
        said.append(f"and {len(messages) - MOST_SAID} more indexes are given up")
    return Decision(
        stops=_stops(seen, record.cancelled or "the job has failed"),
        removals=_of_gone_nodes(seen),
        messages=tuple(said),
        is_complete=True,
        is_failed=True,
    )


def _tries(failures: int) -> str:
    return "1 failure" if failures == 1 else f"{failures} failures"


def _failure_of(index: _Index) -> str:
    assert index.last is not None
    return f"allocation {index.last.id}: {failed_reason(index.last)}"


def _stops(seen: Sequence[Seen], reason: str) -> tuple[Stop, ...]:
    return tuple(Stop(s.allocation, reason) for s in seen if s.is_wanted and not s.has_ended)


def _of_gone_nodes(seen: Sequence[Seen]) -> tuple[Allocation, ...]:
    """Return what a finished job needn't keep: no node has it or its logs. All else stays until the job is deleted."""
    return tuple(s.allocation for s in seen if not s.is_wanted and s.node is None and s.phase is not Phase.SUCCEEDED)


def _next_indexes(
    record: WorkloadRecord, spec: JobSpec, seen: Sequence[Seen], indexes: Mapping[int, _Index]
) -> Decision:
    waits = {i.number: left for i in indexes.values() if (left := _backoff_left_s(i, record)) > 0}
    busy = {i.number for i in indexes.values() if i.is_busy and not i.has_succeeded}
    todo = [_index(indexes, n) for n in range(spec.completions) if n not in busy and n not in waits]
    todo = [i for i in todo if not i.has_succeeded]
    first = sorted(todo, key=lambda i: (not i.is_lost, i.failures == 0, i.number))
    chosen = first[: max(0, spec.parallelism - len(busy))]
    return Decision(
        stops=(*_unwanted_stops(seen, indexes), *_stops_making_way(chosen)),
        asks=_asks(record, chosen),
        successions={i.number: Succession(i.last.id, i.failures) for i in chosen if i.last},
        removals=_superseded(seen, indexes),
        messages=_messages(spec, [i for i in indexes.values() if not i.has_succeeded and i.has_failed_last]),
        again_after_s=soonest(waits.values()),
    )


def _index(indexes: Mapping[int, _Index], number: int) -> _Index:
    return indexes.get(number) or _Index(number, ())


def _backoff_left_s(index: _Index, record: WorkloadRecord) -> float:
    if index.has_succeeded or not index.has_failed_last or index.last is None:
        return 0.0
    return reschedule_delay_s(index.last, record) - index.last.ended_for_s


def _unwanted_stops(seen: Sequence[Seen], indexes: Mapping[int, _Index]) -> list[Stop]:
    """Return the stops of what shall run no longer, wherever it is."""
    stops = []
    for s in seen:
        if not s.is_wanted or s.has_ended:
            continue
        if indexes[s.allocation.index].has_succeeded:
            stops.append(Stop(s.allocation, "its index has succeeded meanwhile"))
        elif s.is_out_of_reach:
            stops.append(Stop(s.allocation, lost_reason(s)))
        elif s.node is Eligibility.DRAINING:
            stops.append(Stop(s.allocation, s.leave_reason))
    return stops


def _stops_making_way(chosen: Sequence[_Index]) -> list[Stop]:
    """Return the stops of what has ended without success and now makes way: a slot has one wanted allocation."""
    return [
        Stop(s.allocation, failed_reason(s) if s.phase is Phase.FAILED else "it was stopped on its node")
        for index in chosen
        for s in index.seen
        if s.is_wanted and s.has_ended
    ]


def _asks(record: WorkloadRecord, chosen: Sequence[_Index]) -> tuple[Ask, ...]:
    """Ask for failed indexes one by one, each away from where it failed; for all others at once."""
    asks = [
        ask_of(record, [i.number], avoid=frozenset({i.last.allocation.node}))
        for i in chosen
        if i.has_failed_last and i.last
    ]
    plain = [i.number for i in chosen if not i.has_failed_last]
    return (*asks, *([ask_of(record, plain)] if plain else []))


def _superseded(seen: Sequence[Seen], indexes: Mapping[int, _Index]) -> tuple[Allocation, ...]:
    """Return what may be forgotten: ended or gone, without success, and another one has taken over or succeeded."""
    return tuple(
        s.allocation
        for s in seen
        if not s.is_wanted
        and (s.has_ended or s.node is None)
        and s.phase is not Phase.SUCCEEDED
        and _has_successor(s, indexes[s.allocation.index])
    )


def _has_successor(s: Seen, index: _Index) -> bool:
    return index.has_succeeded or any(o.is_wanted and o.id != s.id for o in index.seen)


def _messages(spec: JobSpec, failed: Sequence[_Index]) -> tuple[str, ...]:
    said = [
        f"index {i.number} is tried again after a backoff, retry {i.failures} of {spec.retries}: {_failure_of(i)}"
        for i in failed
    ]
    more = [f"and {len(said) - MOST_SAID} more indexes are tried again"] if len(said) > MOST_SAID else []
    return (*said[:MOST_SAID], *more)
