"""Reconciles a CronJob: a Job at each slot of its schedule, each slot at most once. Pure.

The wall clock is read here and nowhere else. So it may jump: what has been handled is in the store (CronState), is
written in one transaction with the job that was made, and never falls. Of the slots that were missed, while nobody led
or while the CronJob was suspended, only the newest is started late, and only within startWindow.
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass

from control_plane.controllers.decision import Cancel, Decision, NewSlot
from control_plane.cron_jobs import job_id, slot_name
from manifests.base import render_timestamp
from manifests.schedules import Schedule, schedule_of
from manifests.status import WorkloadStatus
from manifests.workloads import CronJobSpec, CronState, WorkloadRecord

LOOK_AGAIN_S = 30.0  # at least so often, so that a jump of the clock is noticed
SOONEST_S = 0.05


@dataclass(frozen=True, slots=True)
class OwnedJob:
    """A job that was made for a CronJob of this name, and what the leader has said of it."""

    record: WorkloadRecord
    said: WorkloadStatus | None

    @property
    def has_ended(self) -> bool:
        return self.said is not None and self.said.ref.uid == self.record.uid and self.said.is_complete

    @property
    def has_failed(self) -> bool:
        return self.has_ended and self.said is not None and self.said.is_failed


@dataclass(frozen=True, slots=True)
class CronSight:
    """What there is to know of a CronJob beside its record."""

    state: CronState | None
    jobs: Sequence[OwnedJob]
    known: Container[str]  # the ids of all workloads
    wall_s: float
    is_state_unreadable: bool = False  # there is one, and nobody knows what it says


def reconcile_cron(record: WorkloadRecord, sight: CronSight) -> Decision:
    """Return the job that is due, and which old ones may go; nothing more until the next slot."""
    spec = record.workload.spec
    assert isinstance(spec, CronJobSpec)
    mine = [j for j in sight.jobs if j.record.owner and j.record.owner.uid == record.uid]
    schedule = schedule_of(spec.schedule, spec.time_zone)
    state = _state(record, spec, sight)
    due = _due(spec, schedule, state, sight.wall_s)
    running = sorted((j for j in mine if not j.has_ended), key=_age)
    decision = _decided(record, spec, sight, due, running, state)
    strays = [j for j in sight.jobs if j not in mine]
    return Decision(
        new_slot=decision.new_slot,
        cron=None if decision.cron == sight.state else decision.cron,
        cancels=decision.cancels,
        deletes=tuple(j.record for j in (*strays, *_too_many(spec, mine))),
        messages=decision.messages,
        again_after_s=_again_after_s(spec, schedule, decision.cron or state, due, sight.wall_s),
    )


def delete_jobs(jobs: Sequence[OwnedJob]) -> tuple[WorkloadRecord, ...]:
    """Return the jobs of a CronJob that was deleted: they go with it."""
    return tuple(j.record for j in jobs)


def _age(job: OwnedJob) -> tuple[float, str]:
    return job.record.created_s, job.record.ref.name


def _state(record: WorkloadRecord, spec: CronJobSpec, sight: CronSight) -> CronState:
    """Return how far it has come. What is new counts from its creation, a changed schedule from now.

    Where that can't be read it counts from now too: rather a slot too few than one twice.
    """
    old = sight.state if sight.state and sight.state.uid == record.uid else None
    if old is None:
        handled = max(record.created_s, sight.wall_s) if sight.is_state_unreadable else record.created_s
        return CronState(uid=record.uid, schedule=spec.schedule, time_zone=spec.time_zone, handled_s=handled)
    if (old.schedule, old.time_zone) == (spec.schedule, spec.time_zone):
        return old
    handled = max(old.handled_s, sight.wall_s)
    return old.model_copy(update={"schedule": spec.schedule, "time_zone": spec.time_zone, "handled_s": handled})


def _due(spec: CronJobSpec, schedule: Schedule, state: CronState, wall_s: float) -> float | None:
    """Return the newest slot that may still be started."""
    if spec.suspend:
        return None
    return schedule.newest_until(wall_s, after_s=max(state.handled_s, wall_s - spec.start_window_s))


def _decided(
    record: WorkloadRecord,
    spec: CronJobSpec,
    sight: CronSight,
    due: float | None,
    running: Sequence[OwnedJob],
    state: CronState,
) -> Decision:
    """Return the decision about the slot alone."""
    if due is None:
        return Decision(cron=state, messages=_quiet(spec, state, sight.wall_s))
    if running and spec.overlap == "forbid":
        until = render_timestamp(due + spec.start_window_s)
        names = ", ".join(j.record.ref.name for j in running[:3])
        waits = f"the start of {render_timestamp(due)} waits for {names}, and is skipped if that still runs at {until}"
        return Decision(cron=state, messages=(waits,))
    name = slot_name(record.ref.name, due)
    handled = state.model_copy(update={"handled_s": due, "last_slot_s": due, "last_job": name})
    if job_id(record, name) in sight.known:
        return Decision(cron=handled)  # somebody else's of that name: it stays, and the slot has passed
    cancels = [Cancel(j.record, f"replaced by {name}") for j in running if spec.overlap == "replace"]
    return Decision(cron=handled, new_slot=NewSlot(name, due), cancels=tuple(cancels))


def _quiet(spec: CronJobSpec, state: CronState, wall_s: float) -> tuple[str, ...]:
    """Say why nothing comes, where it isn't plain from the schedule."""
    if spec.suspend:
        return ("suspended: nothing is started until suspend is false again",)
    if state.handled_s > wall_s + 1:
        until = render_timestamp(state.handled_s)
        return (f"the clock was set back: slots up to {until} were handled already, and aren't again",)
    return ()


def _too_many(spec: CronJobSpec, mine: Sequence[OwnedJob]) -> list[OwnedJob]:
    """Return the ended jobs beyond those that are kept, the oldest."""
    ended = sorted((j for j in mine if j.has_ended), key=_age, reverse=True)
    failed, succeeded = [j for j in ended if j.has_failed], [j for j in ended if not j.has_failed]
    return [*succeeded[spec.keep_succeeded :], *failed[spec.keep_failed :]]


def _again_after_s(spec: CronJobSpec, schedule: Schedule, state: CronState, due: float | None, wall_s: float) -> float:
    if spec.suspend:
        return LOOK_AGAIN_S
    following = schedule.next_after(max(wall_s, state.handled_s))
    times = [following] if following is not None else []
    if due is not None and state.handled_s < due:
        times.append(due + spec.start_window_s)  # when it needn't be waited for any more
    return min([LOOK_AGAIN_S, *(max(SOONEST_S, at - wall_s) for at in times)])
