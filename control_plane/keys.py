"""Where each thing lives in the store. Each key has one kind of writer, named in the comments."""

from manifests.base import Metadata
from manifests.configs import Config
from manifests.settings import ClusterMetadata, NamespaceMetadata
from manifests.workloads import Document, Kind, Workload, WorkloadRef

ROOT = "/wherry/"

CLUSTER = "/wherry/desired/cluster"  # the first server; a restore, or the server that notices one, for its generation
RESTORING = "/wherry/restoring"  # while a snapshot is being restored: no server may start
WORKLOADS = "/wherry/desired/workloads/"  # users; jobs of a CronJob: the leader too
VERSIONS = "/wherry/desired/versions/"  # who writes the workload; deleted by the leader
CONFIGS = "/wherry/desired/configs/"  # users
CONFIG_VERSIONS = "/wherry/desired/configVersions/"  # users; deleted by the leader
ALLOCATIONS = "/wherry/desired/allocations/"  # the leader
NODE_INTENTS = "/wherry/desired/nodes/"  # users
SETTINGS = "/wherry/desired/settings/"  # users
MOVES = "/wherry/desired/moves/"  # users; deleted by the leader once they are done
FREEZE = "/wherry/desired/freeze"  # users; while it is there the leader only looks
TOKENS = "/wherry/desired/tokens/"  # servers
DELETIONS = "/wherry/desired/deletions/"  # users, with what they delete; deleted by the leader once it is told
NODES = "/wherry/observed/nodes/"  # the server that holds the node's session; once it is silent, the leader
BRAKE = "/wherry/observed/brake"  # the leader
STATUSES = "/wherry/observed/allocations/"  # the server that holds the node's session; deleted with the desired one
WORKLOAD_STATUSES = "/wherry/observed/workloads/"  # the leader
CRON_STATES = "/wherry/observed/cronjobs/"  # the leader
ENDED = "/wherry/observed/ended/"  # the leader: what is kept of allocations that are gone
EVENTS = "/wherry/observed/events/"  # the leader
SERVERS = "/wherry/servers/"  # each server its own, on its lease
LEADER = "/wherry/leader"  # the election


_PARTS = {  # how many a key has after its prefix, for tables of which code takes ids apart
    WORKLOADS: 3,
    VERSIONS: 4,
    CONFIGS: 2,
    CONFIG_VERSIONS: 3,
    SETTINGS: 2,
    ALLOCATIONS: 2,
    MOVES: 1,
    STATUSES: 2,
    WORKLOAD_STATUSES: 3,
    CRON_STATES: 3,
    ENDED: 4,
    EVENTS: 4,
    DELETIONS: 3,
}


def is_well_formed(prefix: str, key: str) -> bool:
    """Say whether a record under that prefix can have that key at all.

    >>> is_well_formed(WORKLOADS, WORKLOADS + "default/service/web"), is_well_formed(WORKLOADS, WORKLOADS + "web")
    (True, False)
    """
    parts = key.removeprefix(prefix).split("/")
    ends_well = parts[-1].isdecimal() if prefix in (VERSIONS, CONFIG_VERSIONS) else True
    return ends_well and len(parts) == _PARTS.get(prefix, len(parts))


def workload_id(namespace: str, kind: str, name: str) -> str:
    """Return what workload keys end with: `default/service/web`."""
    return f"{namespace}/{kind.lower()}/{name}"


def id_of_ref(ref: WorkloadRef) -> str:
    return workload_id(ref.namespace, ref.kind, ref.name)


def id_of_metadata(kind: str, metadata: Metadata | NamespaceMetadata | ClusterMetadata) -> str:
    return workload_id(metadata.namespace, kind, metadata.name)


def key_of(document: Document) -> str:
    """Return where the record of what a manifest describes lives."""
    if isinstance(document, Workload):
        return WORKLOADS + id_of_metadata(document.kind, document.metadata)
    if isinstance(document, Config):
        return CONFIGS + config_id(document.metadata.namespace, document.metadata.name)
    return SETTINGS + settings_id(document.kind, document.metadata.name)


def version_id(workload: str, version: int) -> str:
    """Return what version keys end with; eight digits keep them in order."""
    return f"{workload}/{version:08d}"


def config_id(namespace: str, name: str) -> str:
    """Return what config keys end with: `default/site`."""
    return f"{namespace}/{name}"


def settings_id(kind: str, name: str) -> str:
    """Return what keys of settings end with: `namespace/batch`, `cluster/cluster`."""
    return f"{kind.lower()}/{name}"


def settings_place(settings: str) -> str:
    """Return where the events of the settings of that id are: `-/namespace/batch`."""
    return f"-/{settings}"


def config_version_id(config: str, version: int) -> str:
    return f"{config}/{version:08d}"


def placed_id(node: str, allocation: str) -> str:
    """Return what the keys of an allocation end with, desired and observed."""
    return f"{node}/{allocation}"


def node_place(node: str) -> str:
    """Return where the events of a node are, among those of workloads: no namespace is named `-`."""
    return f"-/node/{node}"


def config_place(config: str) -> str:
    """Return where the events of the config of that id are: `default/config/site`."""
    return config.replace("/", "/config/", 1)


def server_place(server: str) -> str:
    return f"-/server/{server}"


def cluster_place(what: str) -> str:
    """Return what the keys of events end with that concern the cluster as a whole."""
    return f"-/cluster/{what}"


def place_of(record_id: str) -> str:
    """Return the workload or place that a key of an event or an ended allocation is of.

    >>> place_of("default/service/web/placed-1f3a9c2e")
    'default/service/web'
    """
    return record_id.rpartition("/")[0]


KINDS: dict[str, Kind] = {kind.lower(): kind for kind in Kind}
