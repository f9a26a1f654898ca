"""Where a rollout stands and where it goes next, whatever the kind of its workload. Pure.

The user's record says which version is wanted. The leader works towards `target`: that version, or, once it has failed,
the last one that was healthy; it records this in the workload's status and never touches the user's record. What is
not known to work has no claim on the place of what is: until the target has been healthy once, `fallback` fills what
faults take from the old allocations.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from control_plane.controllers.decision import Seen
from manifests.allocations import Phase
from manifests.policies import DaemonUpdateSpec, UpdateSpec
from manifests.quantities import render_duration
from manifests.reasons import Blocked
from manifests.rollouts import Rollout, RolloutState
from manifests.workloads import DaemonSpec, ServiceSpec, VersionRecord, WorkloadRecord, with_template_of

MOST_MESSAGE_CHARACTERS = 600
_OPEN = frozenset({RolloutState.PROGRESSING, RolloutState.WAITING, RolloutState.PAUSED})


class Mode(Enum):
    """What a reconciler may do with versions now."""

    ROLLING = auto()  # towards all of the target; also when there is nothing else
    CANARY = auto()  # a few of the target beside all of the old
    FROZEN = auto()  # nothing: what is there is kept up


@dataclass(frozen=True, slots=True)
class Tally:
    """How far the target has come."""

    wanted: int  # allocations of it, in the end
    held: int  # that there are
    available: int  # of these
    old: int  # allocations of other versions that are still wanted
    trouble: str = ""  # what keeps those of the target from being available, for people


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a rollout is: it makes progress when `available` reaches a new height, or `old` a new low."""

    of: tuple[object, ...]  # which rollout, under which words of its user
    available: int
    old: int
    only_lacks_room: bool = False  # then time doesn't count


@dataclass(frozen=True, slots=True)
class Course:
    """The user's record, where its rollout stands, and the records by which allocations are made."""

    record: WorkloadRecord
    rollout: Rollout
    target: WorkloadRecord  # `record` at the version that the leader works towards
    fallback: WorkloadRecord | None  # at the last version that was healthy, while the target isn't known to be

    @property
    def update(self) -> UpdateSpec | DaemonUpdateSpec:
        spec = self.record.workload.spec
        assert isinstance(spec, ServiceSpec | DaemonSpec)
        return spec.update

    @property
    def canaries(self) -> int:
        return self.update.canary if isinstance(self.update, UpdateSpec) else 0

    @property
    def promotes_itself(self) -> bool:
        return isinstance(self.update, UpdateSpec) and self.update.auto_promote

    @property
    def base(self) -> WorkloadRecord:
        """Return the record that fills gaps when the target may not."""
        return self.fallback or self.target

    def record_of(self, version: int) -> WorkloadRecord | None:
        """Return the record for allocations of that version, if any more of it may be made."""
        return next((r for r in (self.target, self.fallback) if r is not None and r.version == version), None)

    def is_proven(self, version: int) -> bool:
        return version in self.rollout.healthy

    def mode(self, *, held: int, has_old: bool) -> Mode:
        """Return the mode, given how many of the target there are, and whether any of another version are."""
        match self.rollout.state:
            case RolloutState.PAUSED:
                return Mode.FROZEN
            case RolloutState.FAILED:
                return Mode.FROZEN if self.fallback else Mode.ROLLING
            case RolloutState.COMPLETE | RolloutState.REVERTED:
                return Mode.ROLLING
            case _:
                is_canary = has_canaries(self) and held <= self.canaries
                return Mode.CANARY if is_canary and (has_old or self.fallback) else Mode.ROLLING


