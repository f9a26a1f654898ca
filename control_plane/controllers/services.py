"""Reconciles a Service: so many replicas, of the version that its rollout works towards, on nodes that are there. Pure.

Each slot (index) has at most one wanted allocation. An old one (of another version) or a leaving one (on a node being
drained) is replaced before it is stopped, as far as maxSurge lets, and never so that fewer than replicas -
maxUnavailable serve. What a version that was healthy loses to faults while the target isn't yet known to work is made
again of that version: so a target that never works takes nothing from it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from control_plane.controllers.asks import ask_of
from control_plane.controllers.decision import (
    Decision,
    Seen,
    Stop,
    Succession,
    failed_reason,
    lost_reason,
    removals_of,
    reschedule_delay_s,
    soonest,
)
from control_plane.controllers.rollouts import (
    Course,
    Mode,
    Progress,
    Tally,
    advanced,
    counts,
    is_available,
    serves,
    trouble_of,
    waits,
)
from control_plane.controllers.room import OF_ROOM
from manifests.allocations import Phase
from manifests.policies import UpdateSpec
from manifests.reasons import Blocked
from manifests.workloads import ServiceSpec, WorkloadRecord
from scheduler.model import Ask, Eligibility


@dataclass(frozen=True, slots=True)
class _Slots:
    """The wanted allocations, each in one group; those that failed and are in backoff keep their slot."""

    lost: tuple[Seen, ...]  # their node is gone: replaced at once
    due: tuple[Seen, ...]  # failed, and their backoff is over
    fresh: tuple[Seen, ...]  # of the target
    old: tuple[Seen, ...]  # of another version
    leaving: tuple[Seen, ...]  # on a node that is being drained, of any version

    @property
    def total(self) -> int:
        return len(self.fresh) + len(self.old) + len(self.leaving)


@dataclass(frozen=True, slots=True)
class _Bounds:
    """What a service may have at any time."""

    replicas: int
    floor: int  # so many should serve
    most: int  # so many may be wanted at once
    granted: int  # so many of a target that isn't known to work may be on their way to serve


def reconcile_service(
    course: Course, seen: Sequence[Seen], *, blocked: Sequence[Blocked] = (), stalled_for_s: float = 0.0
) -> Decision:
    """Return what brings the service nearer to its spec; nothing once it is there.

    `blocked` is what no node had room for in the last pass, `stalled_for_s` how long its rollout made no progress.
    """
    slots, target = _slots(course, seen), course.target.version
    course = advanced(course, _tally(course, slots, blocked), _mode(course, slots), stalled_for_s)
    if course.target.version != target:  # which are fresh has changed: it has turned back
        slots = _slots(course, seen)
    mode = _mode(course, slots)
    course, note = _with_stop_first(course, slots, mode, seen, blocked)
    bounds = _bounds(course, mode)
    outgoing = _outgoing(course, slots, mode, bounds)
    surplus = _surplus(course, slots, mode, bounds, outgoing)
    dropped = frozenset(surplus)
    asks, successions = _asks(course, slots, mode, bounds)
    backoffs = [
        left for s in (*slots.fresh, *slots.old) if s.phase is Phase.FAILED and (left := _backoff(course, s)) > 0
    ]
    going = {s.id for s in (*surplus, *outgoing)}
    return Decision(
        stops=(
            *(Stop(s.allocation, lost_reason(s)) for s in slots.lost),
            *(Stop(s.allocation, failed_reason(s)) for s in slots.due),
            *(Stop(s.allocation, f"the service needs only {bounds.replicas}") for s in surplus),
            *(Stop(s.allocation, _outgoing_reason(s, course)) for s in outgoing if s not in dropped),
        ),
        asks=asks,
        successions=successions,
        removals=removals_of(seen),
        messages=_messages(course, slots, mode, note),
        rollout=course.rollout,
        again_after_s=soonest(
            [*backoffs, *waits((s for s in slots.fresh if s.id not in going), course, stalled_for_s)]
        ),
    )


def progress_of_service(course: Course, seen: Sequence[Seen]) -> Progress:
    """Return how far the rollout is: `old` counts what still runs, also what is being stopped."""
    slots, record = _slots(course, seen), course.record
    available = sum(is_available(s, course.update) for s in (*slots.fresh, *slots.leaving) if _is_of_target(course, s))
    old = sum(not _is_of_target(course, s) and not s.has_ended for s in seen)
    rollout = course.rollout
    return Progress((record.uid, record.generation, rollout.target, rollout.promoted), available, old)


def _slots(course: Course, seen: Sequence[Seen]) -> _Slots:
    groups: dict[str, list[Seen]] = {name: [] for name in ("lost", "due", "fresh", "old", "leaving")}
    for s in seen:
        if s.is_wanted:
            groups[_group_of(course, s)].append(s)
    return _Slots(**{name: tuple(group) for name, group in groups.items()})


def _group_of(course: Course, s: Seen) -> str:
    if s.is_out_of_reach:
        return "lost"
    if s.phase is Phase.FAILED and _backoff(course, s) <= 0:
        return "due"
    if s.node is Eligibility.DRAINING and not s.has_ended:
        return "leaving"
    return "fresh" if _is_of_target(course, s) else "old"


def _is_of_target(course: Course, s: Seen) -> bool:
    return s.allocation.version == course.target.version


def _backoff(course: Course, s: Seen) -> float:
    """Return how long a failed one still waits: not at all if its version won't be made again."""
    record = course.record_of(s.allocation.version)
    return reschedule_delay_s(s, record) - s.ended_for_s if record else 0.0


