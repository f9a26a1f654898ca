"""What the API shows of an explanation: JSON made of it, with its sentences."""

from control_plane import keys, views
from control_plane.settings import Rules, rules_of
from control_plane.state import ClusterState
from control_plane.views import View
from manifests.allocations import Allocation, Desired
from manifests.explanations import Explanation, NodeGroup, Remedy, Room
from manifests.reasons import Choice
from manifests.workloads import WorkloadRecord

MOST_SHOWN = 50  # allocations that are told of one by one


def of_workload(
    state: ClusterState, record: WorkloadRecord, explanation: Explanation, revision: int, node: str | None
) -> View:
    workload = keys.id_of_ref(record.ref)
    shown = views.workload(state, workload) or {}
    there = [a for a in state.allocations_of(workload) if a.desired is Desired.RUN and a.workload.uid == record.uid]
    there = [a for a in there if node in (None, a.node)]
    there.sort(key=lambda a: (a.index, a.id))
    return {
        "revision": revision,
        "namespace": record.ref.namespace,
        "kind": record.ref.kind,
        "name": record.ref.name,
        "allocation": None,
        "askedNode": node,
        "version": record.version,
        "state": shown.get("state"),
        "blocked": [{key: b[key] for key in ("version", "count", "sentence")} for b in shown.get("blocked", ())],
        "messages": shown.get("messages", []),
        "rules": _rules(rules_of(state, record)),
        "there": [_there(a) for a in there[:MOST_SHOWN]],
        "moreThere": len(there[MOST_SHOWN:]),
        **_answer(explanation),
    }


def of_allocation(state: ClusterState, a: Allocation, explanation: Explanation, node: str | None) -> View:
    record = state.workloads.get(keys.id_of_ref(a.workload))
    return {
        "revision": state.revision,
        "namespace": a.workload.namespace,
        "kind": a.workload.kind,
        "name": a.workload.name,
        "allocation": a.id,
        "askedNode": node,
        "version": a.version,
        "state": None,
        "blocked": [],
        "messages": [move.sentence()] if (move := state.moves.get(a.id)) else [],
        "rules": _rules(rules_of(state, record)) if record else None,
        "there": [_there(a)],
        "moreThere": 0,
        **_answer(explanation),
    }


def _rules(rules: Rules) -> View:
    return {
        "policy": rules.policy,
        "policyOf": rules.policy_of,
        "preempts": rules.preempts,
        "preemptsOf": rules.preempts_of,
    }


def _there(a: Allocation) -> View:
    return {"id": a.id, "node": a.node, "version": a.version, "why": _why(a.why), "sentence": a.why.sentence()}


def _why(why: Choice) -> View:
    return {
        "score": why.score,
        "parts": [[name, value] for name, value in why.parts],
        "runnersUp": [{"node": r.node, "score": r.score} for r in why.runners_up],
        "rejections": [views.rejection(r) for r in why.rejections],
        "moreRejections": why.more,
    }


def _answer(explanation: Explanation) -> View:
    goal = explanation.goal
    return {
        "fits": explanation.fits,
        "goesTo": goal and {"node": goal.node, "why": _why(goal.why), "sentence": goal.why.sentence()},
        "note": explanation.note,
        "groups": [_group(g) for g in explanation.groups],
        "moreNodes": explanation.more,
        "remedies": [_remedy(r) for r in explanation.remedies],
        "rooms": [_room(r) for r in explanation.rooms],
    }


def _group(group: NodeGroup) -> View:
    return {
        "count": group.count,
        "faults": [
            {"code": f.code, "needed": f.needed, "found": f.found, "sentence": f.reason()} for f in group.faults
        ],
        "nodes": [{"node": n.node, "faults": [views.rejection(f) for f in n.faults]} for n in group.nodes],
        "sentence": group.sentence(),
    }


def _room(room: Room) -> View:
    return {
        "node": room.node,
        "leaving": list(room.leaving),
        "evicted": [{"allocation": v.allocation, "workload": v.workload, "priority": v.priority} for v in room.evicted],
        "forbids": room.forbids,
        "sentence": room.sentence(),
    }


def _remedy(remedy: Remedy) -> View:
    return {
        "node": remedy.node or None,
        "ofTheWorkload": remedy.is_of_the_workload,
        "changes": [{"lift": c.lift, "subject": c.subject, "value": c.value} for c in remedy.changes],
        "sentence": remedy.sentence(),
    }
