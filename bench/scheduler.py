"""How fast the scheduler plans: 1,000 replicas on 1,000 nodes."""

import time
from collections.abc import Callable

from bench.figures import Figure, at_least
from manifests.workloads import Kind, WorkloadRef
from scheduler.model import Ask, Eligibility, NodeView, PlacedAllocation, PortAsk, Snapshot, Spread, Vector
from scheduler.place import place

NODES = REPLICAS = 1_000
RUNS = 5
TARGET_PER_S = 1_000.0  # a thousand replicas on a thousand nodes within a second
_MEBIBYTE = 2**20


async def measure(*, short: bool) -> list[Figure]:
    """Return placements per second for each shape of ask, the best of a few runs; a short version isn't needed."""
    shapes: dict[str, Callable[[], list[Ask]]] = {
        "one service": lambda: [_ask("web", REPLICAS)],
        "one service, auto port": lambda: [_ask("web", REPLICAS, ports=(PortAsk("http", 80, None, "tcp"),))],
        "one service, spread over zones": lambda: [_ask("web", REPLICAS, spread=("node.labels.zone",))],
        "one service, spread over zones and nodes": lambda: [
            _ask("web", REPLICAS, spread=("node.labels.zone", "node.name"))
        ],
        "100 services of 10": lambda: [_ask(f"web{i}", 10) for i in range(100)],
        "a daemon on each node": lambda: [_ask("log", 1, only_node=f"n{i:04}") for i in range(NODES)],
    }
    return [_figure(name, make()) for name, make in shapes.items()]


def _figure(name: str, asks: list[Ask]) -> Figure:
    snapshot = _snapshot()
    best_s = min(_timed_s(asks, snapshot) for _ in range(RUNS))
    return at_least(name, round(REPLICAS / best_s), "placements/s", TARGET_PER_S)


def _timed_s(asks: list[Ask], snapshot: Snapshot) -> float:
    started = time.perf_counter()
    plan = place(asks, snapshot, seed=1)
    taken_s = time.perf_counter() - started
    assert len(plan.placements) == REPLICAS
    return taken_s


def _snapshot() -> Snapshot:
    """Return nodes of three sizes in three zones, with two allocations on each."""
    nodes = tuple(
        NodeView(
            name=f"n{i:04}",
            eligibility=Eligibility.READY,
            labels={"zone": "abc"[i % 3]},
            attributes={},
            allocatable=Vector(8_000, (8 + i % 3 * 8) * 1024 * _MEBIBYTE, 8_192),
        )
        for i in range(NODES)
    )
    held = Vector(500, 512 * _MEBIBYTE, 128)
    allocations = tuple(
        PlacedAllocation(f"old-{i}", _ref(f"old{i % 50}"), 1, i, f"n{i % NODES:04}", held, (), True)
        for i in range(2 * NODES)
    )
    return Snapshot(1, nodes, allocations)


def _ask(
    name: str,
    replicas: int,
    *,
    ports: tuple[PortAsk, ...] = (),
    spread: tuple[str, ...] = (),
    only_node: str | None = None,
) -> Ask:
    return Ask(
        workload=_ref(name),
        version=1,
        indexes=tuple(range(replicas)),
        reserved=Vector(250, 128 * _MEBIBYTE, 64),
        ports=ports,
        spread=tuple(Spread(over) for over in spread),
        only_node=only_node,
    )


def _ref(name: str) -> WorkloadRef:
    return WorkloadRef(namespace="default", kind=Kind.SERVICE, name=name, uid=f"uid-{name}")
