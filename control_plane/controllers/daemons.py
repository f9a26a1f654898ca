"""Reconciles a Daemon: one allocation on each node that its constraints name and that takes work. Pure.

A daemon belongs to its node: when the node is lost it waits there, and is replaced nowhere else. A new version goes
from node to node, the old one stopped first, and on to the next only once all that should serve do.
"""

from collections.abc import Sequence

from control_plane.controllers.decision import (
    Decision,
    Seen,
    Stop,
    Succession,
    ask_of,
    failed_reason,
    removals_of,
    reschedule_delay_s,
    soonest,
)
from manifests.allocations import Phase
from manifests.constraints import parse_constraint
from manifests.workloads import WorkloadRecord
from scheduler.eligible import matches
from scheduler.model import Ask, Eligibility, NodeView


def reconcile_daemon(record: WorkloadRecord, seen: Sequence[Seen], nodes: Sequence[NodeView]) -> Decision:
    """Return what brings the daemon nearer to one allocation a node; nothing once it is there."""
    constraints = [parse_constraint(c) for c in record.workload.spec.placement.constraints]
    matching = {n.name: n for n in nodes if matches(n, constraints)}
    wanted = [s for s in seen if s.is_wanted]
    stops = [Stop(s.allocation, reason) for s in wanted if (reason := _unwanted_reason(s, matching))]
    stopping = {stop.allocation.id for stop in stops}
    staying = [s for s in wanted if s.id not in stopping]
    due, waits = _failed(record, staying)
    stops += [Stop(s.allocation, failed_reason(s)) for s in due]
    leaving = any(not s.is_wanted and s.node not in (None, Eligibility.LOST) for s in seen)
    outgoing = _next_to_update(record, [s for s in staying if s not in due], is_one_leaving=leaving)
    stops += [Stop(s.allocation, f"version {record.version} replaces version {s.allocation.version}") for s in outgoing]
    asks, successions = _asks(record, seen, staying, due, matching)
    outdated = sum(s.allocation.version != record.version for s in staying)
    return Decision(
        stops=tuple(stops),
        asks=asks,
        successions=successions,
        removals=removals_of(seen),
        messages=(f"{outdated} of an older version still to be replaced",) if outdated else (),
        again_after_s=soonest(waits),
    )


def _unwanted_reason(s: Seen, matching: dict[str, NodeView]) -> str:
    node = s.allocation.node
    if s.node is None:
        return f"node {node} was deleted"
    if s.node is Eligibility.DRAINING:
        return f"node {node} is being drained"
    return "" if node in matching else f"node {node} no longer meets the constraints"


def _failed(record: WorkloadRecord, staying: Sequence[Seen]) -> tuple[list[Seen], list[float]]:
    ended = [s for s in staying if s.phase is Phase.FAILED and s.node is not Eligibility.LOST]
    left = {s.id: reschedule_delay_s(s, record) - s.ended_for_s for s in ended}
    return [s for s in ended if left[s.id] <= 0], [wait for wait in left.values() if wait > 0]


def _next_to_update(record: WorkloadRecord, staying: Sequence[Seen], *, is_one_leaving: bool) -> list[Seen]:
    """Return all outdated ones that don't serve, else one that does, if all the others do and none is on its way out.

    The last pass in which a node's former one is seen asks for its new one, and that then must serve as well.
    """
    here = [s for s in staying if s.node is not Eligibility.LOST]
    outdated = [s for s in here if s.allocation.version != record.version]
    idle = [s for s in outdated if not s.is_ready]
    if idle or is_one_leaving or not all(s.is_ready or s.has_ended for s in here):
        return idle
    return outdated[:1]


def _asks(
    record: WorkloadRecord,
    seen: Sequence[Seen],
    staying: Sequence[Seen],
    due: Sequence[Seen],
    matching: dict[str, NodeView],
) -> tuple[tuple[Ask, ...], dict[int, Succession]]:
    """Ask for each node that has none: also none that still stops, since the two might share a port or a name."""
    failed = {s.allocation.node: s for s in due}
    occupied = {
        s.allocation.node for s in seen if not (s.has_ended or s.node is None) or (s in staying and s not in due)
    }
    vacant = [n.name for n in matching.values() if n.name not in occupied and n.eligibility is not Eligibility.LOST]
    taken = {s.allocation.index for s in staying if s not in due}
    free = (i for i in range(len(taken) + len(vacant)) if i not in taken)
    asks, successions = [], {}
    for node in vacant:
        index = next(free)
        if node in failed:
            successions[index] = Succession(failed[node].id, failed[node].allocation.reschedules + 1)
        asks.append(ask_of(record, [index], only_node=node))
    return tuple(asks), successions
