"""Which digest each image of a version has: the first that a node has found holds for all of the version's replicas."""

import re

from control_plane.state import ClusterState
from manifests.containers import PullPolicy
from manifests.status import Pinned, WorkloadStatus
from manifests.workloads import Workload, WorkloadRecord

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


def pinned_of(state: ClusterState, workload: str, record: WorkloadRecord, said: WorkloadStatus | None) -> Pinned:
    """Return what was said before, and what is new; versions that aren't kept any more are left out.

    A version that an undo made begins with the digests of the one that it copied.
    """
    known = said.pinned if said is not None and said.ref.uid == record.uid else {}
    versions = {number: v for number, v in state.versions_of(workload).items() if v.uid == record.uid}
    pinned = {number: dict(images) for number, images in known.items() if number in versions}
    for number, kept in sorted(versions.items()):
        if number not in pinned and kept.copies in pinned:
            pinned[number] = dict(pinned[kept.copies])
    sought = {n: _pinnable(v.workload) - pinned.get(n, {}).keys() for n, v in versions.items()}
    if not any(sought.values()):
        return pinned  # as it is nearly always
    for allocation in state.allocations_of(workload):
        status = state.statuses.get(allocation.id)
        if status is None or not status.images or status.workload.uid != record.uid:
            continue
        for image in sought.get(allocation.version, frozenset()) & status.images.keys():
            if _DIGEST.fullmatch(status.images[image]):  # other nodes are told: a node may slip in nothing else
                pinned.setdefault(allocation.version, {}).setdefault(image, status.images[image])
    return pinned


def _pinnable(workload: Workload) -> set[str]:
    """Return the images of a version that a digest may be found for."""
    containers = (*workload.spec.members.values(), *workload.spec.init_containers)
    return {c.image for c in containers if "@" not in c.image and c.pull is not PullPolicy.NEVER}
