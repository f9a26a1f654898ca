"""Which digest each image of a version has: the first that a node has found holds for all of the version's replicas."""

from control_plane.state import ClusterState
from manifests.status import Pinned, WorkloadStatus
from manifests.workloads import WorkloadRecord


def pinned_of(state: ClusterState, workload: str, record: WorkloadRecord, said: WorkloadStatus | None) -> Pinned:
    """Return what was said before, and what is new; versions that aren't kept any more are left out.

    A version that an undo made begins with the digests of the one that it copied.
    """
    known = said.pinned if said is not None and said.ref.uid == record.uid else {}
    versions = {number: v for number, v in state.versions_of(workload).items() if v.uid == record.uid}
    pinned = {number: dict(images) for number, images in known.items() if number in versions}
    for number, version in sorted(versions.items()):
        if number not in pinned and version.copies in pinned:
            pinned[number] = dict(pinned[version.copies])
    for allocation in state.allocations_of(workload):
        status = state.statuses.get(allocation.id)
        if (
            status is not None
            and status.images
            and allocation.version in versions
            and status.workload.uid == record.uid
        ):
            found = pinned.setdefault(allocation.version, {})
            for image, digest in status.images.items():
                found.setdefault(image, digest)
    return pinned