def _tally(course: Course, slots: _Slots, blocked: Sequence[Blocked]) -> Tally:
    return Tally(
        wanted=_spec_of(course).replicas,
        held=len(slots.fresh),
        available=sum(is_available(s, course.update) for s in slots.fresh),
        old=len(slots.old) + sum(not _is_of_target(course, s) for s in slots.leaving),
        trouble=trouble_of((*slots.fresh, *slots.due), (b for b in blocked if b.version == course.target.version)),
    )


def _mode(course: Course, slots: _Slots) -> Mode:
    has_old = any(not _is_of_target(course, s) for s in (*slots.old, *slots.leaving))
    return course.mode(held=len(slots.fresh), has_old=has_old)


def _spec_of(course: Course) -> ServiceSpec:
    spec = course.record.workload.spec
    assert isinstance(spec, ServiceSpec)
    return spec


def _bounds(course: Course, mode: Mode) -> _Bounds:
    spec = _spec_of(course)
    update: UpdateSpec = spec.update
    surge = 0 if course.rollout.stop_first else update.max_surge
    unavailable = max(update.max_unavailable, course.rollout.stop_first)
    extra = max(surge, update.canary) if mode is not Mode.ROLLING else surge
    return _Bounds(
        replicas=spec.replicas,
        floor=max(0, spec.replicas - unavailable),
        most=spec.replicas + extra,
        granted=surge + unavailable,
    )


def _with_stop_first(
    course: Course, slots: _Slots, mode: Mode, seen: Sequence[Seen], blocked: Sequence[Blocked]
) -> tuple[Course, str]:
    """Choose to stop an old one before a new one starts, where nothing else can go on; say so while it is so."""
    rollout = course.rollout
    if (
        not rollout.stop_first
        and mode is Mode.ROLLING
        and not rollout.is_over
        and _only_stopping_helps(course, slots, seen, blocked)
    ):
        rollout = rollout.model_copy(update={"stop_first": True})
    note = "stops an old allocation before it starts a new one: there is no room for both"
    is_said = rollout.stop_first and mode is Mode.ROLLING and bool(slots.old)
    return Course(course.record, rollout, course.target, course.fallback), note if is_said else ""


def _only_stopping_helps(course: Course, slots: _Slots, seen: Sequence[Seen], blocked: Sequence[Blocked]) -> bool:
    """Say whether the target lacks room which only stopping an old one makes: none comes free anyhow."""
    if _spec_of(course).update.max_unavailable > 0 or not slots.old:
        return False
    is_moving = any(not serves(s) and not s.has_ended for s in slots.fresh)
    is_freeing = any(not s.is_wanted and not s.has_ended and not s.is_out_of_reach for s in seen)
    hosts = {s.allocation.node for s in slots.old if s.node is Eligibility.READY}
    lacks_room = any(
        any(r.node in hosts and r.code in OF_ROOM for r in b.rejections) or any(u.code in OF_ROOM for u in b.unlisted)
        for b in blocked
        if b.version == course.target.version and not b.waits
    )
    return lacks_room and not is_moving and not is_freeing and bool(hosts)


def _by_worth(course: Course, allocations: Iterable[Seen]) -> list[Seen]:
    """Return them in the order in which they go: what doesn't serve, what never proved itself, then high slots."""

    def worth(s: Seen) -> tuple[int, bool, int]:
        rank = 0 if s.phase is Phase.FAILED else 2 if serves(s) else 1
        return rank, course.is_proven(s.allocation.version), -s.allocation.index

    return sorted(allocations, key=worth)


def _surplus(course: Course, slots: _Slots, mode: Mode, bounds: _Bounds, outgoing: Sequence[Seen]) -> list[Seen]:
    """Return what else to stop because there are too many: after scaling down, or of a target that gives way."""
    fresh, old = _by_worth(course, slots.fresh), _by_worth(course, slots.old)
    surplus = fresh[: max(0, len(fresh) - bounds.replicas)] if mode is not Mode.CANARY else []
    if mode is not Mode.ROLLING:
        surplus += old[: max(0, len(old) - bounds.replicas)]
    dropped = frozenset(surplus)
    kept = [s for s in fresh if s not in dropped]
    idle = [s for s in kept if not serves(s)]
    going = {s.id for s in (*surplus, *outgoing)}
    excess = slots.total - len(going) - bounds.most if slots.old else 0
    if mode is Mode.FROZEN:  # what is to be kept up comes before what doesn't work
        excess = max(excess, _gap(course, slots, mode, bounds) - (bounds.most - slots.total))
    return surplus + idle[: max(0, excess)]


