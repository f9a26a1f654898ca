"""What the API shows of a rehearsal: JSON made of its outcome, with reasons in sentences."""

from collections import defaultdict
from typing import Any, TypeAlias

from control_plane import keys, views
from control_plane.desired.versions import shown
from control_plane.rehearsal.answer import Answer
from control_plane.rehearsal.outcome import Short
from control_plane.rehearsal.rehearsal import Rehearsal, Step
from manifests.allocations import Allocation
from manifests.workloads import WorkloadRef
from scheduler.ledger import Ledger
from scheduler.model import Vector

View: TypeAlias = dict[str, Any]

MOST_STEPS = 200  # of one workload; the rest are counted


def answer(of: Answer) -> View:
    outcome, rehearsal = of.outcome, of.rehearsal
    return {
        "revision": of.revision,
        "results": [shown(r) for r in of.results],
        "at": of.at,
        "placements": [p.to_json() for p in of.placements()],
        "moves": [
            {**_of(m.old.workload), "from": _what(m.old), "to": _what(m.new), "why": m.why} for m in outcome.moves
        ],
        "starts": [{**_of(a.workload), "to": _what(a)} for a in outcome.starts],
        "stops": [{**_of(a.workload), "from": _what(a), "why": why} for a, why in outcome.stops],
        "left": [{**_of(x.allocation.workload), "at": _what(x.allocation), "why": x.why} for x in outcome.left],
        "blocked": [_short(s) for s in outcome.short],
        "waiting": [{**_of(ref), "messages": list(messages)} for ref, messages in outcome.waiting],
        "steps": _steps(rehearsal.steps),
        "room": _room(rehearsal),
        "fits": outcome.fits,
        "isWhole": rehearsal.is_whole,
        "passes": rehearsal.passes,
    }


def drain(of: Answer, node: str) -> View:
    """Return what a drain of the node alone would do to what is on it."""
    outcome = of.outcome
    blocked = {keys.id_of_ref(s.workload): views.blocked(s.blocked[0]) for s in outcome.short}
    return {
        "revision": of.revision,
        "moves": [
            {**_gone(m.old), "to": m.new.node, "why": m.new.why.sentence()} for m in outcome.moves if m.old.node == node
        ],
        "stays": [
            {**_gone(x.allocation), "blocked": blocked.get(keys.id_of_ref(x.allocation.workload)), "why": x.why}
            for x in outcome.left
            if x.allocation.node == node
        ],
        "stops": [{**_gone(a), "why": why} for a, why in outcome.stops if a.node == node],
    }


def _gone(a: Allocation) -> View:
    return {"allocation": a.id, **_of(a.workload)}


def _of(ref: WorkloadRef) -> View:
    return {"namespace": ref.namespace, "kind": ref.kind, "name": ref.name}


def _what(a: Allocation) -> View:
    """Return one allocation. The id of one that isn't there yet will be another."""
    return {
        "allocation": a.id,
        "index": a.index,
        "version": a.version,
        "node": a.node,
        "why": a.why.sentence(),
    }


def _short(short: Short) -> View:
    return {
        **_of(short.workload),
        "before": short.before,
        "after": short.after,
        "wasBlocked": short.was_blocked,
        "noLongerFits": short.no_longer_fits,
        "blocked": [views.blocked(b) for b in short.blocked],
    }


def _steps(steps: list[Step]) -> list[View]:
    by_workload: defaultdict[str, list[Step]] = defaultdict(list)
    for step in steps:
        by_workload[step.workload].append(step)
    told = []
    for workload in sorted(by_workload):
        namespace, kind, name = workload.split("/")
        some = by_workload[workload][:MOST_STEPS]
        told.append(
            {
                "namespace": namespace,
                "kind": keys.KINDS[kind],
                "name": name,
                "count": len(by_workload[workload]),
                "steps": [{"afterSeconds": round(s.after_s, 1), "up": s.up, "down": s.down} for s in some],
            }
        )
    return told


def _room(rehearsal: Rehearsal) -> View:
    """Return what is left on the nodes that take allocations, and what they have in all."""
    ledger = rehearsal.fork.standing.ledger()
    rows = ledger.nodes.is_open
    return {
        "nodes": int(rows.sum()),
        "free": _amounts(ledger, ledger.free[:, rows].clip(min=0).sum(axis=1).tolist()),
        "of": _amounts(ledger, ledger.nodes.allocatable[:, rows].sum(axis=1).tolist()),
    }


def _amounts(ledger: Ledger, amounts: list[float]) -> View:
    cpu_m, memory_bytes, pids, disk_bytes, *devices = (int(a) for a in amounts)
    counts = tuple(sorted(zip(ledger.nodes.device_kinds, devices, strict=True)))
    shown = views.amounts(Vector(cpu_m, memory_bytes, pids, disk_bytes, counts))
    del shown["disk"]  # a node whose agent says nothing of its disk has as much as anybody asks for
    return shown
