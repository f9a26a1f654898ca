"""Which digest each image of a version has: the first that a node has found holds for all of the version's replicas."""

import re

from control_plane.state import ClusterState
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
    for allocation in state.allocations_of(workload):
        status, version = state.statuses.get(allocation.id), versions.get(allocation.version)
        if status is None or not status.images or version is None or status.workload.uid != record.uid:
            continue
        found, named = pinned.setdefault(allocation.version, {}), _images_of(version.workload)
        for image, digest in status.images.items():
            if image in named and _DIGEST.fullmatch(digest):  # other nodes are told: one node may slip in nothing else
                found.setdefault(image, digest)
    return {number: images for number, images in pinned.items() if images}


def _images_of(workload: Workload) -> set[str]:
    spec = workload.spec
    return {container.image for container in (*spec.members.values(), *spec.init_containers)}
