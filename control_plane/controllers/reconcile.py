"""Decides about one workload, whatever its kind: all that a reconciler may look at in, a decision out. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from control_plane.controllers.adoption import adopt
from control_plane.controllers.crons import CronSight, delete_jobs, reconcile_cron
from control_plane.controllers.daemons import progress_of_daemon, reconcile_daemon
from control_plane.controllers.decision import Decision, Seen, Stop, retire, soonest
from control_plane.controllers.disconnected import reconcile_around
from control_plane.controllers.jobs import MOST_SAID, reconcile_job
from control_plane.controllers.rollouts import Course, Progress, course_of
from control_plane.controllers.room import only_lacks_room
from control_plane.controllers.services import progress_of_service, reconcile_service
from manifests.allocations import Allocation
from manifests.reasons import Blocked
from manifests.rollouts import RolloutState
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
    kept: Sequence[Allocation]  # of this workload, from before a restore, at versions that were restored with it
    was_blocked: bool  # in the last pass no node had room for some of it
    cron: CronSight | None = None  # of a CronJob
    waits_for: tuple[str, ...] = ()  # sentences about what it is to start after and what doesn't hold yet
    stalled_for_s: float = 0.0  # how long its rollout has made no progress, as `progress_of` measures it

    @property
    def course(self) -> Course:
        """Return where the rollout of a service or daemon stands, by what was recorded in this life of it."""
        assert self.record is not None
        said = self.said if self.said and self.said.ref.uid == self.record.uid else None
        return course_of(self.record, said.rollout if said else None, self.versions)

    @property
    def blocked(self) -> Sequence[Blocked]:
        return self.said.blocked if self.said and self.was_blocked else ()


def reconcile(sight: Sight) -> Decision:
    """Return what brings the workload nearer to its spec; nothing once it is there."""
    record = sight.record
    if record is None:
        decision = retire(sight.seen, "the workload was deleted")
        return replace(decision, deletes=delete_jobs(sight.cron.jobs)) if sight.cron else decision
    former = [s for s in sight.seen if s.allocation.workload.uid != record.uid]
    present = replace(sight, seen=[s for s in sight.seen if s.allocation.workload.uid == record.uid])
    instead = adopt(record, present.seen, sight.kept, sight.versions) or _waiting(present)
    decision = _by_deadlines(instead or _around(record, present), present.seen)
    decision = replace(decision, messages=(*decision.messages, *_evicted(present.seen)))
    if not former:
        return decision
    retired = retire(former, "the workload was deleted, and applied anew")
    return replace(decision, stops=(*retired.stops, *decision.stops), removals=(*retired.removals, *decision.removals))


def _waiting(sight: Sight) -> Decision | None:
    """Hold back a workload that has no allocation yet; one that has begun goes on, whatever becomes of the others."""
    if not sight.waits_for or sight.seen:
        return None
    return Decision(messages=sight.waits_for, is_waiting=True)


def _evicted(seen: Sequence[Seen]) -> Iterator[str]:
    """Yield what is evicted and hasn't ended yet: the first few."""
    evicted = sorted((s for s in seen if s.allocation.evicted_for and not s.has_ended), key=lambda s: s.id)
    yield from (f"{s.id} is evicted: it {s.allocation.stop_reason}" for s in evicted[:MOST_SAID])
    if len(evicted) > MOST_SAID:
        yield f"and {len(evicted) - MOST_SAID} more are evicted"


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


def progress_of(sight: Sight) -> Progress | None:
    """Return how far the workload's rollout is; None where none is under way that is to be timed."""
    if sight.record is None or not isinstance(sight.record.workload, Service | Daemon) or _waiting(sight):
        return None
    course = sight.course
    if course.rollout.state is not RolloutState.PROGRESSING or course.record.paused:
        return None
    mine = [s for s in sight.seen if s.allocation.workload.uid == sight.record.uid]
    if sight.waits_for and not mine:
        return None
    measure = progress_of_service if isinstance(sight.record.workload, Service) else progress_of_daemon
    progress = measure(course, mine)
    return replace(progress, only_lacks_room=only_lacks_room(course, mine, sight.blocked, sight.nodes))


def _around(record: WorkloadRecord, sight: Sight) -> Decision:
    """Services and jobs follow what onDisconnect says; a daemon's allocation waits on its node."""
    if isinstance(record.workload, Daemon | CronJob):
        return _by_kind(record, sight)
    return reconcile_around(
        record, sight.seen, sight.versions, lambda seen: _by_kind(record, replace(sight, seen=seen))
    )


def _by_kind(record: WorkloadRecord, sight: Sight) -> Decision:
    match record.workload:
        case Service():
            return reconcile_service(sight.course, sight.seen, blocked=sight.blocked, stalled_for_s=sight.stalled_for_s)
        case Daemon():
            return reconcile_daemon(
                sight.course,
                sight.seen,
                _daemon_nodes(record, sight),
                blocked=sight.blocked,
                stalled_for_s=sight.stalled_for_s,
            )
        case Job():
            said = sight.said if sight.said and sight.said.ref.uid == record.uid else None
            was_complete = said is not None and said.is_complete and not said.is_failed
            return reconcile_job(record, sight.seen, was_complete=was_complete)
        case CronJob():
            assert sight.cron is not None
            return reconcile_cron(record, sight.cron)