def course_of(record: WorkloadRecord, said: Rollout | None, versions: Mapping[int, VersionRecord]) -> Course:
    """Return the course by what was recorded last; a version that is new begins a rollout."""
    healthy = tuple(sorted(v for v in said.healthy if v in versions or v == record.version)) if said else ()
    if said is None or said.version != record.version:
        state = RolloutState.PROGRESSING
        rollout = Rollout(version=record.version, target=record.version, state=state, healthy=healthy)
    else:
        rollout = said if said.healthy == healthy else said.model_copy(update={"healthy": healthy})
    target = _at_version(record, rollout.target, versions)
    if target is None:  # what it went back to can't be read any more: the user's own version is all there is
        rollout = rollout.model_copy(update={"target": record.version, "state": RolloutState.FAILED})
        target = record
    others = [] if rollout.target in rollout.healthy else reversed(rollout.healthy)
    known = (_at_version(record, v, versions) for v in others)
    return Course(record, rollout, target, next((r for r in known if r), None))


def _at_version(record: WorkloadRecord, version: int, versions: Mapping[int, VersionRecord]) -> WorkloadRecord | None:
    """Return the record as it is now, but with the containers of that version."""
    if version == record.version:
        return record
    kept = versions.get(version)
    if kept is None or kept.uid != record.uid:
        return None
    return record.model_copy(
        update={"version": version, "workload": with_template_of(record.workload, kept.workload.spec)}
    )


def has_canaries(course: Course) -> bool:
    """Say whether the rollout is at its canaries, and not past them."""
    rollout, record = course.rollout, course.record
    is_promoted = rollout.promoted or record.promoted == record.version
    return course.canaries > 0 and not is_promoted and not rollout.is_reverting and not rollout.is_over


def is_available(s: Seen, update: UpdateSpec | DaemonUpdateSpec) -> bool:
    """Say whether it serves and has done so for long enough, as far as this leader knows."""
    return s.phase is Phase.SUCCEEDED or (s.is_ready and s.ready_for_s >= update.min_healthy_s)


def serves(s: Seen) -> bool:
    """Say whether it serves now, since whenever. A new leader knows this at once, other than that it is available."""
    return s.is_ready or s.phase is Phase.SUCCEEDED


def counts(course: Course, s: Seen) -> bool:
    """Say whether one of the target makes another dispensable: it serves, and long enough if it is yet to be proven."""
    return serves(s) if course.is_proven(course.target.version) else is_available(s, course.update)


def waits(fresh: Iterable[Seen], course: Course, stalled_for_s: float) -> Iterator[float]:
    """Yield after how long time alone may change something: one becomes available, or the deadline passes."""
    update = course.update
    if not course.rollout.is_over:
        yield from (update.min_healthy_s - s.ready_for_s for s in fresh if s.is_ready and not is_available(s, update))
    if course.rollout.state is RolloutState.PROGRESSING:
        # Past it, it has just turned back or left its canaries behind: that is timed from the next look on.
        yield max(0.0, update.progress_deadline_s - stalled_for_s)


def trouble_of(fresh: Iterable[Seen], blocked: Iterable[Blocked]) -> str:
    """Return what keeps allocations of the target from being available: how the newest end was, or why none fits."""
    endings = [(e.finished_s, s.id, e) for s in fresh if s.status and not s.is_ready and (e := s.status.last_ending)]
    if endings:
        _, allocation, ending = max(endings, key=lambda known: known[:2])
        return f"{allocation}: {ending.message or ending.reason}"
    return next((b.sentence() for b in blocked), "")


