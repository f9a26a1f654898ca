"""How long `wherry simulate --lose` takes a server: one node of 10,000 is lost, with the 100 allocations on it."""

import gc
import time
from collections.abc import Iterator

from bench.figures import Figure, below
from control_plane import keys
from control_plane.controllers.standing import Standing
from control_plane.rehearsal.answer import answered, fork_of, prepared
from control_plane.rehearsal.question import Question
from control_plane.state import ClusterState
from control_plane.store.protocol import Put
from foundation.clock import SystemClock
from manifests.allocations import Allocation, AllocationStatus, Health, Phase, allocation_id
from manifests.base import Model
from manifests.containers import NodeResources, Resources
from manifests.nodes import Liveness, NodeFacts, NodeStatus
from manifests.reasons import Choice
from manifests.rollouts import Rollout, RolloutState
from manifests.status import WorkloadStatus
from manifests.workloads import WorkloadRecord
from tests.builders import record, version_record
from tests.cache import Cache

NODES, SHORT_NODES = 10_000, 2_000
ON_EACH, ON_THE_LOST = 10, 100
TARGET_MS = 250.0
RUNS = 3
_GIBIBYTE = 2**30
_RESERVED = Resources.of(cpu_m=100, memory_bytes=_GIBIBYTE // 8, pids=64)


async def measure(*, short: bool) -> list[Figure]:
    """Return how long the loss takes, of services of ten replicas and of a hundred: the best of a few runs."""
    nodes = SHORT_NODES if short else NODES
    figures = []
    for replicas in (10, 100):
        name = f"{nodes:,} nodes, services of {replicas}: the loss of one with {ON_THE_LOST} allocations"
        figures.append(below(name, round(await _best_ms(_cluster(nodes, replicas)), 1), "ms", TARGET_MS))
    return figures


async def _best_ms(state: ClusterState) -> float:
    standing = Standing(state)
    state.subscribe(standing.on_batch)
    standing.ledger()  # a server has it at hand
    return min([await _timed_ms(state, standing) for _ in range(RUNS)])


async def _timed_ms(state: ClusterState, standing: Standing) -> float:
    gc.collect()
    started = time.perf_counter()
    rehearsal, results, at = await prepared(fork_of(state, standing, SystemClock()), Question(lose=(_name(0),)))
    outcome = answered(rehearsal, results, at).outcome
    taken_ms = (time.perf_counter() - started) * 1_000
    assert len(outcome.moves) == ON_THE_LOST
    assert outcome.fits
    return taken_ms


def _cluster(nodes: int, replicas: int) -> ClusterState:
    """Return nodes with ten running allocations each, and a hundred on the first, each of another service."""
    cache = Cache()
    cache.write([Put(keys.NODES + _name(i), _node(_name(i)).to_bytes()) for i in range(nodes)])
    placed = [_name(0)] * ON_THE_LOST + [_name(i) for i in range(1, nodes) for _ in range(ON_EACH)]
    services = len(placed) // replicas
    for number in range(services):
        service = record(name=f"s{number}", uid=f"u{number}", replicas=replicas)
        cache.write(list(_service(service, placed[number::services][:replicas])))
    return cache.state


def _service(service: WorkloadRecord, placed: list[str]) -> Iterator[Put]:
    workload = keys.id_of_ref(service.ref)
    yield _put(keys.VERSIONS + f"{workload}/1", version_record(service, 1))
    rollout = Rollout(version=1, target=1, state=RolloutState.COMPLETE, healthy=(1,))
    yield _put(keys.WORKLOAD_STATUSES + workload, WorkloadStatus(ref=service.ref, generation=1, rollout=rollout))
    yield _put(keys.WORKLOADS + workload, service)
    for index, node in enumerate(placed):
        allocation = Allocation(
            id=allocation_id(service.ref, index, 1),
            workload=service.ref,
            version=1,
            index=index,
            node=node,
            reserved=_RESERVED,
            why=Choice(0.5, (("bestFit", 0.5),)),
            created_s=0.0,
        )
        status = AllocationStatus(
            id=allocation.id,
            node=node,
            workload=service.ref,
            version=1,
            index=index,
            phase=Phase.RUNNING,
            health=Health.HEALTHY,
        )
        yield _put(keys.ALLOCATIONS + keys.placed_id(node, allocation.id), allocation)
        yield _put(keys.STATUSES + keys.placed_id(node, allocation.id), status)


def _put(key: str, value: Model) -> Put:
    return Put(key, value.to_bytes())


def _node(name: str) -> NodeStatus:
    has = NodeResources.of(cpu_m=16_000, memory_bytes=64 * _GIBIBYTE, pids=32_768, disk_bytes=200 * _GIBIBYTE)
    facts = NodeFacts(
        name=name,
        agent_id=name,
        boot_id=name,
        agent_version="1",
        capacity=has,
        allocatable=has,
    )
    return NodeStatus(facts=facts, liveness=Liveness.READY, server="s1", session=1, changed_s=0.0)


def _name(number: int) -> str:
    return f"n{number:05}"
