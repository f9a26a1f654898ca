"""What the API shows of nodes, workloads and allocations: JSON made of records, with counts, states and sentences."""

from collections import Counter
from typing import Any, TypeAlias

from control_plane import cron_views, keys, rollout_views
from control_plane.controllers.disconnected import replaced_after_s
from control_plane.controllers.snapshot import eligibility_of
from control_plane.records import EndedAllocation
from control_plane.state import ClusterState
from manifests.allocations import Allocation, AllocationStatus, Desired, Phase
from manifests.base import render_timestamp
from manifests.quantities import render_bytes, render_cpu
from manifests.reasons import Blocked, Rejection
from manifests.status import WorkloadStatus
from manifests.workloads import CronJob, DaemonSpec, JobSpec, Kind, ServiceSpec, WorkloadRecord
from scheduler.model import Eligibility, Vector

View: TypeAlias = dict[str, Any]


def frozen(state: ClusterState) -> View | None:
    """Return who froze the cluster, why and since when; None if nobody did."""
    record = state.freeze.get("")
    if record is not None:
        return {"by": record.by, "reason": record.reason, "since": render_timestamp(record.since_s)}
    unread = {"by": "", "reason": "the record of it can't be read", "since": ""}
    return unread if state.is_unreadable(keys.FREEZE) else None


def amounts(vector: Vector) -> View:
    """Return amounts as people write them; 0 is an amount here."""
    return {
        "cpu": render_cpu(vector.cpu_m),
        "memory": render_bytes(vector.memory_bytes),
        "pids": vector.pids,
        "disk": render_bytes(vector.disk_bytes),
        "devices": dict(vector.devices),
    }


def workload(state: ClusterState, workload_id: str) -> View | None:
    stored = state.workloads.stored(workload_id)
    if stored is None:
        return None
    record = stored.value
    said = _said(state, workload_id, record)
    counts = _counts(state, workload_id, record)
    schedule = {"cron": cron_views.cron(state, record)} if isinstance(record.workload, CronJob) else {}
    return {
        "namespace": record.ref.namespace,
        "kind": record.workload.kind,
        "name": record.ref.name,
        "uid": record.uid,
        "version": record.version,
        "generation": record.generation,
        "createdAt": render_timestamp(record.created_s),
        "revision": stored.modified_at,
        "manifest": record.workload.model_dump(mode="json", exclude_none=True),
        "state": _workload_state(state, record, said, counts),
        "owner": str(record.owner) if record.owner else None,
        "counts": counts,
        "blocked": [blocked(b) for b in said.blocked] if said else [],
        "messages": [
            *(said.messages if said else ()),
            *rollout_views.messages(rollout_views.rollout_of(record, said)),
            *_ailing(state, workload_id, record),
        ],
        "rollout": rollout_views.rollout(state, workload_id, record, said),
        "images": said.pinned.get(record.version, {}) if said else {},
        **schedule,
    }


def state_of(state: ClusterState, workload_id: str) -> str | None:
    """Return the one word for how a workload stands; None if there is none of that id."""
    record = state.workloads.get(workload_id)
    if record is None:
        return None
    return _workload_state(state, record, _said(state, workload_id, record), _counts(state, workload_id, record))


def _said(state: ClusterState, workload_id: str, record: WorkloadRecord) -> WorkloadStatus | None:
    """Return what the leader has said of this life of the workload."""
    said = state.workload_statuses.get(workload_id)
    return said if said and said.ref.uid == record.uid else None


def blocked(blocked: Blocked) -> View:
    rejections = [{"node": r.node, "code": r.code, "needed": r.needed, "found": r.found} for r in blocked.rejections]
    return {
        "version": blocked.version,
        "count": blocked.count,
        "rejections": rejections,
        "sentence": blocked.sentence(),
        "details": [r.sentence() for r in blocked.rejections],
        "waits": [{"node": w.node, "leaving": list(w.leaving), "count": w.count} for w in blocked.waits],
    }


