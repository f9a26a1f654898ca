"""Decides about one workload, whatever its kind: all that a reconciler may look at in, a decision out. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from control_plane.controllers.crons import CronSight, delete_jobs, reconcile_cron
from control_plane.controllers.daemons import reconcile_daemon
from control_plane.controllers.decision import Decision, Seen, retire
from control_plane.controllers.jobs import reconcile_job
from control_plane.controllers.services import reconcile_service
from manifests.status import WorkloadStatus
from manifests.workloads import CronJob, Daemon, Job, Service, VersionRecord, WorkloadRecord
from scheduler.model import NodeView


@dataclass(frozen=True, slots=True)
class Sight:
    """What there is to know about one workload. `record` is None when it was deleted and something of it is left."""

    record: WorkloadRecord | None
    seen: Sequence[Seen]  # its allocations, also those of an earlier life of its name
    nodes: Sequence[NodeView]
    said: WorkloadStatus | None  # what the leader recorded last
    versions: Mapping[int, VersionRecord]
    was_blocked: bool  # in the last pass no node had room for some of it
    cron: CronSight | None = None  # of a CronJob
    waits_for: tuple[str, ...] = ()  # sentences about what it is to start after and what doesn't hold yet


def reconcile(sight: Sight) -> Decision:
    """Return what brings the workload nearer to its spec; nothing once it is there."""
    record = sight.record
    if record is None:
        decision = retire(sight.seen, "the workload was deleted")
        return replace(decision, deletes=delete_jobs(sight.cron.jobs)) if sight.cron else decision
    former = [s for s in sight.seen if s.allocation.workload.uid != record.uid]
    present = replace(sight, seen=[s for s in sight.seen if s.allocation.workload.uid == record.uid])
    decision = _waiting(present) or _by_kind(record, present)
    if not former:
        return decision
    retired = retire(former, "the workload was deleted, and applied anew")
    return replace(decision, stops=(*retired.stops, *decision.stops), removals=(*retired.removals, *decision.removals))


def _waiting(sight: Sight) -> Decision | None:
    """Hold back a workload that has no allocation yet; one that has begun goes on, whatever becomes of the others."""
    if not sight.waits_for or sight.seen:
        return None
    return Decision(messages=sight.waits_for, is_waiting=True)


def _by_kind(record: WorkloadRecord, sight: Sight) -> Decision:
    match record.workload:
        case Service():
            return reconcile_service(record, sight.seen, was_blocked=sight.was_blocked)
        case Daemon():
            return reconcile_daemon(record, sight.seen, sight.nodes)
        case Job():
            said = sight.said if sight.said and sight.said.ref.uid == record.uid else None
            was_complete = said is not None and said.is_complete and not said.is_failed
            return reconcile_job(record, sight.seen, was_complete=was_complete)
        case CronJob():
            assert sight.cron is not None
            return reconcile_cron(record, sight.cron)
