"""Small records that only servers read and write."""

from enum import StrEnum

from pydantic import Field

from manifests.base import Model, Timestamp


class ClusterRecord(Model):
    """The cluster's identity, made once by the first server. An agent obeys only the cluster that it joined.

    `generation` rises when a snapshot is restored: then revisions begin anew, and an agent obeys only the newest.
    """

    id: str
    generation: int = 1
    created_s: Timestamp = Field(alias="createdAt")


class ServerRecord(Model):
    """A server that is alive, as far as its lease tells. `id` is new at each start, `name` stays."""

    id: str
    name: str
    url: str  # where other servers reach its API
    version: str
    started_s: Timestamp = Field(alias="startedAt")


class LeaderRecord(Model):
    server: str


class Role(StrEnum):
    ADMIN = "admin"
    NODE = "node"  # may open a session, nothing else


class TokenRecord(Model):
    """A bearer token, known only by its SHA-256."""

    sha256: str
    role: Role
    created_s: Timestamp = Field(alias="createdAt")


class FreezeRecord(Model):
    """Somebody's wish that the cluster is left as it is; there is none where it isn't frozen."""

    by: str  # the role of the token
    reason: str = ""
    since_s: Timestamp = Field(alias="since")
