"""What the API shows of a CronJob beside its record: when it was and will be due, and the jobs that it made."""

from collections.abc import Iterator
from typing import Any, TypeAlias

from control_plane import keys
from control_plane.state import ClusterState
from manifests.base import render_timestamp
from manifests.schedules import schedule_of
from manifests.workloads import CronJobSpec, WorkloadRecord

View: TypeAlias = dict[str, Any]
NEXT_SHOWN = 3


def cron(state: ClusterState, record: WorkloadRecord) -> View:
    spec = record.workload.spec
    assert isinstance(spec, CronJobSpec)
    kept = state.crons.get(keys.id_of_ref(record.ref))
    known = kept if kept and kept.uid == record.uid else None
    jobs = sorted(_jobs(state, record), key=lambda job: (job["createdAt"], job["name"]), reverse=True)
    last = known.last_slot_s if known else None
    return {
        "schedule": spec.schedule,
        "timeZone": spec.time_zone,
        "suspend": spec.suspend,
        "lastSlot": render_timestamp(last) if last is not None else None,
        "lastJob": known.last_job if known else "",
        "next": [] if spec.suspend else _next(state, spec, known.handled_s if known else record.created_s),
        "active": [job["name"] for job in jobs if job["state"] == "active"],
        "jobs": jobs,
    }


def _next(state: ClusterState, spec: CronJobSpec, handled_s: float) -> list[str]:
    schedule = schedule_of(spec.schedule, spec.time_zone)
    return [render_timestamp(slot) for slot in schedule.first(NEXT_SHOWN, max(handled_s, state.clock.wall_s()))]


def _jobs(state: ClusterState, record: WorkloadRecord) -> Iterator[View]:
    """Yield the jobs of this life of the CronJob."""
    for job in state.jobs_of(keys.id_of_ref(record.ref)):
        if job.owner and job.owner.uid == record.uid:
            said = state.workload_statuses.get(keys.id_of_ref(job.ref))
            has_ended = said is not None and said.ref.uid == job.uid and said.is_complete
            outcome = "active" if not has_ended or said is None else "failed" if said.is_failed else "complete"
            yield {"name": job.ref.name, "state": outcome, "createdAt": render_timestamp(job.created_s)}


def state_of_cron(shown: View) -> str:
    return "suspended" if shown["suspend"] else "running" if shown["active"] else "scheduled"
