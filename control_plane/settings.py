"""What holds for a workload by its own words, by the settings of its namespace, and by those of the cluster. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from control_plane import keys
from control_plane.state import ClusterState
from manifests.placement import Policy
from manifests.settings import Cluster, Namespace, Settings
from manifests.workloads import WorkloadRecord

CLUSTER_ID = keys.settings_id("Cluster", "cluster")


class Whose(StrEnum):
    """Whose word it is that holds."""

    WORKLOAD = "workload"
    NAMESPACE = "namespace"
    CLUSTER = "cluster"
    DEFAULT = "default"  # nobody has said anything

    @property
    def words(self) -> str:
        """Return it as an owner: `preempts is false (the cluster's)`."""
        return "its own" if self is Whose.WORKLOAD else f"the {self}'s"


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for one workload, and whose word each is."""

    policy: Policy
    policy_of: Whose
    preempts: bool
    preempts_of: Whose


def rules_of(state: ClusterState, record: WorkloadRecord) -> Rules:
    """Return what holds for it: the nearest word on the policy counts, and anybody may forbid it to evict others."""
    spec, cluster = record.workload.spec, cluster_settings(state)
    if spec.placement.policy is not None:
        policy, whose = spec.placement.policy, Whose.WORKLOAD
    elif cluster is not None:
        policy, whose = cluster.spec.policy, Whose.CLUSTER
    else:
        policy, whose = Policy.PACK, Whose.DEFAULT
    forbids = next(_who_forbids(state, record), None)
    return Rules(policy, whose, forbids is None, forbids or Whose.DEFAULT)


def _who_forbids(state: ClusterState, record: WorkloadRecord) -> Iterator[Whose]:
    """Yield who won't have it evict others. Settings that can't be read may say so, and an eviction can't be undone."""
    if not record.workload.spec.preempts:
        yield Whose.WORKLOAD
    for id_, whose in zip(settings_ids(record.ref.namespace), (Whose.NAMESPACE, Whose.CLUSTER), strict=True):
        stored = state.settings.get(id_)
        if state.is_unreadable(keys.SETTINGS + id_) or (stored and not stored.settings.spec.preempts):
            yield whose


def settings_ids(namespace: str) -> tuple[str, str]:
    """Return the ids of all settings that hold for what is in the namespace: its own, and the cluster's."""
    return keys.settings_id("Namespace", namespace), CLUSTER_ID


def cluster_settings(state: ClusterState) -> Cluster | None:
    found = _settings(state, CLUSTER_ID)
    return found if isinstance(found, Cluster) else None


def namespace_settings(state: ClusterState, name: str) -> Namespace | None:
    found = _settings(state, keys.settings_id("Namespace", name))
    return found if isinstance(found, Namespace) else None


def _settings(state: ClusterState, id_: str) -> Settings | None:
    record = state.settings.get(id_)
    return record.settings if record else None