def rejection(rejection: Rejection) -> View:
    """Return one reason of one node, with its sentence without the node."""
    return {
        "code": rejection.code,
        "needed": rejection.needed,
        "found": rejection.found,
        "node": rejection.node,
        "sentence": rejection.reason(),
    }


def _counts(state: ClusterState, workload_id: str, record: WorkloadRecord) -> View:
    counted: Counter[str] = Counter()
    wanted = 0
    for allocation in state.allocations_of(workload_id):
        if allocation.desired is not Desired.RUN or allocation.workload.uid != record.uid:
            continue
        wanted += 1
        status = state.statuses.get(allocation.id)
        phase = status.phase if status else Phase.PENDING
        reach = not _is_out_of_reach(state, allocation, status)
        counted["running"] += reach and phase is Phase.RUNNING
        counted["ready"] += bool(reach and status and status.is_ready)
        counted["updated"] += allocation.version == record.version
        counted["succeeded"] += phase is Phase.SUCCEEDED
        counted["failed"] += phase is Phase.FAILED
        counted["restarting"] += phase is Phase.BACKOFF
        counted["crashLooping"] += bool(reach and status and status.is_crash_looping)
    spec = record.workload.spec
    match spec:
        case ServiceSpec():
            desired = spec.replicas
        case JobSpec():
            desired = spec.completions
        case DaemonSpec():
            said = state.workload_statuses.get(workload_id)
            desired = wanted + sum(b.count for b in said.blocked) if said else wanted
    names = ("running", "ready", "updated", "succeeded", "failed", "restarting", "crashLooping")
    return {"desired": desired, **{name: counted[name] for name in names}}


def _ailing(state: ClusterState, workload_id: str, record: WorkloadRecord) -> list[str]:
    """Return how the newest end was, if something of the workload has failed or is about to start again."""
    statuses = [
        status
        for a in state.allocations_of(workload_id)
        if a.workload.uid == record.uid and a.desired is Desired.RUN and (status := state.statuses.get(a.id))
    ]
    ailing = (Phase.BACKOFF, Phase.FAILED)
    ends = [(s.last_ending, s) for s in statuses if s.last_ending and (s.phase in ailing or s.is_crash_looping)]
    if not ends:
        return []
    ending, status = max(ends, key=lambda end: (end[0].finished_s, end[1].id))
    who = f"{status.id}, container {ending.container}" if ending.container else status.id
    row = f" ({status.failures} failures in a row)" if status.is_crash_looping else ""
    return [f"{who}: {ending.message or ending.reason}{row}"]


def _workload_state(state: ClusterState, record: WorkloadRecord, said: WorkloadStatus | None, counts: View) -> str:
    if said is None or said.generation != record.generation:
        return "progressing"
    if said.is_failed:
        return "failed"
    if said.is_complete:
        return "complete"
    if isinstance(record.workload, CronJob):
        return cron_views.state_of_cron(cron_views.cron(state, record))
    if said.is_waiting:
        return "waiting"
    if said.blocked:
        return "blocked"
    rollout = rollout_views.rollout_of(record, said)
    if word := rollout_views.state_word(rollout):
        return word
    if counts["crashLooping"]:
        return "crashLoop"
    if counts["failed"] or counts["restarting"]:
        return "degraded"
    serving = counts["ready"] + counts["succeeded"]
    is_of_target = counts["updated"] >= counts["desired"] or (rollout is not None and rollout.is_reverting)
    is_whole = serving >= counts["desired"] and is_of_target and not said.messages
    if isinstance(record.workload.spec, JobSpec):
        return "progressing"
    return "healthy" if is_whole else "progressing"


