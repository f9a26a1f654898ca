"""L11: what is left of deleted workloads in the store, and on the simulated hosts: state files and guards."""

from collections.abc import Iterator

from pydantic import ValidationError

from agent.state_file import STATE_FILE, SavedState
from control_plane import keys
from tests.invariants.leftovers import left_keys, left_on_host
from tests.invariants.records import Records
from tests.invariants.steps import Breach
from tests.simulation.cluster import Cluster, NodeHost
from tests.simulation.etcd import entries_of


def left_of_deleted(cluster: Cluster, records: Records) -> list[Breach]:
    """Return what is there still when all is quiet. Left containers are L3's."""
    stored = (entry.key for entry in entries_of(cluster.etcd, keys.ROOT))
    found = list(left_keys((key for key in stored if key not in cluster.unreadable), records.workloads))
    for name, node in cluster.nodes.items():
        found += left_on_host(name, _kept_by(node), records.allocations)
    return found


def _kept_by(node: NodeHost) -> Iterator[tuple[str, str]]:
    """Yield what its host keeps of allocations: what of each, and its id."""
    for lease in node.guard.leases:
        yield "the guard's lease", lease.of
    try:
        state = SavedState.read(node.folder.read(STATE_FILE))
    except (FileNotFoundError, ValidationError):
        return
    for saved in state.allocations:
        yield "the state file's entry", saved.status.id
