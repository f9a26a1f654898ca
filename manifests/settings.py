"""Settings that hold for many workloads: those of a namespace, and of the cluster. Neither needs to be there."""

from enum import StrEnum
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from manifests.base import Flag, Labels, Model, Name, Timestamp
from manifests.placement import Policy

NOWHERE = "-"  # stands for a namespace where there is none: no namespace has this name


class _Named(Model):
    labels: Labels = Field(default_factory=dict)

    @property
    def namespace(self) -> str:
        return NOWHERE


class NamespaceMetadata(_Named):
    name: Name


class ClusterMetadata(_Named):
    name: Literal["cluster"]


class Isolation(StrEnum):
    """How far a container may go out of its box: docs/isolation.md."""

    RESTRICTED = "restricted"  # a user other than root, no capabilities but what is added, a read-only root
    BASELINE = "baseline"  # the safe defaults: nothing that needs a permission
    PRIVILEGED = "privileged"  # whatever its node allows


class NamespaceSpec(Model):
    preempts: Flag = True  # false: nothing of it has others evicted
    isolation: Isolation = Isolation.BASELINE


class ClusterSpec(Model):
    policy: Policy = Policy.PACK  # of workloads that say nothing of it
    preempts: Flag = True  # false: nobody has others evicted


class Namespace(Model):
    api_version: Literal["wherry/v1"]
    kind: Literal["Namespace"]
    metadata: NamespaceMetadata
    spec: NamespaceSpec = NamespaceSpec()


class Cluster(Model):
    api_version: Literal["wherry/v1"]
    kind: Literal["Cluster"]
    metadata: ClusterMetadata
    spec: ClusterSpec = ClusterSpec()


Settings: TypeAlias = Namespace | Cluster


class SettingsRecord(Model):
    """Settings as the store keeps them."""

    created_s: Timestamp = Field(alias="createdAt")
    settings: Annotated[Settings, Field(discriminator="kind")]
    changed_by: str = ""  # who made the last change, in words
