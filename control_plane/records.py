"""Small records that only servers read and write."""

from collections.abc import Sequence
from enum import StrEnum

from pydantic import Field

from manifests.allocations import Ending
from manifests.base import Model, Timestamp, render_timestamp
from manifests.workloads import WorkloadRef

MOST_NAMED = 8


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
    name: str = ""  # the server that made it
    created_s: Timestamp = Field(alias="createdAt")


class FreezeRecord(Model):
    """Somebody's wish that the cluster is left as it is; there is none where it isn't frozen."""

    by: str  # who, in words
    reason: str = ""
    since_s: Timestamp = Field(alias="since")


class DeletionRecord(Model):
    """That a user deleted something, or did what leaves no other record, until the leader has told it as an event."""

    place: str
    reason: str = "deleted"
    message: str = ""  # of what isn't a deletion
    allocation: str = ""
    changed_by: str = ""
    at_s: Timestamp = Field(alias="at")


class EventRecord(Model):
    """Something that happened, and how often: one record for all that counts as the same. Written by the leader."""

    subject: str  # service/web, node/n1, server/s1
    namespace: str = ""  # of a workload
    reason: str  # one word
    message: str  # of the newest time, in words
    allocation: str = ""  # which one it was about, the newest time
    by: str = ""  # who did it, in words
    revision: int  # of the change that was the newest time: what is older is counted
    count: int = 1
    first_s: Timestamp = Field(alias="firstAt")
    last_s: Timestamp = Field(alias="lastAt")


class EndedAllocation(Model):
    """What is kept of an allocation that is gone: how it ended, and why. Written by the leader as it removes it."""

    id: str
    workload: WorkloadRef
    version: int
    index: int
    node: str
    phase: str  # how it was seen last: stopped, succeeded or failed; lost: its node went with it
    stop_reason: str = ""
    last_ending: Ending | None = None
    restarts: int = 0
    replaces: str | None = None
    created_s: Timestamp = Field(alias="createdAt")
    started_s: Timestamp | None = Field(None, alias="startedAt")
    finished_s: Timestamp = Field(alias="finishedAt")  # or, where nobody saw its end, when it was removed

    @property
    def has_failed(self) -> bool:
        return self.phase in ("failed", "lost")


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