def _outgoing(course: Course, slots: _Slots, mode: Mode, bounds: _Bounds) -> list[Seen]:
    """Return which old and leaving ones may stop now, so that what is left serves, or can be hoped to."""
    candidates = [*slots.old, *slots.leaving] if mode is Mode.ROLLING else [*slots.leaving]
    leaving = frozenset(slots.leaving)
    given_up = [s for s in candidates if not serves(s) and (s in leaving or not course.is_proven(s.allocation.version))]
    gone = frozenset(given_up)
    rest = _by_worth(course, (s for s in candidates if s not in gone))
    coming = sum(not counts(course, s) for s in slots.fresh)
    spare = slots.total - len(given_up) - coming - bounds.floor
    idle = [s for s in rest if not serves(s)][: max(0, spare)]
    serving = sum(serves(s) for s in (*slots.old, *slots.leaving))
    serving += sum(counts(course, s) for s in slots.fresh)
    count = min(spare - len(idle), serving - bounds.floor)
    return given_up + idle + [s for s in rest if serves(s)][: max(0, count)]


def _gap(course: Course, slots: _Slots, mode: Mode, bounds: _Bounds) -> int:
    """Return how many more of the last healthy version it takes, so that enough serve whatever the target does."""
    if course.fallback is None:
        return bounds.replicas - len(slots.old) - len(slots.fresh) if mode is Mode.FROZEN else 0
    serving = sum(serves(s) for s in slots.fresh)
    match mode:
        case Mode.ROLLING:
            return bounds.floor - len(slots.old) - len(slots.leaving) - serving
        case Mode.CANARY:
            return bounds.replicas - len(slots.old)
        case Mode.FROZEN:
            missing = bounds.replicas - len(slots.old) - len(slots.fresh)
            return max(missing, bounds.floor - len(slots.old) - serving)


def _asks(course: Course, slots: _Slots, mode: Mode, bounds: _Bounds) -> tuple[tuple[Ask, ...], dict[int, Succession]]:
    room = max(0, bounds.most - slots.total)
    base = min(room, max(0, _gap(course, slots, mode, bounds)))
    fresh = min(room - base, max(0, _fresh_wanted(course, slots, mode, bounds)))
    vacated = {s.allocation.index: s for s in (*slots.lost, *slots.due)}
    taken = {s.allocation.index for s in (*slots.fresh, *slots.old, *slots.leaving)}
    free = sorted((i for i in range(bounds.most) if i not in taken), key=lambda i: (i not in vacated, i))
    asks: list[Ask] = []
    successions: dict[int, Succession] = {}
    for record, indexes in ((course.base, free[:base]), (course.target, free[base : base + fresh])):
        asks += _asks_of(record, indexes, vacated)
        successions.update({i: _succession(vacated[i], record) for i in indexes if i in vacated})
    return tuple(asks), successions


def _fresh_wanted(course: Course, slots: _Slots, mode: Mode, bounds: _Bounds) -> int:
    match mode:
        case Mode.ROLLING:
            missing = bounds.replicas - len(slots.fresh)
            coming = sum(not counts(course, s) for s in slots.fresh)
            return min(missing, bounds.granted - coming) if course.fallback else missing
        case Mode.CANARY:
            return course.canaries - len(slots.fresh)
        case Mode.FROZEN:
            return 0


def _asks_of(record: WorkloadRecord, indexes: Sequence[int], vacated: dict[int, Seen]) -> list[Ask]:
    """Return the asks for these slots: where one failed, each avoids that node."""
    failed = [i for i in indexes if i in vacated and vacated[i].phase is Phase.FAILED]
    apart = frozenset(failed)
    plain = [i for i in indexes if i not in apart]
    asks = [ask_of(record, [i], avoid=frozenset({vacated[i].allocation.node})) for i in failed]
    return [*asks, ask_of(record, plain)] if plain else asks


def _succession(s: Seen, record: WorkloadRecord) -> Succession:
    """Return whose slot it is; failures in a row are those of one version."""
    if s.allocation.version != record.version:
        return Succession(s.id)
    return Succession(s.id, s.allocation.reschedules + (s.phase is Phase.FAILED))


def _outgoing_reason(s: Seen, course: Course) -> str:
    if not _is_of_target(course, s):
        return f"version {course.target.version} replaces version {s.allocation.version}"
    return s.leave_reason


def _messages(course: Course, slots: _Slots, mode: Mode, note: str) -> tuple[str, ...]:
    messages = [note] if note else []
    old = sum(not _is_of_target(course, s) for s in (*slots.old, *slots.leaving))
    if old and mode is Mode.ROLLING:
        messages.append(f"{old} of an older version still to be replaced by version {course.target.version}")
    messages += [f"moves away: {reason}" for reason in sorted({s.leave_reason for s in slots.leaving})]
    failed = sum(s.phase is Phase.FAILED for s in (*slots.fresh, *slots.old))
    if failed:
        messages.append(f"{failed} failed and will be tried elsewhere after a backoff")
    return tuple(messages)
