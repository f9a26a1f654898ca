"""What the API shows of settings, and of namespaces, which are there as soon as anything is in them."""

from collections import Counter
from typing import Any

from control_plane import keys
from control_plane.settings import CLUSTER_ID, cluster_settings, namespace_settings
from control_plane.state import ClusterState
from manifests.base import render_timestamp
from manifests.settings import Cluster, ClusterMetadata, Namespace, NamespaceMetadata, Settings

View = dict[str, Any]


def namespaces(state: ClusterState) -> list[View]:
    """Return those that hold anything, or have settings, by name."""
    return [_namespace(state, name, workloads, configs) for name, (workloads, configs) in _known(state).items()]


def namespace(state: ClusterState, name: str) -> View | None:
    known = _known(state).get(name)
    return _namespace(state, name, *known) if known else None


def cluster(state: ClusterState) -> View:
    """Return the cluster's settings, or the defaults."""
    found = cluster_settings(state)
    default = Cluster(api_version="wherry/v1", kind="Cluster", metadata=ClusterMetadata(name="cluster"))
    return _shown(state, CLUSTER_ID, found or default)


def _known(state: ClusterState) -> dict[str, tuple[int, int]]:
    workloads = Counter(id_.partition("/")[0] for id_ in state.workloads.ids())
    configs = Counter(id_.partition("/")[0] for id_ in state.configs.ids())
    with_settings = {id_.partition("/")[2] for id_ in state.settings.ids() if id_ != CLUSTER_ID}
    return {name: (workloads[name], configs[name]) for name in sorted({*workloads, *configs, *with_settings})}


def _namespace(state: ClusterState, name: str, workloads: int, configs: int) -> View:
    found = namespace_settings(state, name)
    default = Namespace(api_version="wherry/v1", kind="Namespace", metadata=NamespaceMetadata(name=name))
    shown = _shown(state, keys.settings_id("Namespace", name), found or default)
    return {**shown, "workloads": workloads, "configs": configs}


def _shown(state: ClusterState, id_: str, settings: Settings) -> View:
    stored = state.settings.stored(id_)
    return {
        "kind": settings.kind,
        "name": settings.metadata.name,
        **settings.spec.model_dump(mode="json"),
        "hasSettings": stored is not None,
        "createdAt": render_timestamp(stored.value.created_s) if stored else None,
        "changedBy": stored.value.changed_by if stored else "",
        "revision": stored.modified_at if stored else 0,
        "manifest": settings.model_dump(mode="json"),
    }
