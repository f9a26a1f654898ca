"""How things stood at earlier revisions: what a decision is judged by, since it was made before it was written."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from control_plane.store.protocol import Revision
from manifests.allocations import Allocation
from manifests.nodes import Liveness, NodeIntent, NodeStatus
from manifests.workloads import WorkloadRecord
from tests.invariants.steps import Step

T = TypeVar("T")
MOST_GUESSES = 300  # revisions at which a decision may have been made, where that isn't known


class Trails(Generic[T]):
    """The values of many records over time, each from the revision at which it came to be so."""

    def __init__(self) -> None:
        self._trails: dict[str, tuple[list[int], list[T | None]]] = {}

    def note(self, id_: str, revision: int, value: T | None) -> None:
        revisions, values = self._trails.setdefault(id_, ([], []))
        if revisions and revisions[-1] == revision:
            values[-1] = value
        else:
            revisions.append(revision)
            values.append(value)

    def at(self, id_: str, revision: int) -> T | None:
        revisions, values = self._trails.get(id_, ([], []))
        number = bisect_right(revisions, revision)
        return values[number - 1] if number else None

    def all_at(self, revision: int) -> Iterator[tuple[str, T]]:
        for id_ in self._trails:
            value = self.at(id_, revision)
            if value is not None:
                yield id_, value


@dataclass(frozen=True, slots=True)
class NodeThen:
    """A node, and how much was free of what it offers."""

    status: NodeStatus
    intent: NodeIntent | None
    cpu_m: int
    memory_bytes: int
    pids: int
    ports: frozenset[tuple[int, str]]

    @property
    def is_lost(self) -> bool:
        return self.status.liveness is Liveness.LOST

    @property
    def is_draining(self) -> bool:
        return self.intent is not None and self.intent.is_draining

    @property
    def is_cordoned(self) -> bool:
        return self.intent is not None and self.intent.is_cordoned

    @property
    def is_open(self) -> bool:
        is_ready = self.status.liveness is Liveness.READY and not self.status.trouble
        return is_ready and not self.is_draining and not self.is_cordoned


class Past:
    """Kept up by Records."""

    def __init__(self) -> None:
        self.allocations: Trails[Allocation] = Trails()
        self.ready: Trails[bool] = Trails()  # by allocation: whether its node says that it serves
        self.nodes: Trails[NodeThen] = Trails()
        self.workloads: Trails[WorkloadRecord] = Trails()
        self.decided: list[int] = []  # the revisions at which leaders wrote what they had decided

    def of_decision(self, step: Step) -> Sequence[int]:
        """Return at which revisions what is written now may have been decided: at one where that is known.

        A leader waits until it sees what it wrote before it decides anew. One decision may take two transactions.
        """
        if step.seen is not None:
            return (step.seen,)
        last = Revision(step.revision - 1)
        before = [revision for revision in self.decided[-3:] if revision < step.revision]
        first = before[-2] if len(before) > 1 else 1
        return range(max(first, last - MOST_GUESSES), last + 1)
