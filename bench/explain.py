"""How long it takes to explain why a service is blocked: 10,000 nodes, 100,000 allocations."""

import time
from dataclasses import replace

from bench.figures import Figure, at_most
from manifests.constraints import parse_constraint
from manifests.taints import parse_taint
from manifests.workloads import Kind, WorkloadRef
from scheduler.explain import explain
from scheduler.ledger import Ledger
from scheduler.model import Ask, Eligibility, Neighbour, NodeView, PlacedAllocation, Snapshot, Spread, Vector

NODES, ON_EACH = 10_000, 10
RUNS = 5
TARGET_MS = 100.0
_GIBIBYTE = 2**30
_HELD = Vector(700, _GIBIBYTE, 100, _GIBIBYTE)


async def measure(*, short: bool) -> list[Figure]:
    """Return how long each shape of ask takes, the best of a few runs; a short version isn't needed."""
    ledger = Ledger.of(_snapshot())
    big = Ask(_ref("web"), 1, (0,), Vector(1_500, 8 * _GIBIBYTE, 100, _GIBIBYTE))
    zone, fast = (parse_constraint(text) for text in ("node.labels.zone == a", "node.labels.disk == ssd"))
    shapes = {
        "lacks cpu and memory": big,
        "lacks one dimension, others of lower priority": replace(big, reserved=replace(_HELD, cpu_m=1_200)),
        "constraints": replace(big, constraints=(zone, fast)),
        "apart by zone": replace(big, neighbours=(Neighbour(_ref("old1"), False, "node.labels.zone"),)),
        "maxSkew over zones": replace(big, spread=(Spread("node.labels.zone", max_skew=1),)),
        "maxSkew over nodes, constraints": replace(big, spread=(Spread("node.name", max_skew=1),), constraints=(fast,)),
        "fits": replace(big, reserved=replace(_HELD, cpu_m=100)),
    }
    return [at_most(name, round(_best_ms(ask, ledger), 1), "ms", TARGET_MS) for name, ask in shapes.items()]


def _best_ms(ask: Ask, ledger: Ledger) -> float:
    return min(_timed_ms(ask, ledger) for _ in range(RUNS))


def _timed_ms(ask: Ask, ledger: Ledger) -> float:
    started = time.perf_counter()
    answer = explain(ask, ledger, seed=1)
    taken_ms = (time.perf_counter() - started) * 1_000
    assert answer.remedies or answer.fits
    return taken_ms


def _snapshot() -> Snapshot:
    """Return nodes in three zones which lack cpu; some are lost, some tainted."""
    nodes = tuple(
        NodeView(
            name=f"n{i:05}",
            eligibility=Eligibility.READY if i % 97 else Eligibility.LOST,
            labels={"zone": "abc"[i % 3], "disk": "hdd" if i % 5 else "ssd"},
            attributes={},
            allocatable=Vector(8_000, 16 * _GIBIBYTE + i, 8_192, 100 * _GIBIBYTE),
            taints=() if i % 11 else (parse_taint("gpu:noSchedule"),),
        )
        for i in range(NODES)
    )
    allocations = tuple(
        PlacedAllocation(f"old-{i}", _ref(f"old{i % 500}"), 1, i, f"n{i % NODES:05}", _HELD, (), True, priority=10)
        for i in range(ON_EACH * NODES)
    )
    return Snapshot(1, nodes, allocations)


def _ref(name: str) -> WorkloadRef:
    return WorkloadRef(namespace="default", kind=Kind.SERVICE, name=name, uid=f"uid-{name}")
