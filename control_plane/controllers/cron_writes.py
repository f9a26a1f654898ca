"""Turns what was decided about a CronJob into writes: a slot's job, and how far the schedule has come, go together."""

from collections.abc import Mapping
from dataclasses import dataclass

from control_plane import keys
from control_plane.controllers.crons import CronSight, OwnedJob
from control_plane.controllers.decision import Decision
from control_plane.controllers.writes import Unit
from control_plane.cron_jobs import job_id, new_job, slot_uid
from control_plane.state import ClusterState
from control_plane.store.protocol import ABSENT, Compare, Delete, ModifiedAt, Put
from manifests.workloads import Kind, WorkloadRecord


@dataclass(frozen=True, slots=True)
class _Known:
    """All ids of workloads, also of those whose records can't be read."""

    state: ClusterState

    def __contains__(self, workload: object) -> bool:
        return workload in self.state.workloads or self.state.is_unreadable(f"{keys.WORKLOADS}{workload}")


def cron_sight_of(state: ClusterState, workload: str, wall_s: float) -> CronSight | None:
    """Return what there is to know of a CronJob; None of any other kind."""
    if keys.KINDS.get(workload.split("/")[1]) is not Kind.CRON_JOB:
        return None
    jobs = [OwnedJob(job, state.workload_statuses.get(keys.id_of_ref(job.ref))) for job in state.jobs_of(workload)]
    is_unreadable = state.is_unreadable(keys.CRON_STATES + workload)
    return CronSight(state.crons.get(workload), jobs, _Known(state), wall_s, is_state_unreadable=is_unreadable)


def cron_units(state: ClusterState, decisions: Mapping[str, Decision], wall_s: float) -> list[Unit]:
    """Return the writes to workloads themselves: jobs that are cancelled, made and deleted."""
    units = []
    for workload, decision in decisions.items():
        units += [_cancel_unit(state, c.job, c.reason) for c in decision.cancels]
        if decision.cron is not None:
            units.append(_slot_unit(state, workload, decision, wall_s))
        units += [_delete_unit(state, job) for job in decision.deletes]
    return units


def _cancel_unit(state: ClusterState, job: WorkloadRecord, reason: str) -> Unit:
    key = keys.WORKLOADS + keys.id_of_ref(job.ref)
    cancelled = job.model_copy(update={"cancelled": reason, "generation": job.generation + 1})
    return Unit((Put(key, cancelled.to_bytes()),), (_unchanged(state, job),))


def _delete_unit(state: ClusterState, job: WorkloadRecord) -> Unit:
    return Unit((Delete(keys.WORKLOADS + keys.id_of_ref(job.ref)),), (_unchanged(state, job),))


def _unchanged(state: ClusterState, job: WorkloadRecord) -> Compare:
    workload = keys.id_of_ref(job.ref)
    return ModifiedAt(keys.WORKLOADS + workload, state.workloads.modified_at(workload))


def _slot_unit(state: ClusterState, workload: str, decision: Decision, wall_s: float) -> Unit:
    """Return the state, and the job of the slot if one is due: both or none, on what both were decided on."""
    cron = state.workloads.get(workload)
    assert cron is not None
    assert decision.cron is not None
    writes: list[Put | Delete] = [Put(keys.CRON_STATES + workload, decision.cron.to_bytes())]
    compares: list[Compare] = [ModifiedAt(keys.WORKLOADS + workload, state.workloads.modified_at(workload))]
    if not state.is_unreadable(keys.CRON_STATES + workload):  # else it is mended by this
        compares.append(ModifiedAt(keys.CRON_STATES + workload, state.crons.modified_at(workload)))
    if slot := decision.new_slot:
        number = 1 + max(state.versions_of(job_id(cron, slot.name)), default=0)
        job = new_job(cron, slot.name, slot_uid(cron, slot.slot_s), number=number, created_s=wall_s)
        compares.append(ModifiedAt(keys.WORKLOADS + job.id, ABSENT))
        writes.append(Put(keys.WORKLOADS + job.id, job.record.to_bytes()))
        writes.append(Put(keys.VERSIONS + keys.version_id(job.id, number), job.version.to_bytes()))
    return Unit(tuple(writes), tuple(compares))
