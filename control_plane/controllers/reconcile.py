"""Decides about one workload, whatever its kind: all that a reconciler may look at in, a decision out. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from control_plane.controllers.adoption import adopt
from control_plane.controllers.daemons import reconcile_daemon
from control_plane.controllers.decision import Decision, Seen, retire
from control_plane.controllers.jobs import reconcile_job
from control_plane.controllers.services import reconcile_service
from manifests.allocations import Allocation
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
    kept: Sequence[Allocation]  # of this workload, from before a restore, at versions that were restored with it
    was_blocked: bool  # in the last pass no node had room for some of it
    wall_s: float  # for schedules alone


def reconcile(sight: Sight) -> Decision:
    """Return what brings the workload nearer to its spec; nothing once it is there."""
    record = sight.record
    if record is None:
        return retire(sight.seen, "the workload was deleted")
    former = [s for s in sight.seen if s.allocation.workload.uid != record.uid]
    present = replace(sight, seen=[s for s in sight.seen if s.allocation.workload.uid == record.uid])
    decision = adopt(record, present.seen, sight.kept, sight.versions) or _by_kind(record, present)
    if not former:
        return decision
    retired = retire(former, "the workload was deleted, and applied anew")
    return replace(decision, stops=(*retired.stops, *decision.stops), removals=(*retired.removals, *decision.removals))


def _by_kind(record: WorkloadRecord, sight: Sight) -> Decision:
    match record.workload:
        case Service():
            return reconcile_service(record, sight.seen, was_blocked=sight.was_blocked)
        case Daemon():
            return reconcile_daemon(record, sight.seen, sight.nodes)
        case Job():
            return reconcile_job(record, sight.seen)
        case CronJob():
            return Decision(messages=("it isn't started by its schedule yet",))