def allocation(state: ClusterState, allocation_id: str) -> View | None:
    stored = state.allocations.stored(allocation_id)
    if stored is None:
        return None
    a, status = stored.value, state.statuses.get(allocation_id)
    known = state.nodes.get(a.node)
    return {
        "id": a.id,
        "namespace": a.workload.namespace,
        "kind": a.workload.kind,
        "name": a.workload.name,
        "version": a.version,
        "index": a.index,
        "node": a.node,
        "nodeState": eligibility_of(known, state.intents.get(a.node)) if known else "deleted",
        "desired": a.desired,
        "stopReason": a.stop_reason,
        "evictedFor": str(a.evicted_for) if a.evicted_for else None,
        "note": a.note or (move.sentence() if (move := state.moves.get(a.id)) else ""),
        "fence": stored.created_at,
        "replacedAt": _replaced_at(state, a, status),
        "createdAt": render_timestamp(a.created_s),
        "reserved": a.reserved.to_json(),
        "ports": [p.to_json() for p in a.ports],
        "why": _why(a),
        "whySentence": a.why.sentence(),
        "replaces": a.replaces,
        "reschedules": a.reschedules,
        "revision": stored.modified_at,
        **_observed(state, a, status),
    }


def _replaced_at(state: ClusterState, a: Allocation, status: AllocationStatus | None) -> str | None:
    """Return when an allocation of a lost node is replaced, as far as a bystander can tell; None if it won't be."""
    workload = keys.id_of_ref(a.workload)
    record, node = state.workloads.get(workload), state.nodes.get(a.node)
    is_waited_for = a.desired is Desired.RUN and node is not None and _is_out_of_reach(state, a, status)
    if record is None or record.uid != a.workload.uid or not is_waited_for or a.workload.kind is Kind.DAEMON:
        return None
    assert node is not None
    version = state.versions.get(keys.version_id(workload, a.version))
    spec = record.workload.spec
    return render_timestamp(node.changed_s + replaced_after_s(spec, version.workload.spec if version else spec))


def ended(state: ClusterState, allocation_id: str) -> View | None:
    """Return what is kept of an allocation that is gone, in the shape of one that is there."""
    kept = next((e for e in state.ended.values() if e.id == allocation_id), None)
    return ended_view(kept) if kept else None


def ended_view(e: EndedAllocation) -> View:
    shown = e.model_dump(mode="json", include={"last_ending", "started_s", "finished_s", "created_s"})
    return {
        "id": e.id,
        "namespace": e.workload.namespace,
        "kind": e.workload.kind,
        "name": e.workload.name,
        "version": e.version,
        "index": e.index,
        "node": e.node,
        "desired": Desired.STOP,
        "stopReason": e.stop_reason,
        "replaces": e.replaces,
        "phase": e.phase,
        "health": "unknown",
        "attempt": e.restarts + 1,
        "restarts": e.restarts,
        "message": e.stop_reason,
        "isGone": True,
        **shown,
    }


def _why(a: Allocation) -> View:
    shown = a.model_dump(mode="json", include={"why"})["why"]
    shown["details"] = [r.sentence() for r in a.why.rejections]
    return dict(shown)


def _observed(state: ClusterState, a: Allocation, status: AllocationStatus | None) -> View:
    if status is None:
        status = AllocationStatus(
            id=a.id, node=a.node, workload=a.workload, version=a.version, index=a.index, phase=Phase.PENDING
        )
    shown = status.model_dump(
        mode="json",
        include={
            "phase",
            "health",
            "attempt",
            "failures",
            "message",
            "last_ending",
            "started_s",
            "next_attempt_s",
            "container_id",
            "address",
            "containers",
            "images",
        },
    )
    shown["restarts"] = status.attempt - 1
    shown["crashLooping"] = status.is_crash_looping
    if _is_out_of_reach(state, a, status):
        shown["message"] = f"node {a.node} is lost: it was last seen {status.phase}"
        shown["phase"] = shown["health"] = "unknown"
    return shown


def _is_out_of_reach(state: ClusterState, a: Allocation, status: AllocationStatus | None) -> bool:
    known = state.nodes.get(a.node)
    is_there = known is not None and eligibility_of(known, None) is not Eligibility.LOST
    return not is_there and not (status is not None and status.is_terminal)
