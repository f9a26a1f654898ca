"""What draining a node would do now: where its allocations would go, and which would stay for want of a place. Pure.

It asks the same `place` as the leader does, on the snapshot of this moment. The leader goes step by step, as each
workload's rules want, so what it does may differ where the cluster changes meanwhile.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from control_plane import keys
from control_plane.controllers.asks import ask_of, resolved
from control_plane.controllers.snapshot import holds_resources
from control_plane.controllers.standing import Standing
from control_plane.state import ClusterState
from manifests.allocations import Allocation, Desired
from manifests.workloads import Kind
from scheduler.ledger import Ledger
from scheduler.model import BlockedAsk, Eligibility, Placement
from scheduler.place import place


@dataclass(frozen=True, slots=True)
class DrainPlan:
    revision: int
    moves: tuple[tuple[Allocation, Placement], ...]  # which one, and where another takes its place
    stays: tuple[tuple[Allocation, BlockedAsk], ...]  # no other node can take it
    stops: tuple[Allocation, ...]  # daemons, which belong to their node, and what is to stop anyhow


def plan_drain(state: ClusterState, standing: Standing, node: str) -> DrainPlan:
    """Return what draining the node would do, as far as can be told at this revision."""
    held = [a for a in state.allocations_on(node) if holds_resources(state, a)]
    leaving: defaultdict[str, dict[int, Allocation]] = defaultdict(dict)
    stops = []
    for a in held:
        workload = keys.id_of_ref(a.workload)
        record = state.workloads.get(workload)
        is_moved = a.desired is Desired.RUN and a.workload.kind is not Kind.DAEMON
        if record is not None and record.uid == a.workload.uid and is_moved:
            leaving[workload][a.index] = a
        else:
            stops.append(a)
    asks = [ask_of(record, sorted(leaving[w])) for w in sorted(leaving) if (record := state.workloads.get(w))]
    asks = resolved(asks, state.workloads)
    ledger = _without(standing.ledger(), node, [a for moved in leaving.values() for a in moved.values()])
    plan = place(asks, ledger, seed=ledger.revision, may_evict=False)  # it says what has room as things are
    moves = [(leaving[keys.id_of_ref(p.workload)][p.index], p) for p in plan.placements]
    stays = [(a, blocked) for blocked in plan.blocked for a in _of(leaving, blocked)]
    return DrainPlan(ledger.revision, tuple(moves), tuple(stays), tuple(stops))


def _of(leaving: Mapping[str, Mapping[int, Allocation]], blocked: BlockedAsk) -> list[Allocation]:
    by_index = leaving[keys.id_of_ref(blocked.workload)]
    return [by_index[index] for index in blocked.indexes]


def _without(ledger: Ledger, node: str, leaving: Iterable[Allocation]) -> Ledger:
    """Return the ledger in which the node is being drained, and what leaves it is no longer counted as wanted."""
    fork = ledger.fork()
    row = fork.nodes.rows.get(node)
    if row is not None:
        fork.put_node(replace(fork.nodes.view(row), eligibility=Eligibility.DRAINING))
    for allocation in leaving:
        fork.no_longer_wanted(node, allocation.id)
    return fork
