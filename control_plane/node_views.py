"""What the API shows of nodes: how they stand, and what is wanted of them."""

from control_plane import views
from control_plane.controllers.snapshot import eligibility_of, holds_resources, labels_of
from control_plane.records import BrakeRecord, brake_sentence
from control_plane.state import ClusterState
from control_plane.views import View
from manifests.base import render_timestamp
from manifests.nodes import Liveness, NodeIntent, NodeStatus
from manifests.quantities import render_duration
from scheduler.model import NOTHING, Eligibility, vector_of


def node(state: ClusterState, name: str) -> View | None:
    status = state.nodes.get(name)
    if status is None:
        return None
    intent = state.intents.get(name)
    holding = [a for a in state.allocations_on(name) if holds_resources(state, a)]
    reserved = sum((vector_of(a.reserved) for a in holding), NOTHING)
    facts, brake = status.facts, _brake_on(state, status)
    return {
        "name": name,
        "state": _node_state(status, eligibility_of(status, intent), is_empty=not holding),
        "liveness": status.liveness,
        "cordoned": bool(intent and (intent.is_cordoned or intent.is_draining)),
        "draining": bool(intent and intent.is_draining),
        "drainDeadline": _deadline(intent),
        "labels": dict(labels_of(status, intent)),
        "ownLabels": facts.labels,
        "taints": list(intent.taints) if intent else [],
        "metadata": intent.metadata if intent else {},
        "attributes": facts.attributes,
        "address": facts.address,
        "capacity": facts.capacity.to_json(),
        "allocatable": facts.allocatable.to_json(),
        "reserved": views.amounts(reserved),
        "allocations": len(holding),
        "agentVersion": facts.agent_version,
        "server": status.server,
        "message": _node_message(status, brake) or _kept_sentence(state, status),
        "kept": [a.id for a in status.kept if a.id not in state.allocations],
        "brake": _brake(brake) if brake else None,
        "changedAt": render_timestamp(status.changed_s),
    }


def _brake_on(state: ClusterState, status: NodeStatus) -> BrakeRecord | None:
    """Return the brake, if it keeps this node from being called lost."""
    brake = state.brake.get("")
    return brake if brake and status.liveness is Liveness.SUSPECT else None


def _node_message(status: NodeStatus, brake: BrakeRecord | None) -> str:
    if status.liveness is Liveness.READY:
        return status.trouble
    held = f"; too many are, so it isn't called lost until {render_timestamp(brake.until_s)}" if brake else ""
    return f"{status.silence()}{held}"


def brake(state: ClusterState) -> View | None:
    """Return the brake on mass loss if it is on, with the nodes that it holds."""
    record = state.brake.get("")
    if record is None:
        return None
    held = [n.facts.name for n in state.nodes.values() if n.liveness is Liveness.SUSPECT]
    return {
        **_brake(record),
        "nodes": list(record.nodes),
        "there": record.there,
        "held": sorted(held),
        "sentence": brake_sentence(record),
    }


def _brake(record: BrakeRecord) -> View:
    return {"since": render_timestamp(record.since_s), "until": render_timestamp(record.until_s)}


def _kept_sentence(state: ClusterState, status: NodeStatus) -> str:
    kept = [a.id for a in status.kept if a.id not in state.allocations]
    named = ", ".join(kept[:3]) + (f" and {len(kept) - 3} more" if len(kept) > 3 else "")
    return f"keeps {named} from before a restore, until `wherry node release {status.facts.name}`" if kept else ""


def _node_state(status: NodeStatus, eligibility: Eligibility, *, is_empty: bool) -> str:
    if status.liveness is Liveness.SUSPECT:
        return "suspect"
    if eligibility is Eligibility.DRAINING and is_empty:
        return "drained"
    return eligibility.value


def _deadline(intent: NodeIntent | None) -> str | None:
    if intent is None or not intent.is_draining or intent.drain_deadline_s is None:
        return None
    return render_duration(intent.drain_deadline_s)
