"""What must hold of the containers that really run, compared with what the store says at that moment."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from agent.ownership import ALLOCATION, ATTEMPT, CONTAINER
from control_plane import keys
from manifests.allocations import Desired
from manifests.workloads import MAIN, JobSpec, Kind
from tests.invariants.records import Records
from tests.invariants.steps import Breach

MOST_STARTS = 10
MOST_STARTS_OF_SLOT = 20  # in how many allocations ever
WINDOW_S = 60.0


@dataclass(frozen=True, slots=True)
class Running:
    """A container that runs, by its labels."""

    node: str
    container: str
    allocation: str
    attempt: int
    name: str = MAIN  # which of a group


class RunningChecker:
    """Hears of each start, end and order. `is_ours` says whether a node sealed these labels."""

    def __init__(self, records: Records, is_ours: Callable[[str, Mapping[str, str]], bool]) -> None:
        self._records, self._is_ours = records, is_ours
        self.running: dict[tuple[str, str], Running] = {}
        self._succeeded: set[str] = set()  # allocations of jobs of which a container has ended well
        self._starts: defaultdict[tuple[str, str], deque[float]] = defaultdict(deque)

    def started(self, node: str, container: str, labels: Mapping[str, str], now_s: float) -> Iterator[Breach]:
        if not self._is_ours(node, labels):
            return
        new = Running(node, container, labels[ALLOCATION], int(labels[ATTEMPT]), labels.get(CONTAINER, MAIN))
        yield from self._twice(new)
        yield from self._again(new)
        yield from self._too_often(new, now_s)
        self.running[node, container] = new

    def forget_starts(self, node: str) -> None:
        """The node's agent has lost what it knew, and so how often it has tried."""
        for allocation, name in list(self._starts):
            known = self._records.ever.get(allocation)
            if known is not None and known.node == node:
                del self._starts[allocation, name]

    def ended(self, node: str, container: str, exit_code: int | None, cause: str) -> None:
        was = self.running.pop((node, container), None)
        if was is not None and cause == "exit" and exit_code == 0:
            self._succeeded.add(was.allocation)

    def _twice(self, new: Running) -> Iterator[Breach]:
        """S3: an allocation runs once, each container of a group; two that are both wanted, or under stopAfter, never
        run for the same index.
        """
        slot = self._slot(new.allocation)
        for other in self.running.values():
            if other.allocation == new.allocation and other.name != new.name:
                continue
            if other.allocation == new.allocation:
                if other.name != new.name:
                    continue
                attempts = f"{other.attempt} and {new.attempt}"
                yield Breach("S3", f"{new.allocation} runs twice on {new.node}, as attempts {attempts}")
            elif slot is not None and self._slot(other.allocation) == slot and self._clash(new, other):
                yield Breach("S3", f"{new.allocation} and {other.allocation} run for one index")

    def _again(self, new: Running) -> Iterator[Breach]:
        """S11, S7: what has ended for good, as far as any server was told, never runs again."""
        status = self._records.statuses.get(new.allocation)
        if status is not None and status.is_terminal:
            yield Breach("S11", f"{new.allocation} was started on {new.node}, and is {status.phase} for all to see")

    def _too_often(self, new: Running, now_s: float) -> Iterator[Breach]:
        """L10: what fails is tried again at most so often, in place and elsewhere."""
        slot = self._slot(new.allocation)
        for what in (new.allocation, f"slot {slot[1]} of {slot[0]}" if slot else "nobody's"):
            starts = self._starts[what, new.name]
            starts.append(now_s)
            while starts[0] < now_s - WINDOW_S:
                starts.popleft()
            if len(starts) > (MOST_STARTS if what == new.allocation else MOST_STARTS_OF_SLOT):
                yield Breach("L10", f"{what} was started {len(starts)} times within {WINDOW_S:g} s")

    def ordered(
        self, kind: str, node: str, labels: Mapping[str, str], *, is_running: bool, is_excused: bool
    ) -> Iterator[Breach]:
        """S9: an agent stops and removes only what it has sealed. S10: what runs and is wanted is not stopped.

        `is_excused`: the spec itself orders it, as a failed liveness check, a job's timeout, or a group's end do.
        """
        if not self._is_ours(node, labels):
            yield Breach("S9", f"the agent of {node} would {kind} a container that isn't its own: {dict(labels)}")
        elif (
            is_running
            and not (is_excused or self._is_at_most_once(labels[ALLOCATION]))
            and self._is_wanted(labels[ALLOCATION])
        ):
            yield Breach("S10", f"the agent of {node} would {kind} {labels[ALLOCATION]}, which nobody ordered")

    def unwanted(self) -> Iterator[Breach]:
        """L3: each container that runs has a desired allocation, on its node."""
        for one in self.running.values():
            allocation = self._records.allocations.get(one.allocation)
            if allocation is None or allocation.desired is not Desired.RUN or allocation.node != one.node:
                yield Breach("L3", f"{one.allocation} runs on {one.node}, and isn't wanted there")

    def of(self, allocation: str) -> list[Running]:
        return [one for one in self.running.values() if one.allocation == allocation]

    def has_timeout(self, allocation: str) -> bool:
        known = self._records.ever.get(allocation)
        version = None
        if known is not None and known.workload.kind is Kind.JOB:
            version = self._records.versions.get(keys.version_id(keys.id_of_ref(known.workload), known.version))
        spec = version.workload.spec if version else None
        return isinstance(spec, JobSpec) and spec.timeout_s is not None

    def _clash(self, new: Running, other: Running) -> bool:
        are_wanted = all(self._is_wanted(one.allocation) for one in (new, other))
        return are_wanted or self._is_at_most_once(other.allocation)

    def _is_at_most_once(self, allocation: str) -> bool:
        known = self._records.ever.get(allocation)
        return known is not None and self._records.is_at_most_once(known)

    def _is_wanted(self, allocation: str) -> bool:
        known = self._records.allocations.get(allocation)
        return known is not None and known.desired is Desired.RUN

    def _slot(self, allocation: str) -> tuple[str, int] | None:
        known = self._records.ever.get(allocation)
        return (known.workload.uid, known.index) if known else None