def advanced(course: Course, tally: Tally, mode: Mode, stalled_for_s: float) -> Course:
    """Return the course after what has come about by now: done, promoted, paused, failed or turned back."""
    rollout, record = course.rollout, course.record
    if rollout.is_over:
        is_untried = rollout.target not in rollout.healthy  # it ended where there was nothing to run
        state = RolloutState.PROGRESSING
        return _with(course, rollout.model_copy(update={"state": state})) if is_untried and tally.wanted else course
    if tally.available >= tally.wanted and tally.held >= tally.wanted and not tally.old:
        return _with(course, _done(rollout, has_run=tally.wanted > 0))
    if rollout.state in _OPEN and record.paused != (rollout.state is RolloutState.PAUSED):
        state = RolloutState.PAUSED if record.paused else RolloutState.PROGRESSING
        message = "paused: nothing is renewed until it is resumed" if record.paused else ""
        return _with(course, rollout.model_copy(update={"state": state, "message": message}))
    match rollout.state:
        case RolloutState.WAITING | RolloutState.PROGRESSING if mode is Mode.CANARY:
            return _at_canaries(course, tally, stalled_for_s)
        case RolloutState.WAITING:
            return _with(course, rollout.model_copy(update={"state": RolloutState.PROGRESSING, "message": ""}))
        case RolloutState.PROGRESSING:
            past = _past_canaries(course)
            return _failed(past, tally) if stalled_for_s >= course.update.progress_deadline_s else past
        case RolloutState.FAILED:
            return _turned_back(course, tally, rollout.message) or course
        case _:
            return course


def _at_canaries(course: Course, tally: Tally, stalled_for_s: float) -> Course:
    rollout = course.rollout
    if tally.available >= course.canaries:
        if course.promotes_itself:
            state = RolloutState.PROGRESSING
            return _with(course, rollout.model_copy(update={"state": state, "message": "", "promoted": True}))
        who = "1 canary" if tally.available == 1 else f"{tally.available} canaries"
        verb = "waits" if tally.available == 1 else "wait"
        message = f"{who} of version {rollout.target} {verb} to be promoted"
        return _with(course, rollout.model_copy(update={"state": RolloutState.WAITING, "message": message}))
    if rollout.state is RolloutState.WAITING:
        return _with(course, rollout.model_copy(update={"state": RolloutState.PROGRESSING, "message": ""}))
    return _failed(course, tally) if stalled_for_s >= course.update.progress_deadline_s else course


def _past_canaries(course: Course) -> Course:
    """Note that the canaries are behind it, so that one that fails later doesn't bring that stage back."""
    if course.rollout.promoted or not course.canaries:
        return course
    return _with(course, course.rollout.model_copy(update={"promoted": True}))


def _done(rollout: Rollout, *, has_run: bool) -> Rollout:
    healthy = tuple(sorted({*rollout.healthy, rollout.target})) if has_run else rollout.healthy
    state = RolloutState.REVERTED if rollout.is_reverting else RolloutState.COMPLETE
    message = rollout.message if rollout.is_reverting else ""
    return rollout.model_copy(update={"state": state, "message": message, "healthy": healthy})


def _failed(course: Course, tally: Tally) -> Course:
    deadline, version = render_duration(course.update.progress_deadline_s), course.rollout.target
    why = f"version {version} made no progress for {deadline}: {tally.available} of {tally.wanted} available"
    message = (f"{why}; {tally.trouble}" if tally.trouble else why)[:MOST_MESSAGE_CHARACTERS]
    if course.rollout.is_reverting:
        message = f"{course.rollout.message}; then {message}"[: 2 * MOST_MESSAGE_CHARACTERS]
    failed = _with(course, course.rollout.model_copy(update={"state": RolloutState.FAILED, "message": message}))
    return _turned_back(failed, tally, message) or failed


def _turned_back(course: Course, tally: Tally, message: str) -> Course | None:
    """Return the course back to the last healthy version, if that is wanted and would help: at most once."""
    back = course.fallback
    is_whole = tally.available == tally.held and not tally.old  # only room is missing: the old would lack it as well
    if back is None or course.rollout.is_reverting or not course.update.auto_revert or is_whole:
        return None
    changes = {
        "target": back.version,
        "state": RolloutState.PROGRESSING,
        "message": f"{message}. Back to version {back.version}",
        "stop_first": False,
    }
    return Course(course.record, course.rollout.model_copy(update=changes), back, None)


def _with(course: Course, rollout: Rollout) -> Course:
    fallback = None if rollout.target in rollout.healthy else course.fallback
    return Course(course.record, rollout, course.target, fallback)
