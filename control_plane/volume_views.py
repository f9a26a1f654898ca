"""What the API shows of named volumes."""

from control_plane import keys
from control_plane.state import ClusterState
from control_plane.views import View
from manifests.workloads import named_volumes


def volumes(state: ClusterState, namespace: str | None = None) -> list[View]:
    """Return the volumes that nodes keep, by name, and by node where several have one."""
    kept = sorted((volume, node.facts.name) for node in state.nodes.values() for volume in node.facts.volumes)
    views = []
    for volume, node in kept:
        space, _, name = volume.partition("/")
        if namespace in (None, space):
            view = {"kind": "Volume", "namespace": space, "name": f"{node}/{name}", "node": node}
            views.append({**view, "users": users(state, node, volume)})
    return views


def users(state: ClusterState, node: str, volume: str) -> list[str]:
    """Return the allocations on the node that have the volume, also those that have ended and are still desired."""
    found = []
    for allocation in state.allocations_on(node):
        id_ = keys.version_id(keys.id_of_ref(allocation.workload), allocation.version)
        version = state.versions.get(id_)
        if version is not None and volume in named_volumes(version.workload, allocation.index):
            found.append(allocation.id)
    return sorted(found)
