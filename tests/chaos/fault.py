"""A fault: what was broken, when, and what that may do to nodes and containers."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import TypeAlias

from tests.lab.chronicle import Chronicle
from tests.lab.cluster import Cluster, Daemon

NONE: frozenset[str] = frozenset()
LOST_S = 3.0  # a node that was away for longer may be called lost: half the servers' patience, for busy machines


@dataclass(frozen=True, slots=True)
class Effect:
    """What a fault hit, for people, and which nodes it excuses for what."""

    target: str
    touches: frozenset[str] = NONE  # where starts may fail and come again
    silences: frozenset[str] = NONE  # which may be called lost, if it lasted long enough
    ends: frozenset[str] = NONE  # whose containers may end, though nobody ordered it
    freezes: frozenset[str] = NONE  # which stand still as a whole: no software on them can help it


@dataclass(frozen=True, slots=True)
class Fault:
    """One that was made. `healed_s` is infinite until it is healed."""

    kind: str
    effect: Effect
    began_s: float
    healed_s: float = float("inf")
    is_paired: bool = False  # another one was made at the same time

    @property
    def silences(self) -> frozenset[str]:
        """Return the nodes that may be called lost: none if it was short."""
        return self.effect.silences if self.healed_s - self.began_s >= LOST_S else NONE


@dataclass(frozen=True, slots=True)
class Lab:
    """What is there to break."""

    cluster: Cluster
    chronicle: Chronicle
    rng: Random
    spared: frozenset[str] = NONE  # nodes that another fault has hit that lasts still

    def some_agent(self) -> Daemon:
        return self.rng.choice([agent for agent in self.cluster.agents if agent.host.name not in self.spared])


class Part(StrEnum):
    """What a kind of fault takes away. tests.chaos.pairs says which of them may be taken at once."""

    SERVER = "a server"
    MEMBER = "a member of etcd"
    STORE = "etcd as a whole"
    NODE = "a node"
    IDENTITY = "the one agent of a name"


Make: TypeAlias = Callable[[Lab, float], AbstractAsyncContextManager[Effect]]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault. `make` breaks on entry and heals on exit, so many seconds later."""

    name: str
    make: Make
    hold_s: tuple[float, float]
    takes: Part
    node: str = ""  # the one that it always hits


def node_away(node: str, how: str) -> Effect:
    """Return the effect of a node that can't be heard."""
    return Effect(f"{node}, {how}", touches=frozenset({node}), silences=frozenset({node}))
