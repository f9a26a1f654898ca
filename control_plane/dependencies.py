"""What a workload is to start after (`startAfter`): what of it doesn't hold yet, in sentences, and cycles among it.

Reads the watch cache between awaits. A workload that waits for another of the same namespace names it by its kind.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from control_plane import keys, views
from control_plane.state import ClusterState
from manifests.errors import InvalidError
from manifests.policies import DependencySpec
from manifests.workloads import CronJob, Workload, WorkloadRecord

Edges = Callable[[str], Iterable[str]]


def dependencies_of(workload: Workload) -> dict[str, DependencySpec]:
    """Return what it is to start after, by the id of that workload."""
    namespace = workload.metadata.namespace
    return {keys.workload_id(namespace, d.kind, d.name): d for d in workload.spec.start_after}


def unmet(state: ClusterState, record: WorkloadRecord) -> tuple[str, ...]:
    """Return a sentence for each thing that it waits for; nothing if it may start, or has begun.

    A CronJob itself waits for nothing: its jobs do.
    """
    own = keys.id_of_ref(record.ref)
    if isinstance(record.workload, CronJob) or not record.workload.spec.start_after:
        return ()
    if any(a.workload.uid == record.uid for a in state.allocations_of(own)):
        return ()
    waits = {other: why for other, d in dependencies_of(record.workload).items() if (why := _lack(state, other, d))}
    if not waits:
        return ()
    if cycle := cycle_through(own, partial(_edges, state)):
        return (f"waits for ever, since {told(cycle)}",)
    return tuple(waits.values())


def _lack(state: ClusterState, other: str, dependency: DependencySpec) -> str:
    """Return why the dependency doesn't hold yet, "" if it does."""
    waits = f"waits for {dependency.kind} {dependency.name}"
    found = views.state_of(state, other)
    if found is None:
        return f"{waits}, which doesn't exist"
    if found == {"succeeded": "complete", "healthy": "healthy"}[dependency.wanted]:
        return ""
    if found == "failed":
        return f"{waits}, which failed"
    return f"{waits}, which is {found}"


def _edges(state: ClusterState, workload: str) -> Iterable[str]:
    record = state.workloads.get(workload)
    return dependencies_of(record.workload) if record else ()


def cycle_through(start: str, edges: Edges) -> tuple[str, ...]:
    """Return a way from a workload back to itself, both ends included; () if there is none."""
    came_from: dict[str, str] = {}
    waiting = [start]
    while waiting:
        here = waiting.pop(0)
        for other in edges(here):
            if other == start:
                way = [start, here]
                while way[-1] != start:
                    way.append(came_from[way[-1]])
                return tuple(reversed(way))
            if other not in came_from:
                came_from[other] = here
                waiting.append(other)
    return ()


def refuse_cycles(state: ClusterState, workloads: Sequence[Workload]) -> None:
    """Raise InvalidError if these workloads, with those that are there, would wait for each other in a circle."""
    applied = {keys.id_of_metadata(w.kind, w.metadata): w for w in workloads}

    def edges(workload: str) -> Iterable[str]:
        return dependencies_of(applied[workload]) if workload in applied else _edges(state, workload)

    for workload in applied:
        if cycle := cycle_through(workload, edges):
            raise InvalidError(
                f"{workload.partition('/')[2]} would never start",
                why=told(cycle),
                fix="Take one of them out of startAfter.",
            )


def told(cycle: tuple[str, ...]) -> str:
    """Return the cycle in words.

    >>> told(("default/service/web", "default/job/migrate", "default/service/web"))
    'service/web waits for job/migrate, which waits for service/web'
    """
    first, *others = (workload.partition("/")[2] for workload in cycle)
    return f"{first} waits for " + ", which waits for ".join(others)
