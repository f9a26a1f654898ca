"""How fast the scheduler plans, as a curve over the nodes: on one core, with the ledger given, ten allocations each."""

import gc
import time
from collections.abc import Callable, Mapping, Sequence

from bench.figures import Figure, at_least, reported
from manifests.constraints import parse_constraint
from manifests.workloads import Kind, WorkloadRef
from scheduler.ledger import Ledger
from scheduler.model import Ask, Eligibility, NodeView, PlacedAllocation, PortAsk, Snapshot, Spread, Vector
from scheduler.place import place

SIZES, SHORT_SIZES = (100, 1_000, 10_000, 50_000), (100, 1_000, 10_000)
MEASURED_AT = 10_000  # nodes: what the targets are about
REPLICAS_PER_S, SERVICES_PER_S = 100_000.0, 5_000.0
PER_NODE = 10
RUNS = 3
_MEBIBYTE = 2**20
_ZONE = "node.labels.zone"


async def measure(*, short: bool) -> list[Figure]:
    """Return placements per second for each shape of ask, the best of a few runs."""
    figures: list[Figure] = []
    for size in SHORT_SIZES if short else SIZES:
        ledger = Ledger.of(_snapshot(size))
        figures += [_figure(name, size, asks, ledger) for name, asks in _shapes(size).items()]
    return figures


_TARGETS = {
    "one service of 10,000": REPLICAS_PER_S,
    "1,000 services of 3, constraint and spread": SERVICES_PER_S,
}


def _shapes(size: int) -> Mapping[str, Callable[[], list[Ask]]]:
    replicas = min(size, MEASURED_AT)
    services = min(size, 1_000)
    return {
        f"one service of {replicas:,}": lambda: [_ask("web", replicas)],
        f"{services:,} services of 3, constraint and spread": lambda: [_picky(number) for number in range(services)],
        f"one service of {replicas:,}, auto port": lambda: [_ask("web", replicas, ports=(_AUTO,))],
        f"one service of {replicas:,}, spread over zones": lambda: [_ask("web", replicas, spread=(_ZONE,))],
        f"one service of {replicas:,}, spread over zones and nodes": lambda: [
            _ask("web", replicas, spread=(_ZONE, "node.name"))
        ],
        f"a daemon on {services:,} nodes": lambda: [_ask("log", 1, only_node=_name(n)) for n in range(services)],
    }


def _figure(name: str, size: int, make: Callable[[], Sequence[Ask]], ledger: Ledger) -> Figure:
    asks = make()
    wanted = sum(len(ask.indexes) for ask in asks)
    per_s = wanted / min(_timed_s(asks, ledger, wanted) for _ in range(RUNS))
    told = f"{size:,} nodes: {name}"
    if size == MEASURED_AT and name in _TARGETS:
        return at_least(told, round(per_s), "placements/s", _TARGETS[name])
    return reported(told, round(per_s), "placements/s")


def _timed_s(asks: Sequence[Ask], ledger: Ledger, wanted: int) -> float:
    gc.collect()
    started = time.perf_counter()
    plan = place(asks, ledger, seed=1)
    taken_s = time.perf_counter() - started
    assert len(plan.placements) == wanted
    return taken_s


def _snapshot(size: int) -> Snapshot:
    """Return nodes of three sizes in three zones, with allocations of 500 workloads of many sizes on them."""
    nodes = tuple(
        NodeView(
            name=_name(i),
            eligibility=Eligibility.READY,
            labels={"zone": "abc"[i % 3], "disk": "ssd" if i % 2 else "hdd"},
            attributes={},
            allocatable=Vector(8_000, (8 + i % 3 * 8) * 1024 * _MEBIBYTE, 8_192, 200 * 1024 * _MEBIBYTE),
        )
        for i in range(size)
    )
    refs = [_ref(f"old{i}") for i in range(500)]
    allocations = tuple(
        PlacedAllocation(f"old-{i}", refs[i % 500], 1, i, _name(i % size), _HELD[i % len(_HELD)], (), True)
        for i in range(PER_NODE * size)
    )
    return Snapshot(1, nodes, allocations)


def _name(number: int) -> str:
    return f"n{number:05}"


_AUTO = PortAsk("http", 80, None, "tcp")
_HELD = tuple(Vector(100 + i % 7 * 50, (64 + i % 5 * 64) * _MEBIBYTE, 64, 64 * _MEBIBYTE) for i in range(35))


def _ask(
    name: str,
    replicas: int,
    *,
    ports: tuple[PortAsk, ...] = (),
    spread: tuple[str, ...] = (),
    constraints: tuple[str, ...] = (),
    only_node: str | None = None,
) -> Ask:
    return Ask(
        workload=_ref(name),
        version=1,
        indexes=tuple(range(replicas)),
        reserved=Vector(250, 128 * _MEBIBYTE, 64, 64 * _MEBIBYTE),
        ports=ports,
        spread=tuple(Spread(over) for over in spread),
        constraints=tuple(parse_constraint(c) for c in constraints),
        only_node=only_node,
    )


def _picky(number: int) -> Ask:
    """Return a service of three that is unlike the others."""
    constraint = ("node.labels.disk == ssd", "node.labels.zone in a, b", "node.labels.zone != c")[number % 3]
    return _ask(f"web{number}", 3, spread=(_ZONE,), constraints=(constraint,))


def _ref(name: str) -> WorkloadRef:
    return WorkloadRef(namespace="default", kind=Kind.SERVICE, name=name, uid=f"uid-{name}")
