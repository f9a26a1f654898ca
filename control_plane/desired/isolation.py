"""Whether a namespace lets its workloads go as far out of their boxes as they ask. Pure.

It is the first gate; the second one is each node's own (agent/admission.py), which nobody here can open.
"""

from collections.abc import Iterator, Sequence

from control_plane import keys
from control_plane.settings import namespace_settings
from control_plane.state import ClusterState
from manifests.containers import ContainerSpec
from manifests.errors import ForbiddenError
from manifests.settings import Isolation, Namespace
from manifests.workloads import Document, Workload, WorkloadSpec


def check_isolation(state: ClusterState, documents: Sequence[Document]) -> None:
    """Raise ForbiddenError for the first workload that goes further than its namespace lets it.

    What the same documents say of a namespace counts already.
    """
    said = {d.metadata.name: d.spec.isolation for d in documents if isinstance(d, Namespace)}
    for workload in documents:
        if isinstance(workload, Workload):
            namespace = workload.metadata.namespace
            level = said.get(namespace) or isolation_of(state, namespace)
            if faults := list(_beyond(workload.spec, level)):
                raise ForbiddenError(
                    f"{workload.kind.lower()} {workload.metadata.name} may not run in namespace {namespace}",
                    why=f"isolation there is {level}: {'; '.join(faults)}",
                    fix="Leave it out, or apply a Namespace with another isolation (docs/isolation.md).",
                )


def isolation_of(state: ClusterState, namespace: str) -> Isolation:
    """Return what holds there. Settings that can't be read may be the strictest."""
    if state.is_unreadable(keys.SETTINGS + keys.settings_id("Namespace", namespace)):
        return Isolation.RESTRICTED
    settings = namespace_settings(state, namespace)
    return settings.spec.isolation if settings else Isolation.BASELINE


def _beyond(spec: WorkloadSpec, level: Isolation) -> Iterator[str]:
    """Yield what the level doesn't allow."""
    if level is Isolation.PRIVILEGED:
        return
    if permissions := spec.all_permissions():
        yield f"it needs {' and '.join(permissions)}"
    if level is Isolation.BASELINE:
        return
    if spec.network == "host":
        yield "it uses the host's network"
    containers = {**spec.members, **{init.name: init for init in spec.init_containers}}
    for name, container in containers.items():
        yield from (f"container {name} {fault}" for fault in _unrestricted(container))


def _unrestricted(container: ContainerSpec) -> Iterator[str]:
    if container.user.partition(":")[0] in ("", "root") or not container.user.partition(":")[0].strip("0"):
        yield "needs a `user` that isn't root"
    if container.capabilities is None or "ALL" not in container.capabilities.drop:
        yield "must have capabilities: {drop: [ALL]}"
    if not container.read_only_root:
        yield "must have readOnlyRoot: true"
