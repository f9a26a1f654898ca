"""The records of a large cluster, as its store would hold them: `python -m bench.memory_records NODES ALLOCATIONS`.

A line for each: its key, a tab, its JSON. A process of its own, so that what it takes is not counted with the leader.
The scheduler places each service, so that what the allocations say of why they are there is what it says.
"""

import random
import sys
from collections.abc import Iterator, Sequence
from itertools import cycle

from control_plane import keys
from control_plane.controllers.snapshot import placed
from control_plane.controllers.writes import allocation_of
from manifests.allocations import Allocation, AllocationStatus, Health, Phase
from manifests.base import Model
from manifests.constraints import parse_constraint
from manifests.containers import NodeResources
from manifests.nodes import Liveness, NodeFacts, NodeStatus
from manifests.status import WorkloadStatus
from manifests.workloads import Kind, Service, VersionRecord, WorkloadRecord, WorkloadRef
from scheduler.ledger import Ledger
from scheduler.model import Ask, Eligibility, NodeView, PortAsk, Snapshot, Spread, Vector, vector_of
from scheduler.place import place

PER_SERVICE = 100
CELL = 1_000  # nodes among which a service is placed
WALL_S = 1_700_000_000.0
_GIBIBYTE = 2**30
_RESERVED = Vector(100, 64 * 2**20, 64, 64 * 2**20)


def records(nodes: int, allocations: int) -> Iterator[tuple[str, Model]]:
    """Yield every record, and its key. The scheduler has one cell of nodes after the other, which is much faster."""
    rng = random.Random(7)
    cells = max(1, nodes // CELL)
    services = allocations // PER_SERVICE // cells
    for cell in range(cells):
        facts = [_facts(number) for number in range(cell * nodes // cells, (cell + 1) * nodes // cells)]
        refs = [_ref(number, rng) for number in range(cell * services, (cell + 1) * services)]
        yield from _of_cell(facts, refs, rng)


def _of_cell(
    facts: Sequence[NodeFacts], refs: Sequence[WorkloadRef], rng: random.Random
) -> Iterator[tuple[str, Model]]:
    for one in facts:
        status = NodeStatus(facts=one, liveness=Liveness.READY, server="s1-1f3a9c2e", session=3, changed_s=_time(rng))
        yield keys.NODES + one.name, status
    ledger = Ledger.of(Snapshot(1_000, tuple(_view(one) for one in facts), ()))
    for ref, zone in zip(refs, cycle("abc"), strict=False):
        yield from _of_workload(ref, rng)
        for placement in place([_ask(ref, zone)], ledger, seed=ledger.revision).placements:
            allocation = allocation_of(placement, None, revision=ledger.revision, wall_s=_time(rng))
            yield keys.ALLOCATIONS + keys.placed_id(allocation.node, allocation.id), allocation
            yield keys.STATUSES + keys.placed_id(allocation.node, allocation.id), _status(allocation, rng)
            ledger.put(placed(allocation))
        ledger.revision += 1


def _facts(number: int) -> NodeFacts:
    name = f"n{number:05}"
    return NodeFacts(
        name=name,
        agent_id=f"{number * 7919:032x}",
        boot_id=f"{number * 104729:032x}",
        agent_version="0.1.0",
        address=f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}",
        labels={"zone": "abc"[number % 3], "disk": "ssd" if number % 2 else "hdd"},
        attributes={
            "arch": "amd64",
            "os": "linux",
            "kernel": "6.1.0-18-amd64",
            "hostname": name,
            "driver": "docker",
            "driver.version": "24.0.7",
        },
        capacity=NodeResources.of(cpu_m=8_000, memory_bytes=32 * _GIBIBYTE, pids=32_768, disk_bytes=200 * _GIBIBYTE),
        allocatable=NodeResources.of(cpu_m=7_500, memory_bytes=30 * _GIBIBYTE, pids=30_000, disk_bytes=180 * _GIBIBYTE),
    )


def _view(facts: NodeFacts) -> NodeView:
    return NodeView(facts.name, Eligibility.READY, facts.labels, facts.attributes, vector_of(facts.allocatable))


def _ask(ref: WorkloadRef, zone: str) -> Ask:
    """Return that of a service which a third of the nodes is ruled out for."""
    return Ask(
        workload=ref,
        version=1,
        indexes=tuple(range(PER_SERVICE)),
        reserved=_RESERVED,
        ports=(PortAsk("http", 8080, None, "tcp"),),
        spread=(Spread("node.name"),),
        constraints=(parse_constraint(f"node.labels.zone != {zone}"),),
    )


def _ref(number: int, rng: random.Random) -> WorkloadRef:
    uid = f"{rng.getrandbits(64):016x}"
    return WorkloadRef(namespace="default", kind=Kind.SERVICE, name=f"service-{number:05}", uid=uid)


def _of_workload(ref: WorkloadRef, rng: random.Random) -> Iterator[tuple[str, Model]]:
    """Yield what users have written of a service, and what the leader says of it."""
    spec = {
        "replicas": PER_SERVICE,
        "image": "registry.example.com/team/web:1.4.2",
        "command": ["serve", "--port=8080"],
    }
    manifest = {"apiVersion": "wherry/v1", "kind": "Service", "metadata": {"name": ref.name}, "spec": spec}
    service, made_s, workload = Service.model_validate(manifest), _time(rng), keys.id_of_ref(ref)
    yield (
        keys.WORKLOADS + workload,
        WorkloadRecord(uid=ref.uid, version=1, generation=1, created_s=made_s, workload=service),
    )
    version = VersionRecord(uid=ref.uid, version=1, created_s=made_s, workload=service)
    yield keys.VERSIONS + keys.version_id(workload, 1), version
    yield keys.WORKLOAD_STATUSES + workload, WorkloadStatus(ref=ref, generation=1)


def _status(allocation: Allocation, rng: random.Random) -> AllocationStatus:
    return AllocationStatus(
        id=allocation.id,
        node=allocation.node,
        workload=allocation.workload,
        version=allocation.version,
        index=allocation.index,
        phase=Phase.RUNNING,
        health=Health.HEALTHY,
        container_id=f"{rng.getrandbits(256):064x}",
        address=f"172.17.{rng.randrange(256)}.{rng.randrange(2, 255)}",
        started_s=_time(rng),
    )


def _time(rng: random.Random) -> float:
    return round(WALL_S + rng.random() * 1e7, 3)


def main(nodes: int, allocations: int) -> None:
    for key, record in records(nodes, allocations):
        sys.stdout.write(f"{key}\t{record.model_dump_json(exclude_none=True)}\n")


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
