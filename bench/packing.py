"""How few nodes hold generated mixes of 1,000 items, beside what no packing can beat and beside others' rules.

A number of nodes is enough for a scheduler if it finds room for every item on so many; the fewest that is enough is
what it needs. Ours gets all items as one plan, in the order in which they come, and, for comparison, one by one.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from bench.figures import Figure, at_most, reported
from bench.packing_mixes import MIXES, Items, fewest_nodes
from bench.packing_policies import PEERS, Rate, decreasing, first_fit, pack, stranded
from manifests.workloads import Kind, WorkloadRef
from scheduler.ledger import Ledger
from scheduler.model import Ask, Eligibility, NodeView, Snapshot, Vector
from scheduler.place import place, placed_of

ITEMS = 1_000
INSTANCES, SHORT_INSTANCES = 20, 2
FEW_INSTANCES = 5  # of what is only shown for comparison
OVER_THE_BOUND, OVER_FIRST_FIT = 1.05, 1.03
_CPU_M, _MEMORY_BYTES, _DISK_BYTES, _PIDS = 10**6, 10**12, 10**12, 10**6


async def measure(*, short: bool) -> list[Figure]:
    figures: list[Figure] = []
    all_over: list[float] = []
    for name, make in MIXES.items():
        rng = np.random.default_rng(sum(map(ord, name)))
        instances = [make(rng, ITEMS) for _ in range(SHORT_INSTANCES if short else INSTANCES)]
        over = _of_mix(name, instances, figures)
        all_over += over
    mean = float(np.mean(all_over))
    return [at_most("nodes needed, by the best lower bound, on average", mean, "x", OVER_THE_BOUND), *figures]


def _of_mix(name: str, instances: list[Items], figures: list[Figure]) -> list[float]:
    """Measure one mix; return how much over the bound ours is, by instance."""
    few = instances[:FEW_INSTANCES]
    bounds = [fewest_nodes(items) for items in instances]
    ours = _all_needed(_place, instances, bounds)
    first_fits = _all_needed(lambda items, n: pack(decreasing(items), n, first_fit, seed=1), instances, bounds)
    over = [n / bound for (n, _), bound in zip(ours, bounds, strict=True)]
    worst = max(n / other for (n, _), (other, _) in zip(ours, first_fits, strict=True))
    figures += [
        reported(f"{name}: nodes needed, by the bound", float(np.mean(over)), "x"),
        at_most(f"{name}: at worst, by first fit decreasing", worst, "x", OVER_FIRST_FIT),
        reported(f"{name}: one by one, by the bound", _over(_all_needed(_place_one_by_one, few, bounds), bounds), "x"),
        reported(f"{name}: stranded", _stranded(ours), "% of a node"),
    ]
    for peer, rate in PEERS.items():
        found = _all_needed(partial(_pack_as, rate), few, bounds)
        figures.append(reported(f"{name}: {peer}, by the bound", _over(found, bounds), "x"))
        figures.append(reported(f"{name}: {peer}, stranded", _stranded(found), "% of a node"))
    return over


def _pack_as(rate: Rate, items: Items, nodes: int) -> Items | None:
    return pack(items, nodes, rate, seed=1)


def _all_needed(
    attempt: Callable[[Items, int], Items | None], instances: Sequence[Items], bounds: Sequence[int]
) -> list[tuple[int, Items]]:
    """Return for each instance the fewest nodes that are enough, and what is free on them then."""
    return [_needed(bound, partial(attempt, items)) for items, bound in zip(instances, bounds, strict=False)]


def _over(found: Sequence[tuple[int, Items]], bounds: Sequence[int]) -> float:
    return float(np.mean([n / bound for (n, _), bound in zip(found, bounds, strict=False)]))


def _stranded(found: Sequence[tuple[int, Items]]) -> float:
    return 100 * float(np.mean([stranded(free) for _, free in found]))


def _needed(bound: int, attempt: Callable[[int], Items | None]) -> tuple[int, Items]:
    """Return the fewest nodes that are enough, and what is free on each then: doubling steps up, then bisection."""
    below, step = bound - 1, 1
    while (free := attempt(below + step)) is None:
        below, step = below + step, step * 2
    enough = below + step
    while enough - below > 1:
        middle = (below + enough) // 2
        found = attempt(middle)
        if found is None:
            below = middle
        else:
            enough, free = middle, found
    return enough, free


def _place(items: Items, nodes: int) -> Items | None:
    ledger = Ledger.of(_snapshot(nodes))
    plan = place([_ask(number, item) for number, item in enumerate(items)], ledger, seed=1)
    return None if plan.blocked else _free(items, nodes, [(p.index, p.node) for p in plan.placements])


def _place_one_by_one(items: Items, nodes: int) -> Items | None:
    """Have each item be a plan of its own, as when one comes after the other."""
    snapshot = _snapshot(nodes)
    ledger, chosen = Ledger.of(snapshot), []
    for number, item in enumerate(items):
        ask = _ask(number, item)
        plan = place([ask], ledger, seed=1)
        if plan.blocked:
            return None
        placement = plan.placements[0]
        ledger.put(placed_of(placement, ledger.revision))
        chosen.append((number, placement.node))
    return _free(items, nodes, chosen)


def _free(items: Items, nodes: int, chosen: list[tuple[int, str]]) -> Items:
    free = np.ones((nodes, items.shape[1]))
    for number, node in chosen:
        free[int(node[1:])] -= items[number]
    return free


def _snapshot(nodes: int) -> Snapshot:
    room = Vector(_CPU_M, _MEMORY_BYTES, _PIDS, _DISK_BYTES)
    return Snapshot(1, tuple(NodeView(f"n{i}", Eligibility.READY, {}, {}, room) for i in range(nodes)), ())


def _ask(number: int, item: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Ask:
    cpu, memory, disk = (float(share) for share in item)
    reserved = Vector(int(cpu * _CPU_M), int(memory * _MEMORY_BYTES), 1, int(disk * _DISK_BYTES))
    ref = WorkloadRef(namespace="default", kind=Kind.SERVICE, name=f"w{number}", uid=f"u{number}")
    return Ask(ref, 1, (number,), reserved)
