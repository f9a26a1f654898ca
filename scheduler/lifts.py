"""One way to lift one rule on one node: what is to be said of it, and what it does to the ask or to the cluster."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from manifests.constraints import Constraint
from manifests.engines import as_written
from manifests.explanations import Change, Lift
from manifests.reasons import Code, listing, render_amount
from manifests.taints import Toleration, untolerated
from scheduler.faults import KIND_OF, Faults, capped_counts
from scheduler.hashing import key_of
from scheduler.holdings import PortKey
from scheduler.ledger import Ledger
from scheduler.model import Ask, Eligibility, Neighbour, PlacedAllocation, Spread, Vector
from scheduler.nodes import BASE
from scheduler.rulings import judge, judge_unevenness, readable


@dataclass(frozen=True, slots=True)
class Step:
    """Changes that lift one rule. They are carried out on a copy only, to see whether they do."""

    changes: tuple[Change, ...]
    to_ask: Callable[[Ask], Ask] | None = None
    to_ledger: Callable[[Ledger], None] | None = None
    opens: bool = False  # the node takes allocations again
    rank: float = 0.0  # among changes of one kind, lower is better


def step_for(faults: Faults, number: int, place: int) -> Step | None:
    """Return how that rule can be lifted on the node at that place; None where it can't."""
    row = int(faults.rows[place])
    about = faults.rulings[number].about
    match about:
        case Eligibility():
            state = faults.ledger.nodes.view(row).eligibility
            return Step((Change(Lift.READY, state),), opens=True, rank=list(Eligibility).index(state))
        case Code.TAINT:
            return _tolerating(faults, row)
        case Code.MAX_PER_NODE:
            least = faults.ledger.holdings.running(key_of(faults.ask.workload)).get(row, 0) + 1
            change = Change(Lift.MAX_PER_NODE, value=str(least))
            return Step((change,), lambda ask: replace(ask, max_per_node=least), rank=least)
        case Code():
            return _reserving(faults, about, row) if about in KIND_OF else None
        case Constraint():
            return Step((Change(Lift.CONSTRAINT, as_written(about)),), lambda ask: _without_constraint(ask, about))
        case Spread():
            return _less_even(faults, about, row)
        case Neighbour():
            lift = Lift.TOGETHER if about.is_wanted else Lift.APART
            return Step((Change(lift, named(about)),), lambda ask: _without_neighbour(ask, about))
        case (str(name), int()):
            return _with_fewer_devices(faults, name, row)
        case (int(), str()):
            return _freeing(faults, about, row)


def named(neighbour: Neighbour) -> str:
    """Return the other workload, as sentences name it."""
    name = f"{neighbour.workload.kind}/{neighbour.workload.name}".lower()
    return name if neighbour.over == "node.name" else f"{name} over {neighbour.over}"


def _reserving(faults: Faults, code: Code, row: int) -> Step | None:
    kind = KIND_OF[code]
    needed, free = faults.ledger.nodes.amounts(faults.ask.reserved)[kind], int(faults.ledger.free[kind, row])
    most = readable(code, free)
    if most <= 0:
        return None

    def lowered(ask: Ask) -> Ask:
        return replace(ask, reserved=_with_amount(ask.reserved, code, most))

    return Step((Change(Lift.RESERVE, code, render_amount(code, most)),), lowered, rank=1 - most / needed)


def _with_amount(vector: Vector, code: Code, amount: int) -> Vector:
    match code:
        case Code.CPU:
            return replace(vector, cpu_m=amount)
        case Code.MEMORY:
            return replace(vector, memory_bytes=amount)
        case Code.PIDS:
            return replace(vector, pids=amount)
        case _:
            return replace(vector, disk_bytes=amount)


def _with_fewer_devices(faults: Faults, name: str, row: int) -> Step | None:
    kind = faults.ledger.nodes.kind_of(name)
    most = 0 if kind is None else max(int(faults.ledger.free[kind, row]), 0)

    def lowered(ask: Ask) -> Ask:
        devices = tuple((k, most if k == name else count) for k, count in ask.reserved.devices)
        return replace(ask, reserved=replace(ask.reserved, devices=tuple((k, c) for k, c in devices if c)))

    if kind is not None and faults.ledger.free[kind, row] < 0:
        return None  # it holds more than it has: not even nothing of it fits
    return Step((Change(Lift.RESERVE, name, str(most)),), lowered, rank=1 if not most else 0.5)


def _tolerating(faults: Faults, row: int) -> Step:
    """Return the fewest tolerations: `gpu` does for `gpu=a100` as well."""
    taints = list(untolerated(faults.ledger.nodes.view(row).taints, faults.ask.tolerations))
    wanted = {Toleration(t.key, t.value or None): None for t in taints}
    fewest = tuple(s for s in wanted if s.value is None or Toleration(s.key, None) not in wanted)
    changes = tuple(
        Change(Lift.TOLERATE, listing([str(t) for t in taints if toleration.tolerates(t)]), str(toleration))
        for toleration in fewest
    )
    return Step(changes, lambda ask: replace(ask, tolerations=(*ask.tolerations, *fewest)), rank=len(changes))


