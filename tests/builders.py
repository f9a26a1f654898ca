"""Short ways to make workloads, allocations and what is seen of them, for tests that read like examples."""

from typing import Any

from control_plane.controllers.decision import Seen
from control_plane.controllers.rollouts import Course, course_of
from manifests.allocations import (
    Allocation,
    AllocationStatus,
    Desired,
    Ending,
    Health,
    Phase,
    allocation_id,
)
from manifests.containers import Resources
from manifests.reasons import Choice
from manifests.rollouts import Rollout, RolloutState
from manifests.workloads import WORKLOAD, VersionRecord, Workload, WorkloadRecord
from scheduler.model import Eligibility


def workload(kind: str = "Service", name: str = "web", namespace: str = "default", **spec: Any) -> Workload:
    document = {
        "apiVersion": "wherry/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"image": "wherry/busybox:1", "command": ["sleep", "1000"], **spec},
    }
    return WORKLOAD.validate_python(document)


def record(
    kind: str = "Service", *, name: str = "web", version: int = 1, uid: str = "u1", **spec: Any
) -> WorkloadRecord:
    return WorkloadRecord(
        uid=uid, version=version, generation=version, created_s=0.0, workload=workload(kind, name, **spec)
    )


def course(of: WorkloadRecord, *, target: int = 0, healthy: tuple[int, ...] = (), **said: Any) -> Course:
    """Return the course of a record of which all versions are kept; `said`: what was recorded of its rollout."""
    kept = {v: version_record(of, v) for v in range(1, of.version + 1)}
    version = said.pop("version", of.version)
    recorded = Rollout(
        version=version,
        target=target or version,
        state=said.pop("state", RolloutState.PROGRESSING),
        healthy=healthy,
        **said,
    )
    return course_of(of, recorded, kept)


def version_record(of: WorkloadRecord, version: int) -> VersionRecord:
    return VersionRecord(uid=of.uid, version=version, created_s=0.0, workload=of.workload)


def seen(
    of: WorkloadRecord,
    index: int,
    phase: Phase | None = Phase.RUNNING,
    *,
    node: str = "n1",
    node_is: Eligibility | None = Eligibility.READY,
    version: int | None = None,
    ready: bool = True,
    desired: Desired = Desired.RUN,
    reschedules: int = 0,
    ended_for_s: float = 0.0,
    ready_for_s: float = 3600.0,
) -> Seen:
    """Return an allocation as a reconciler sees it; `phase=None`: its node has said nothing of it yet."""
    allocation = Allocation(
        id=allocation_id(of.ref, index, len(node) + 10 * (version or 0) + 100 * (desired is Desired.STOP)),
        workload=of.ref,
        version=of.version if version is None else version,
        index=index,
        node=node,
        desired=desired,
        reserved=Resources(),
        why=Choice(0.0, ()),
        created_s=0.0,
        reschedules=reschedules,
    )
    said = status(allocation, phase, ready=ready) if phase else None
    return Seen(allocation, said, node_is, ended_for_s, ready_for_s)


def stopping(allocation: Allocation) -> Allocation:
    return allocation.model_copy(update={"desired": Desired.STOP})


def status(allocation: Allocation, phase: Phase, *, ready: bool = True) -> AllocationStatus:
    ending = Ending(attempt=1, exit_code=1, reason="exited", message="exit 1", finished_s=0.0)
    return AllocationStatus(
        id=allocation.id,
        node=allocation.node,
        workload=allocation.workload,
        version=allocation.version,
        index=allocation.index,
        phase=phase,
        health=Health.HEALTHY if ready and phase is Phase.RUNNING else Health.UNKNOWN,
        last_ending=ending if phase in (Phase.FAILED, Phase.BACKOFF) else None,
    )
