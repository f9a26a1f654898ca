"""Reconciles a Service: so many replicas, of the present version, on nodes that are there. Pure.

Each slot (index) has at most one wanted allocation. An outdated one (of an older version, or on a node being drained)
is replaced before it is stopped, as far as maxSurge lets, and never so that fewer than replicas - maxUnavailable are
ready.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from control_plane.controllers.decision import (
    Decision,
    Seen,
    Stop,
    Succession,
    ask_of,
    failed_reason,
    lost_reason,
    removals_of,
    reschedule_delay_s,
    soonest,
)
from manifests.allocations import Phase
from manifests.workloads import ServiceSpec, WorkloadRecord
from scheduler.model import Ask, Eligibility


@dataclass(frozen=True, slots=True)
class _Slots:
    """The wanted allocations, each in one group."""

    lost: tuple[Seen, ...]  # their node is gone: replaced at once
    due: tuple[Seen, ...]  # failed, and their backoff is over
    waiting: tuple[Seen, ...]  # failed, in backoff: they keep their slot
    outdated: tuple[Seen, ...]
    fresh: tuple[Seen, ...]  # run, or have ended as they should

    @property
    def held(self) -> int:
        return len(self.fresh) + len(self.waiting)


def reconcile_service(record: WorkloadRecord, seen: Sequence[Seen], *, was_blocked: bool) -> Decision:
    """Return what brings the service nearer to its spec; nothing once it is there.

    `was_blocked` says that in the last pass no node had room for the new version: then the old is stopped first.
    """
    spec = record.workload.spec
    assert isinstance(spec, ServiceSpec)
    slots = _slots(record, [s for s in seen if s.is_wanted])
    surplus = _surplus(slots, spec.replicas)
    outgoing, note = _outgoing(slots, spec, was_blocked=was_blocked)
    asks, successions = _asks(record, slots, spec)
    waits = [reschedule_delay_s(s, record) - s.ended_for_s for s in slots.waiting]
    return Decision(
        stops=(
            *(Stop(s.allocation, lost_reason(s)) for s in slots.lost),
            *(Stop(s.allocation, failed_reason(s)) for s in slots.due),
            *(Stop(s.allocation, f"the service needs only {spec.replicas}") for s in surplus),
            *(Stop(s.allocation, _outdated_reason(s, record)) for s in outgoing),
        ),
        asks=asks,
        successions=successions,
        removals=removals_of(seen),
        messages=_messages(record, slots, note),
        again_after_s=soonest(waits),
    )


def _slots(record: WorkloadRecord, wanted: Sequence[Seen]) -> _Slots:
    lost: list[Seen] = []
    due: list[Seen] = []
    waiting: list[Seen] = []
    outdated: list[Seen] = []
    fresh: list[Seen] = []
    for s in wanted:
        if s.is_out_of_reach:
            lost.append(s)
        elif s.phase is Phase.FAILED:
            (due if s.ended_for_s >= reschedule_delay_s(s, record) else waiting).append(s)
        elif _is_outdated(s, record):
            outdated.append(s)
        else:
            fresh.append(s)
    return _Slots(tuple(lost), tuple(due), tuple(waiting), tuple(outdated), tuple(fresh))


def _is_outdated(s: Seen, record: WorkloadRecord) -> bool:
    return s.allocation.version != record.version or (s.node is Eligibility.DRAINING and not s.has_ended)


def _outdated_reason(s: Seen, record: WorkloadRecord) -> str:
    if s.allocation.version != record.version:
        return f"version {record.version} replaces version {s.allocation.version}"
    return s.leave_reason


def _surplus(slots: _Slots, replicas: int) -> list[Seen]:
    """Return what to stop of the present version when there are too many: failed first, unready, then high slots."""

    def worth(s: Seen) -> tuple[int, int]:
        rank = 0 if s.phase is Phase.FAILED else 2 if s.is_ready or s.has_ended else 1
        return rank, -s.allocation.index

    by_worth = sorted((*slots.fresh, *slots.waiting), key=worth)
    return by_worth[: max(0, slots.held - replicas)]


def _outgoing(slots: _Slots, spec: ServiceSpec, *, was_blocked: bool) -> tuple[list[Seen], str]:
    """Return which outdated ones may stop now, and a note for people if the order is not the one asked for."""
    unready = [s for s in slots.outdated if not s.is_ready]
    ready = sorted((s for s in slots.outdated if s.is_ready), key=lambda s: -s.allocation.index)
    serving = len(ready) + sum(s.is_ready or s.phase is Phase.SUCCEEDED for s in slots.fresh)
    unavailable = spec.update.max_unavailable
    note = ""
    if unavailable == 0 and was_blocked and _waits_for_room(slots):
        unavailable = 1
        note = "stops an old allocation before it starts a new one: there is no room for both"
    may_stop = max(0, serving - max(0, spec.replicas - unavailable))
    return unready + ready[:may_stop], note


def _waits_for_room(slots: _Slots) -> bool:
    """Say whether stopping an old one would free room that a new one can use: not where its node is being drained."""
    progressing = any(not s.is_ready and not s.has_ended for s in slots.fresh)
    return not progressing and any(s.node is Eligibility.READY for s in slots.outdated)


def _asks(record: WorkloadRecord, slots: _Slots, spec: ServiceSpec) -> tuple[tuple[Ask, ...], dict[int, Succession]]:
    room = spec.replicas + spec.update.max_surge - slots.held - len(slots.outdated)
    count = min(spec.replicas - slots.held, room)
    if count <= 0:
        return (), {}
    vacated = {s.allocation.index: s for s in (*slots.lost, *slots.due)}
    taken = {s.allocation.index for s in (*slots.fresh, *slots.waiting, *slots.outdated)}
    free = [i for i in range(spec.replicas + spec.update.max_surge) if i not in taken]
    indexes = sorted(free, key=lambda i: (i not in vacated, i))[:count]
    successions = {i: _succession(vacated[i]) for i in indexes if i in vacated}
    failed = {i for i, s in vacated.items() if s.phase is Phase.FAILED}
    asks = [ask_of(record, [i], avoid=frozenset({vacated[i].allocation.node})) for i in indexes if i in failed]
    plain = [i for i in indexes if i not in failed]
    return (*asks, *([ask_of(record, plain)] if plain else [])), successions


def _succession(s: Seen) -> Succession:
    return Succession(s.id, s.allocation.reschedules + 1 if s.phase is Phase.FAILED else s.allocation.reschedules)


def _messages(record: WorkloadRecord, slots: _Slots, note: str) -> tuple[str, ...]:
    messages = [note] if note else []
    old = [s for s in slots.outdated if s.allocation.version != record.version]
    if old:
        messages.append(f"{len(old)} of an older version still to be replaced by version {record.version}")
    leaving = sorted({(s.allocation.node, s.leave_reason) for s in slots.outdated if s.node is Eligibility.DRAINING})
    messages += [f"moves off node {node}: {reason}" for node, reason in leaving]
    if slots.waiting:
        messages.append(f"{len(slots.waiting)} failed and will be tried elsewhere after a backoff")
    return tuple(messages)
