"""Decides about one workload, whatever its kind: all that a reconciler may look at in, a decision out. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from control_plane.controllers.daemons import reconcile_daemon
from control_plane.controllers.decision import Decision, Seen, Stop, retire, soonest
from control_plane.controllers.jobs import reconcile_job
from control_plane.controllers.services import reconcile_service
from manifests.status import WorkloadStatus
from manifests.taints import parse_toleration, untolerated
from manifests.workloads import CronJob, Daemon, Job, Service, VersionRecord, WorkloadRecord
from scheduler.model import Eligibility, NodeView


@dataclass(frozen=True, slots=True)
class Sight:
    """What there is to know about one workload. `record` is None when it was deleted and something of it is left."""

    record: WorkloadRecord | None
    seen: Sequence[Seen]  # its allocations, also those of an earlier life of its name
    nodes: Sequence[NodeView]
    said: WorkloadStatus | None  # what the leader recorded last
    versions: Mapping[int, VersionRecord]
    was_blocked: bool  # in the last pass no node had room for some of it
    wall_s: float  # for schedules alone


def reconcile(sight: Sight) -> Decision:
    """Return what brings the workload nearer to its spec; nothing once it is there."""
    record = sight.record
    if record is None:
        return retire(sight.seen, "the workload was deleted")
    former = [s for s in sight.seen if s.allocation.workload.uid != record.uid]
    present = replace(sight, seen=[s for s in sight.seen if s.allocation.workload.uid == record.uid])
    decision = _by_deadlines(_by_kind(record, present), present.seen)
    if not former:
        return decision
    retired = retire(former, "the workload was deleted, and applied anew")
    return replace(decision, stops=(*retired.stops, *decision.stops), removals=(*retired.removals, *decision.removals))


def _by_deadlines(decision: Decision, seen: Sequence[Seen]) -> Decision:
    """Return the decision that also stops what should have left its node by now, whatever the workload's rules say."""
    stopping = {stop.allocation.id for stop in decision.stops}
    leaving = [(s, s.leaving) for s in seen if s.leaving and s.is_wanted and not s.has_ended and s.id not in stopping]
    late = tuple(Stop(s.allocation, why.reason) for s, why in leaving if why.is_overdue)
    waits = [why.left_s for _, why in leaving if why.left_s is not None and not why.is_overdue]
    if not late and not waits:
        return decision
    again = soonest(w for w in (*waits, decision.again_after_s) if w is not None)
    return replace(decision, stops=(*decision.stops, *late), again_after_s=again)


def _daemon_nodes(record: WorkloadRecord, sight: Sight) -> list[NodeView]:
    """Return the nodes that count for a daemon: where it runs, and those that are open to it.

    One that operators keep it off is no place where it is missing.
    """
    tolerations = [parse_toleration(t) for t in record.workload.spec.placement.tolerations]
    there = {s.allocation.node for s in sight.seen if s.is_wanted}
    kept_off = (Eligibility.CORDONED, Eligibility.DRAINING)
    return [
        n
        for n in sight.nodes
        if n.name in there or (n.eligibility not in kept_off and not any(untolerated(n.taints, tolerations)))
    ]


def _by_kind(record: WorkloadRecord, sight: Sight) -> Decision:
    match record.workload:
        case Service():
            return reconcile_service(record, sight.seen, was_blocked=sight.was_blocked)
        case Daemon():
            return reconcile_daemon(record, sight.seen, _daemon_nodes(record, sight))
        case Job():
            return reconcile_job(record, sight.seen)
        case CronJob():
            return Decision(messages=("it isn't started by its schedule yet",))
