"""What a change of the cache means, in sentences: what is worth keeping as an event, and what is only told live. Pure.

Kept are decisions of the leader, the lives of nodes and servers, what users changed, failures, and where rollouts
stand. Steps that the records themselves tell (each phase of each allocation, that one runs, that one is gone) are not.
What is kept is counted together where it is the same: what allocations of one workload go through is one event with a
count, so that neither ten thousand replicas nor a crash loop makes many.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from control_plane import keys
from control_plane.records import (
    BrakeRecord,
    DeletionRecord,
    FreezeRecord,
    LeaderRecord,
    ServerRecord,
    brake_sentence,
)
from control_plane.state import ObjectChange
from manifests.allocations import Allocation, AllocationStatus, Desired, Health, Phase
from manifests.configs import ConfigRecord
from manifests.moves import MoveRecord
from manifests.nodes import Liveness, NodeIntent, NodeStatus
from manifests.reasons import Blocked
from manifests.rollouts import Rollout
from manifests.settings import SettingsRecord
from manifests.status import WorkloadStatus
from manifests.workloads import CronState, ServiceSpec, WorkloadRecord


@dataclass(frozen=True, slots=True)
class Told:
    """One thing that happened. Two of one place, reason and `same` are the same, once more."""

    place: str  # default/service/web, -/node/n1: see keys
    reason: str  # one word
    message: str
    same: str = ""
    allocation: str = ""
    by: str = ""
    is_kept: bool = True  # else it is told live, and forgotten


def told_of(change: ObjectChange) -> Iterator[Told]:
    """Yield what a change means; most mean nothing worth telling."""
    match change.new or change.old:
        case WorkloadRecord() as record:
            yield from _workload_told(change, record)
        case ConfigRecord() as config:
            yield from _config_told(change, config)
        case WorkloadStatus() as status:
            yield from _workload_status_told(change, status)
        case CronState() as cron:
            yield from _cron_told(change, cron)
        case Allocation() as allocation:
            yield from _allocation_told(change, allocation)
        case AllocationStatus() as status:
            yield from _status_told(change, status)
        case NodeStatus() as node:
            yield from _node_told(change, node)
        case NodeIntent() as intent:
            yield from _intent_told(change, intent)
        case SettingsRecord() as settings:
            yield from _settings_told(change, settings)
        case MoveRecord() as move if change.new is not None and change.old is None:
            place, who = keys.id_of_ref(move.workload), move.allocation
            said = f"{who} on node {move.from_node} is to be moved: {move.sentence()}"
            yield Told(place, "moving", said, move.why, allocation=who, by=move.changed_by)
        case FreezeRecord() as freeze:
            yield from _freeze_told(change, freeze)
        case BrakeRecord() as brake:
            yield from _brake_told(change, brake)
        case ServerRecord() as server:
            yield from _server_told(change, server)
        case LeaderRecord() as leader if change.new is not None:
            name = leader.server.rpartition("-")[0]
            yield Told(keys.server_place(name), "leads", f"server {name} leads")


def told_of_deletion(deletion: DeletionRecord) -> Told:
    """Return what a user's deletion means: what was deleted can't tell it any more."""
    if deletion.message:
        return Told(
            *(deletion.place, deletion.reason, deletion.message, f"{deletion.allocation} {deletion.at_s}"),
            allocation=deletion.allocation,
            by=deletion.changed_by,
        )
    if deletion.place == keys.cluster_place("freeze"):
        return Told(deletion.place, "unfrozen", "the leader acts again", by=deletion.changed_by)
    if deletion.place == keys.cluster_place("moves"):
        return Told(deletion.place, "cancelled", "the moves that were left are taken back", by=deletion.changed_by)
    settings = ": the defaults hold again"
    effects = {
        "node": ": what ran there counts as gone",
        "config": "",
        "namespace": settings,
        "cluster": settings,
    }
    effect = effects.get(deletion.place.split("/")[1], ": its allocations are being stopped")
    return Told(deletion.place, "deleted", f"deleted{effect}", by=deletion.changed_by)


def _workload_told(change: ObjectChange, record: WorkloadRecord) -> Iterator[Told]:
    old, place = change.old, keys.id_of_ref(record.ref)
    if change.new is None or change.new == old:  # put again as it was, so that others notice
        return
    once, by = str(change.revision), record.changed_by
    if not isinstance(old, WorkloadRecord):
        made_for = f", for {record.owner}" if record.owner else ""
        yield Told(place, "created", f"created at version {record.version}{made_for}", once, by=by)
    else:
        yield Told(place, "changed", _change_sentence(old, record), once, by=by)


def _config_told(change: ObjectChange, config: ConfigRecord) -> Iterator[Told]:
    if change.new is None or change.new == change.old:
        return
    reason, version = ("changed", "to") if change.old else ("created", "at")
    said, place = f"{reason} {version} version {config.version}", keys.config_place(change.id)
    yield Told(place, reason, said, str(change.revision), by=config.changed_by)


def _change_sentence(old: WorkloadRecord, new: WorkloadRecord) -> str:
    said = []
    if old.version != new.version:
        said.append(f"changed to version {new.version}")
    before, after = old.workload.spec, new.workload.spec
    if isinstance(before, ServiceSpec) and isinstance(after, ServiceSpec) and before.replicas != after.replicas:
        said.append(f"scaled from {before.replicas} to {after.replicas}")
    if old.paused != new.paused:
        said.append("its rollout was paused" if new.paused else "its rollout was resumed")
    if old.promoted != new.promoted:
        said.append(f"version {new.promoted} was promoted")
    if old.cancelled != new.cancelled:
        said.append(f"cancelled: {new.cancelled}")
    return "; ".join(said) or "changed, at the same version"


def _workload_status_told(change: ObjectChange, status: WorkloadStatus) -> Iterator[Told]:
    place = keys.id_of_ref(status.ref)
    if change.new is None:
        return
    before = change.old if isinstance(change.old, WorkloadStatus) else None
    old_codes = {_outline(b) for b in before.blocked} if before else set()
    for blocked in status.blocked:
        if _outline(blocked) not in old_codes:
            yield Told(place, "blocked", blocked.sentence())
    if before and before.blocked and not status.blocked:
        yield Told(place, "unblocked", "everything has a place now")
    if status.is_complete and not (before and before.is_complete):
        outcome = "failed: " + "; ".join(status.messages) if status.is_failed else "complete"
        yield Told(place, "failed" if status.is_failed else "complete", outcome, status.ref.uid)
    if status.rollout and status.rollout != (before.rollout if before else None):
        yield from _rollout_told(place, before.rollout if before else None, status.rollout)


def _outline(blocked: Blocked) -> tuple[object, ...]:
    """Return what makes it worth telling again: not the amounts, which change all the time."""
    reasons = tuple((r.node, r.code) for r in blocked.rejections)
    return blocked.count, reasons, tuple(wait.node for wait in blocked.waits)


def _rollout_told(place: str, old: Rollout | None, new: Rollout) -> Iterator[Told]:
    if old and (old.version, old.target, old.state) == (new.version, new.target, new.state):
        return
    message = f"rollout to version {new.target}: {new.state}" + (f": {new.message}" if new.message else "")
    yield Told(place, f"rollout-{new.state}", message, f"{new.version}/{new.target}")


def _cron_told(change: ObjectChange, cron: CronState) -> Iterator[Told]:
    old_job = change.old.last_job if isinstance(change.old, CronState) else ""
    if change.new is not None and cron.last_job not in ("", old_job):
        yield Told(change.id, "started", f"its time had come: job {cron.last_job} was made")


def _allocation_told(change: ObjectChange, allocation: Allocation) -> Iterator[Told]:
    old, a = change.old, allocation
    place = keys.id_of_ref(a.workload)
    if change.new is None:
        yield Told(place, "removed", f"gone from node {a.node}", allocation=a.id, is_kept=False)
    elif old is None and a.replaces:
        yield Told(place, "replaced", f"{a.id} on node {a.node} replaces {a.replaces}", allocation=a.id)
    elif old is None:
        yield Told(place, "placed", f"{a.id} on node {a.node}: {a.why.sentence()}", allocation=a.id)
    elif isinstance(old, Allocation) and old.desired is not a.desired and a.desired is Desired.STOP:
        why = a.stop_reason.partition(":")[0]
        if a.evicted_for is None:
            yield Told(place, "stop", f"{a.id} on node {a.node} is to stop: {a.stop_reason}", why, allocation=a.id)
        else:
            yield Told(place, "evicted", f"{a.id} on node {a.node} {a.stop_reason}", why, allocation=a.id)
            said = f"{a.workload} makes room: {a.id} on node {a.node} is evicted"
            yield Told(keys.id_of_ref(a.evicted_for), "preempted", said, str(a.workload))
    elif isinstance(old, Allocation) and old.desired is not a.desired:
        became = "kept" if a.desired is Desired.RUN else "spare"
        yield Told(place, became, f"{a.id}: {a.note}", allocation=a.id)


def _status_told(change: ObjectChange, status: AllocationStatus) -> Iterator[Told]:
    place, id_ = keys.id_of_ref(status.workload), status.id
    old = change.old if isinstance(change.old, AllocationStatus) else None
    if change.new is None:
        return
    has_failed, ending = status.phase in (Phase.BACKOFF, Phase.FAILED), status.last_ending
    is_new_phase = old is None or (old.phase, old.attempt) != (status.phase, status.attempt)
    is_news = ending is not None and (old is None or old.last_ending != ending)
    if ending and is_news and (has_failed or status.attempt > ending.attempt):
        said = f"{id_}, attempt {ending.attempt}, ended on node {status.node}: {ending.message or ending.reason}"
        yield Told(place, ending.reason, said, ending.container, allocation=id_)
    if status.phase is Phase.FAILED and is_new_phase:
        said = f"{id_} failed on node {status.node}, and isn't restarted there any more"
        yield Told(place, "gaveUp", said, allocation=id_)
    elif is_new_phase and not (has_failed and is_news):
        yield Told(place, status.phase.value, _phase_sentence(status), allocation=id_, is_kept=False)
    if old and old.health is not status.health and status.health is not Health.UNKNOWN:
        is_kept = status.health is Health.UNHEALTHY
        said = f"{id_} on node {status.node} is {status.health}"
        yield Told(place, status.health.value, said, allocation=id_, is_kept=is_kept)


def _phase_sentence(status: AllocationStatus) -> str:
    attempt = f", attempt {status.attempt}" if status.attempt > 1 else ""
    return f"{status.phase} on node {status.node}{attempt}" + (f": {status.message}" if status.message else "")


def _node_told(change: ObjectChange, node: NodeStatus) -> Iterator[Told]:
    place, old = keys.node_place(node.facts.name), change.old
    if change.new is None:
        return
    if not isinstance(old, NodeStatus):
        yield Told(place, "registered", f"registered, at {node.facts.address or 'no address'}")
        return
    if old.facts.boot_id != node.facts.boot_id:
        yield Told(place, "rebooted", "its host was started anew: what ran there had ended with it")
    if old.liveness is not node.liveness:
        yield Told(place, _LIVENESS[node.liveness], _liveness_sentence(old, node))
    elif old.trouble != node.trouble:
        yield Told(place, "troubled" if node.trouble else "well", node.trouble or "can start containers again")


_LIVENESS = {Liveness.READY: "back", Liveness.SUSPECT: "suspect", Liveness.LOST: "lost"}


def _liveness_sentence(old: NodeStatus, new: NodeStatus) -> str:
    match new.liveness:
        case Liveness.LOST:
            return f"lost: {new.silence()}"
        case Liveness.SUSPECT:
            return f"suspect: {new.silence()}; it gets nothing new, and what runs there counts as running"
        case Liveness.READY:
            return "back" if old.liveness is Liveness.LOST else "heard again"


def _brake_told(change: ObjectChange, brake: BrakeRecord) -> Iterator[Told]:
    place, once = keys.cluster_place("brake"), str(change.revision)
    if change.new is None:
        yield Told(place, "released", "silent nodes are called lost again, and what ran there is replaced", once)
    elif change.old is None:
        yield Told(place, "braked", brake_sentence(brake), once)


def _intent_told(change: ObjectChange, intent: NodeIntent) -> Iterator[Told]:
    old = change.old if isinstance(change.old, NodeIntent) else NodeIntent(name=intent.name)
    if not isinstance(change.new, NodeIntent):
        return
    new, place, once = change.new, keys.node_place(intent.name), str(change.revision)
    if new.is_draining and not old.is_draining:
        said = "is being drained: what runs there moves elsewhere"
        yield Told(place, "draining", said, once, by=new.changed_by)
    elif new.is_cordoned != old.is_cordoned:
        said = "takes nothing new" if new.is_cordoned else "takes new work again"
        yield Told(place, "cordoned" if new.is_cordoned else "uncordoned", said, once, by=new.changed_by)
    if new.confirmed_lost and new.confirmed_lost != old.confirmed_lost:
        yield Told(place, "confirmedLost", "an operator says that it is lost", once, by=new.changed_by)
    fields = [name for name in ("labels", "taints", "metadata") if getattr(old, name) != getattr(new, name)]
    if fields:
        yield Told(place, "changed", f"its {' and '.join(fields)} changed", once, by=new.changed_by)


def _settings_told(change: ObjectChange, record: SettingsRecord) -> Iterator[Told]:
    if change.new is None or change.new == change.old:
        return
    fields = record.settings.spec.model_dump(mode="json")
    said = ", ".join(f"{name} is {json.dumps(value)}" for name, value in fields.items())
    yield Told(keys.settings_place(change.id), "changed", said, str(change.revision), by=record.changed_by)


def _freeze_told(change: ObjectChange, freeze: FreezeRecord) -> Iterator[Told]:
    """Yield when a freeze begins; its end is told by the note of who ended it."""
    if change.old is None:
        why = f": {freeze.reason}" if freeze.reason else ""
        said = f"frozen{why}; what is changed has its effect once it is unfrozen"
        yield Told(keys.cluster_place("freeze"), "frozen", said, str(change.revision), by=freeze.by)


def _server_told(change: ObjectChange, server: ServerRecord) -> Iterator[Told]:
    place = keys.server_place(server.name)
    if change.old is None:
        yield Told(place, "joined", f"serves at {server.url}, version {server.version}")
    elif change.new is None:
        yield Told(place, "left", "its lease is gone")
