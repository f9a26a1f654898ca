"""Nodes: what operators want of one, and what its agent and the servers observe."""

from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field

from manifests.allocations import Allocation
from manifests.base import LabelKey, Labels, Model, Text, Timestamp
from manifests.containers import NodeResources
from manifests.taints import parse_taint


def _checked_taint(text: str) -> str:
    return str(parse_taint(text))


class NodeIntent(Model):
    """What operators want of a node. Written through the API alone; a node without one is simply in use."""

    name: str
    labels: Labels = Field(default_factory=dict)  # on top of those that its agent was started with
    is_cordoned: bool = Field(False, alias="cordoned")
    is_draining: bool = Field(False, alias="draining")
    drain_deadline_s: float | None = Field(None, alias="drainDeadline")  # how long it may take; then all is stopped
    taints: tuple[Annotated[str, AfterValidator(_checked_taint)], ...] = ()  # each `key=value:effect`
    released: int = 0  # what the node keeps from before that generation may be stopped
    metadata: dict[LabelKey, Text] = Field(default_factory=dict)  # for people; nothing is decided by it
    confirmed_lost: int | None = None  # an operator says that it is lost, in the silence recorded at that revision
    changed_by: str = ""  # who made the last change, in words


class Liveness(StrEnum):
    READY = "ready"  # a server holds its session
    SUSPECT = "suspect"  # silent for a while: takes nothing new, and what runs there counts as running
    LOST = "lost"  # silent for too long


class NodeFacts(Model):
    """What an agent tells of its node when it registers."""

    name: str
    agent_id: str  # of the agent's data folder: two agents of one name differ in it
    boot_id: str
    agent_version: str
    address: str = ""  # where its published ports answer
    labels: Labels = Field(default_factory=dict)
    attributes: dict[str, str] = Field(default_factory=dict)  # arch, os, kernel, hostname, driver, driver.version, ...
    capacity: NodeResources
    allocatable: NodeResources
    devices: dict[str, tuple[str, ...]] = Field(default_factory=dict)  # the instances of each kind
    volumes: tuple[str, ...] = ()  # the named volumes that it keeps, each with its namespace before it


class NodeStatus(Model):
    """A node as observed. Written by the server that holds its session; once it is silent, by the leader."""

    facts: NodeFacts
    liveness: Liveness
    server: str  # the server that holds, or last held, the session
    session: int  # rises with each new session of this node: only the newest may write
    message: str = ""  # why it is silent, where that is known
    silent_s: float = Field(0.0, alias="silentFor")  # how long nothing was heard of it, when it was marked so
    trouble: str = ""  # what keeps it from starting containers, e.g. that its container manager doesn't answer
    kept: tuple[Allocation, ...] = ()  # what runs there from before a restore, and the restored state doesn't know
    changed_s: Timestamp = Field(alias="changedAt")

    def silence(self) -> str:
        """Return how long it was silent when it was marked suspect or lost, and why, if that is known."""
        return f"silent for {self.silent_s:.0f}s" + (f": {self.message}" if self.message else "")
