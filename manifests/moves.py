"""Moves that somebody wants made: an allocation is fine where it is, and something is better if it is elsewhere."""

from typing import Annotated

from pydantic import Field

from manifests.base import Model, Timestamp
from manifests.workloads import WorkloadRef

MOST_MOVES = 100  # at once


class MoveOrder(Model):
    """One move as it was planned: of this allocation, from the node that it is on, preferably to that one."""

    allocation: Annotated[str, Field(min_length=1, max_length=300)]
    from_node: Annotated[str, Field(alias="from", min_length=1, max_length=300)]
    to_node: Annotated[str, Field(alias="to", min_length=1, max_length=300)]
    why: Annotated[str, Field(max_length=500)] = ""


class MoveRecord(Model):
    """A mark on an allocation that is to be moved. Written by users; it goes when it is done, or matters no more."""

    allocation: str
    workload: WorkloadRef
    version: int
    from_node: str
    to_node: str
    why: str = ""
    changed_by: str = ""  # who wants it, in words
    since_s: Timestamp = Field(alias="since")

    def sentence(self) -> str:
        return f"it moves to {self.to_node}" + (f": {self.why}" if self.why else "")
