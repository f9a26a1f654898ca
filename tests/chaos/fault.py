"""A fault: what was broken, when, and what that may do to nodes and containers."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from random import Random
from typing import TypeAlias

from tests.lab.chronicle import Chronicle
from tests.lab.cluster import Cluster

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


Make: TypeAlias = Callable[[Lab, float], AbstractAsyncContextManager[Effect]]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault. `make` breaks on entry and heals on exit, so many seconds later."""

    name: str
    make: Make
    hold_s: tuple[float, float]


def node_away(node: str, how: str) -> Effect:
    """Return the effect of a node that can't be heard."""
    return Effect(f"{node}, {how}", touches=frozenset({node}), silences=frozenset({node}))
