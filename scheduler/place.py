"""Places what is asked for on nodes, and says why: a snapshot in, a plan out.

The same snapshot and seed give the same plan, on every machine and in whatever order the snapshot lists its nodes.
The leader commits what this returns; dry runs and simulations call it just the same.
"""

from collections.abc import Sequence
from dataclasses import replace

from manifests.allocations import allocation_id
from manifests.reasons import Blocked, Rejection
from scheduler.fit import malformed, rejection_of
from scheduler.ledger import Ledger, NodeLedger, Siblings
from scheduler.model import Ask, BlockedAsk, PlacedAllocation, Placement, Plan, Snapshot
from scheduler.ports import assign_ports
from scheduler.ranking import Ranking


def place(asks: Sequence[Ask], snapshot: Snapshot, *, seed: int) -> Plan:
    """Return a node, or the reasons against all nodes, for every index of every ask.

    Asks are served in their order, each with what the ones before it left. One that can't be met never stops another.
    """
    ledger = Ledger(snapshot, seed=seed)
    placements: list[Placement] = []
    blocked: list[BlockedAsk] = []
    for given in asks:
        ask = replace(given, indexes=tuple(dict.fromkeys(given.indexes)))  # a slot is filled once
        note = malformed(ask) or _nowhere(ask, ledger)
        placed = [] if note else _place_ask(ask, ledger)
        placements += placed
        if left := ask.indexes[len(placed) :]:
            blocked.append(BlockedAsk(ask.workload, left, _blocked(ask, len(left), ledger, note)))
    return Plan(tuple(placements), tuple(blocked))


def with_plan(snapshot: Snapshot, plan: Plan) -> Snapshot:
    """Return the snapshot as it will be once the plan is carried out, for what-if questions."""
    placed = (
        PlacedAllocation(
            id=allocation_id(p.workload, p.index, snapshot.revision),
            workload=p.workload,
            version=p.version,
            index=p.index,
            node=p.node,
            reserved=p.reserved,
            ports=p.ports,
            is_wanted=True,
        )
        for p in plan.placements
    )
    return replace(snapshot, allocations=(*snapshot.allocations, *placed))


def _place_ask(ask: Ask, ledger: Ledger) -> list[Placement]:
    """Place the indexes one by one on the node that is best by then, until none fits: the nodes are filtered once."""
    siblings = ledger.siblings(ask)
    candidates, ruled_out = _sort_out(ask, ledger, siblings)
    ranking = Ranking(ask, ledger, siblings, candidates)
    placements: list[Placement] = []
    for index in ask.indexes:
        node = ranking.best()
        if node is None:
            break
        placement = Placement(
            workload=ask.workload,
            version=ask.version,
            index=index,
            node=node.name,
            reserved=ask.reserved,
            ports=assign_ports(ask, index, node, seed=ledger.seed) if ask.ports else (),
            why=ranking.choice(ruled_out),
        )
        placements.append(placement)
        ledger.take(placement)
        rejection = rejection_of(ask, node, siblings.running[node.name])
        ranking.settle(still_fits=rejection is None)
        if rejection:
            ruled_out.append(rejection)
    return placements


def _sort_out(ask: Ask, ledger: Ledger, siblings: Siblings) -> tuple[list[NodeLedger], list[Rejection]]:
    """Return the nodes that fit, and the reasons against those that don't."""
    candidates: list[NodeLedger] = []
    ruled_out: list[Rejection] = []
    for node in _nodes_for(ask, ledger):
        rejection = rejection_of(ask, node, siblings.running[node.name])
        if rejection:
            ruled_out.append(rejection)
        else:
            candidates.append(node)
    return candidates, ruled_out


def _nodes_for(ask: Ask, ledger: Ledger) -> list[NodeLedger]:
    """Return the nodes in question, by name. For an ask that belongs to one node, the others aren't."""
    if ask.only_node is None:
        return list(ledger.nodes.values())
    return [ledger.nodes[ask.only_node]] if ask.only_node in ledger.nodes else []


def _nowhere(ask: Ask, ledger: Ledger) -> str:
    if not ledger.nodes:
        return "there are no nodes"
    if ask.only_node is not None and ask.only_node not in ledger.nodes:
        return f"there is no node {ask.only_node}"
    return ""


def _blocked(ask: Ask, count: int, ledger: Ledger, note: str) -> Blocked:
    if note:
        return Blocked(ask.version, count, (), note)
    _, rejections = _sort_out(ask, ledger, ledger.siblings(ask))
    return Blocked.summed_up(ask.version, count, rejections)
