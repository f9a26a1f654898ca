"""Small records that only servers read and write."""

from collections.abc import Sequence
from enum import StrEnum

from pydantic import Field

from manifests.base import Model, Timestamp, render_timestamp

MOST_NAMED = 8


class ClusterRecord(Model):
    """The cluster's identity, made once by the first server. An agent obeys only the cluster that it joined."""

    id: str
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


class BrakeRecord(Model):
    """Too many nodes fell silent at once: none of them is called lost for a while. The times are for people."""

    nodes: tuple[str, ...]  # that fell silent together; some may be back, or confirmed to be lost
    there: int  # of so many
    since_s: Timestamp = Field(alias="since")
    until_s: Timestamp = Field(alias="until")


def brake_sentence(brake: BrakeRecord) -> str:
    """Return what the brake is and does, until when, and how to end it."""
    return (
        f"{len(brake.nodes)} of {brake.there} nodes fell silent at once ({_listed(brake.nodes)}): "
        f"so none is called lost and nothing is replaced until {render_timestamp(brake.until_s)}; "
        "if they are gone for good, run `wherry node confirm-lost --all`"
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_NAMED]) + (f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else "")