def _without_constraint(ask: Ask, constraint: Constraint) -> Ask:
    return replace(ask, constraints=tuple(c for c in ask.constraints if c != constraint))


def _without_neighbour(ask: Ask, neighbour: Neighbour) -> Ask:
    return replace(ask, neighbours=tuple(n for n in ask.neighbours if n != neighbour))


def _less_even(faults: Faults, spread: Spread, row: int) -> Step:
    counts = next(c for c in faults.spreads if c.spread == spread)
    least = counts.skew_with_one_more(int(counts.codes[row]))

    def eased(ask: Ask) -> Ask:
        return replace(ask, spread=tuple(replace(s, max_skew=least) if s == spread else s for s in ask.spread))

    return Step((Change(Lift.MAX_SKEW, spread.over, str(least)),), eased, rank=least)


def _freeing(faults: Faults, port: PortKey, row: int) -> Step | None:
    holders = faults.ledger.holdings.port_holders(port, row)
    held = [a for holder in holders if (a := faults.ledger.holdings.find(row, holder))]
    if len(held) < len(holders):
        return None

    def freed(ledger: Ledger) -> None:
        for allocation in held:
            left = tuple(p for p in allocation.ports if (p.host, p.protocol) != port)
            ledger.put(replace(allocation, ports=left))

    change = Change(Lift.HOST_PORT, f"{port[0]}/{port[1]}", listing([a.id for a in held]))
    return Step((change,), to_ledger=freed, rank=len(held)) if held else None


def moving(allocation: PlacedAllocation) -> Step:
    """Return the step that takes an allocation away."""
    of = f"{allocation.workload.kind}/{allocation.workload.name}".lower()
    change = Change(Lift.MOVE, allocation.id, f"{of}, priority {allocation.priority}")
    return Step((change,), to_ledger=lambda ledger: ledger.drop(allocation.node, allocation.id))


def amounts_of(vector: Vector) -> str:
    """Return amounts as a sentence lists them."""
    pairs = (
        ("cpu", render_amount(Code.CPU, vector.cpu_m)),
        ("memory", render_amount(Code.MEMORY, vector.memory_bytes)),
        ("pids", str(vector.pids)),
        ("disk", render_amount(Code.DISK, vector.disk_bytes)),
    )
    return listing([*(f"{amount} {name}" for name, amount in pairs), *(f"{n} {kind}" for kind, n in vector.devices)])


def would_fit(faults: Faults, place: int, steps: Sequence[Step]) -> bool:
    """Say whether one more fits on that node once all of the steps are taken, by the scheduler's own rules.

    All rules are tried again: to tolerate a taint, say, may open a value to a spread and so change how even it is.
    """
    ask, ledger = faults.ask, faults.ledger
    for step in steps:
        ask = step.to_ask(ask) if step.to_ask else ask
    if any(step.to_ledger for step in steps):
        ledger = ledger.fork()
        for step in steps:
            if step.to_ledger:
                step.to_ledger(ledger)
    return fits_row(ask, ledger, int(faults.rows[place]), opens=any(step.opens for step in steps))


def fits_row(ask: Ask, ledger: Ledger, row: int, *, opens: bool = False) -> bool:
    """Say whether one more fits there; `opens`: as if that node took allocations."""
    verdict = judge(ask, ledger, row)
    if any(ruling.fails[0] for ruling in verdict.rulings if not (opens and ruling.about is Eligibility.READY)):
        return False
    if all(spread.max_skew is None for spread in ask.spread):
        return True
    everywhere = judge(ask, ledger)  # a node that opens can only be of the emptiest value itself, or doesn't matter
    before = len(everywhere.rulings)
    judge_unevenness(everywhere, capped_counts(ask, ledger, everywhere))
    place = row if isinstance(everywhere.selection, slice) else 0
    return not any(ruling.fails[place] for ruling in everywhere.rulings[before:])


def gives_room(faults: Faults, row: int, allocation: PlacedAllocation) -> bool:
    """Say whether the node would have room for the ask without that allocation."""
    nodes, ask = faults.ledger.nodes, faults.ask
    needed, given = nodes.amounts(ask.reserved), nodes.amounts(allocation.reserved)
    free = faults.ledger.free[:, row].tolist()
    if any(f + g < n for kind, (f, g, n) in enumerate(zip(free, given, needed, strict=True)) if kind < BASE or n):
        return False
    ports = ((p.host, p.protocol) for p in ask.ports if p.host is not None)
    return all(set(faults.ledger.holdings.port_holders(port, row)) <= {allocation.id} for port in ports)
