"""The fewest moves that make room for what fits nowhere: nobody is evicted, some only go elsewhere. Pure."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from scheduler.columns import Flags
from scheduler.hashing import key_of
from scheduler.ledger import Ledger
from scheduler.model import Ask, PlacedAllocation
from scheduler.moves import Asks, Moves, Proposal, told
from scheduler.nodes import Rows
from scheduler.ranking import Orders
from scheduler.rulings import judge, judge_unevenness
from scheduler.spreading import counts_of
from scheduler.victims import Candidate, Cost, cost_of, least_victims

MOST_NODES = 64  # on which room is looked for, those that lack the least first
_TRIES = 8  # for one node: what has no other place is left out, and the others are looked at again


def make_way(asks: Sequence[Ask], ledger: Ledger, movable: Asks, *, max_moves: int) -> Proposal:
    """Return the moves after which one of each ask has room, as far as that can be; served in their order."""
    moves, orders = Moves(ledger, movable), Orders(ledger)
    rooms: list[str] = []
    gains: dict[str, tuple[float, str]] = {}
    has_more = False
    for ask in asks:
        found = _room(ask, moves, orders)
        if found is None or len(found[1].targets) > max_moves:
            has_more |= found is not None
            continue
        row, then = found
        node = ledger.nodes.view(row).name
        new = [id_ for id_ in then.targets if id_ not in moves.targets]
        gains |= {id_: (1 / len(new), f"makes room for {ask.workload} on {node}") for id_ in new}
        then.ledger.claim(ask, row)
        rooms.append(node)
        moves = then
    return Proposal(
        told(moves, lambda a: gains[a.id]), rooms=tuple(rooms), short=len(asks) - len(rooms), has_more=has_more
    )


def _room(ask: Ask, moves: Moves, orders: Orders) -> tuple[int, Moves] | None:
    """Return where one of the ask has room, and all moves by then."""
    ledger = moves.ledger
    verdict = judge(ask, ledger)
    if any(spread.max_skew is not None for spread in ask.spread):
        judge_unevenness(verdict, counts_of(ask, ledger, verdict.open_rows(), verdict.fitting()))
    if len(verdict.fitting()):
        return int(verdict.fitting()[0]), moves
    if any(ledger.nodes.kind_of(kind) is None for kind, _ in ask.reserved.devices):
        return None
    ranks = orders.ties_of(ask).ranks
    found: list[tuple[Cost, int, int, Moves]] = []
    for row in _likeliest(ask, ledger, verdict.lacking_room(), ranks):
        if (then := _vacated(ask, row, moves)) is not None:
            cost, there = then
            found.append((cost, int(ranks[row]), row, there))
    best = min(found, key=lambda item: item[:2], default=None)
    return (best[2], best[3]) if best else None


def _likeliest(ask: Ask, ledger: Ledger, rows: Rows, ranks: Rows) -> Iterable[int]:
    needed = np.array(ledger.nodes.amounts(ask.reserved))[:, None]
    lacks = (np.maximum(needed - ledger.free[:, rows], 0) * ledger.nodes.inverse[:, rows]).max(axis=0, initial=0)
    order: list[int] = rows[np.lexsort((ranks[rows], lacks))][:MOST_NODES].tolist()
    return order


def _vacated(ask: Ask, row: int, moves: Moves) -> tuple[Cost, Moves] | None:
    """Return the moves after which the node has room, and what the least costs that go for it."""
    ledger = moves.ledger
    companions = {key_of(n.workload) for n in ask.neighbours if n.weight is None and n.is_wanted}
    candidates = [a for a in moves.on(row) if a.id not in moves.targets and key_of(a.workload) not in companions]
    for _ in range(_TRIES):
        victims = _least(ask, row, ledger, candidates)
        if not victims:
            return None
        then = moves.with_moved((v.allocation for v in victims), _anywhere)
        if then is not None:
            is_there = not judge(ask, then.ledger, row).fails[0]
            return (cost_of(victims, {}), then) if is_there else None
        stuck = set(_stuck(victims, moves))
        candidates = [a for a in candidates if a.id not in (stuck or {victims[0].allocation.id})]
    return None


def _anywhere(_ask: Ask, _ledger: Ledger, _own: int, rows: Rows) -> Flags:
    return np.ones(len(rows), np.bool_)


def _stuck(victims: Sequence[Candidate], moves: Moves) -> Iterator[str]:
    """Yield those that have no other place even if they alone move."""
    for victim in victims:
        if moves.with_moved([victim.allocation], _anywhere) is None:
            yield victim.allocation.id


def _least(ask: Ask, row: int, ledger: Ledger, candidates: Sequence[PlacedAllocation]) -> Sequence[Candidate]:
    """Return the best set that makes enough room there; nothing if all together don't."""
    needed, free = ledger.nodes.amounts(ask.reserved), ledger.free[:, row].tolist()
    lacking = {kind: need - free[kind] for kind, need in enumerate(needed) if need > free[kind]}
    ports = [(port.host, port.protocol) for port in ask.ports if port.host is not None]
    holders = {holder for port in ports for holder in ledger.holdings.port_holders(port, row)}
    chosen = []
    for a in candidates:
        amounts = ledger.nodes.amounts(a.reserved)
        chosen.append(Candidate(a, tuple(amounts[kind] for kind in lacking), a.id in holders))
    if len(holders) > sum(c.is_forced for c in chosen):
        return ()
    return least_victims(chosen, tuple(lacking.values()), {}) or ()
