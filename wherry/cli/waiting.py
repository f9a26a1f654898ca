"""Waits until workloads are as they should be, and says meanwhile what they hang on.

Level-triggered: a change only wakes it, and then it looks at the whole of each workload afresh. Used by apply, scale
and delete.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

from manifests.errors import NotFoundError, TimedOutError, UnavailableError, WherryError
from wherry.cli.kinds import Workload
from wherry.cli.lookup import allocations_of
from wherry.cli.progress import Progress
from wherry.cli.tables import trouble_of
from wherry.cli.text import clean, plural, span
from wherry.cli.transport import Query, Transport
from wherry.cli.watching import Waker

LOOK_AGAIN_S = 2.0
SHORTEST_LOOK_S = 0.15
MOST_SHOWN = 8  # allocations of one workload that aren't well
TERMINAL = frozenset({"stopped", "succeeded", "failed"})
Item = Mapping[str, Any]


class Seen(NamedTuple):
    """How a workload stands: done or not, failed or not, and lines that tell it."""

    is_done: bool
    lines: tuple[str, ...]
    is_failed: bool = False


class Target(Protocol):
    """What is waited for."""

    @property
    def kind(self) -> str: ...
    @property
    def namespace(self) -> str: ...
    @property
    def name(self) -> str: ...


Looks = Mapping[Target, Callable[[], Seen]]  # how to find out how each stands


def wait_until_well(transport: Transport, workloads: Sequence[Workload], revision: int, timeout_s: float) -> None:
    """Return when all are healthy or complete, at that revision or later.

    Raises TimedOutError with what it hangs on, WherryError when a job has failed, NotFoundError when one is deleted.
    """

    def look(workload: Workload) -> Seen:
        query: Query = {"namespace": workload.namespace, "kind": workload.kind}
        answer = transport.get("/v1/workloads", query)
        if int(answer["revision"]) < revision:  # this server hasn't heard of our change yet
            return Seen(False, (f"{workload}: waiting for the server to catch up",))
        item = next((i for i in answer["items"] if i.get("name") == workload.name), None)
        if item is None:
            raise NotFoundError(f"{workload} was deleted meanwhile")
        return see(item, workload, lambda: allocations_of(transport, workload))

    wait(transport, {w: partial(look, w) for w in workloads}, timeout_s)


def wait_until_gone(transport: Transport, workloads: Sequence[Workload], timeout_s: float) -> None:
    """Return when nothing of the workloads runs any more. Raises TimedOutError with what is left."""

    wait(transport, {w: partial(see_gone, transport, w) for w in workloads}, timeout_s)


def see_gone(transport: Transport, workload: Workload) -> Seen:
    """Return whether the workload is gone, and what is left of it."""
    left = [a for a in allocations_of(transport, workload) if a.get("phase") not in TERMINAL]
    doing = "stopping"
    try:
        transport.get(workload.path)
        doing = "not deleted"
    except NotFoundError:
        jobs = _jobs_left(transport, workload) if workload.kind == "cronjob" else 0
        if jobs:
            return Seen(False, (f"{workload}: deleted, {plural(jobs, 'job')} of it left",))
        if not left:
            return Seen(True, (f"{workload}: gone",))
    first = f"{workload}: {doing}, {plural(len(left), 'allocation')} left"
    return Seen(False, (first, *(f"  {line_of(a)}" for a in left[:MOST_SHOWN])))


def _jobs_left(transport: Transport, cron: Workload) -> int:
    items = transport.get("/v1/workloads", {"namespace": cron.namespace, "kind": "job"})["items"]
    return sum(item.get("owner") == str(cron) for item in items)


def see(item: Item, workload: Workload, allocations: Callable[[], Sequence[Item]]) -> Seen:
    """Return how the workload stands. Its allocations are asked for only when something isn't well."""
    counts, state = item.get("counts") or {}, clean(item.get("state"))
    desired = counts.get("desired", 0)
    if workload.kind == "cronjob":
        return Seen(state != "progressing", (f"{workload}: {state}",))
    if workload.kind == "job":
        progress = f"{counts.get('succeeded', 0)}/{desired} succeeded, {counts.get('running', 0)} running"
    else:
        progress = f"{counts.get('ready', 0)}/{desired} ready, {counts.get('updated', 0)}/{desired} up to date"
    first = f"{workload}: {state}, {progress}"
    if state in ("healthy", "complete"):
        return Seen(True, (first,))
    lines = [first, *(f"  {clean(line)}" for line in _said_of(item))]
    unwell = [a for a in allocations() if is_unwell(a)]
    lines += [f"  {line_of(a)}" for a in unwell[:MOST_SHOWN]]
    if len(unwell) > MOST_SHOWN:
        lines.append(f"  and {len(unwell) - MOST_SHOWN} more")
    return Seen(False, tuple(lines), is_failed=state == "failed")


def is_unwell(allocation: Item) -> bool:
    """Say whether the allocation holds its workload up or has ended badly."""
    if allocation.get("desired") == "stop":
        return False
    if allocation.get("phase") == "succeeded":
        return False
    return allocation.get("phase") != "running" or allocation.get("health") != "healthy"


def line_of(allocation: Item) -> str:
    """Return where an allocation stands, and how its last attempt ended."""
    phase, health = clean(allocation.get("phase")), clean(allocation.get("health"))
    text = f"{clean(allocation.get('id'))} on {clean(allocation.get('node'))}: {phase}"
    if phase == "running" and health != "healthy":
        text += ", not checked yet" if health == "unknown" else f", {health}"
    trouble = trouble_of(allocation)
    return f"{text}, {trouble}" if trouble else text


def _said_of(item: Item) -> list[str]:
    lines = list(item.get("messages") or [])
    for blocked in item.get("blocked") or []:
        lines += [
            blocked.get("sentence", ""),
            *(f"  {detail}" for detail in (blocked.get("details") or [])[:MOST_SHOWN]),
        ]
    return lines


def wait(transport: Transport, looks: Looks, timeout_s: float, *, types: str = "workload,allocation") -> None:
    """Return when all are done. Raises TimedOutError, or WherryError with what one of them failed of."""
    began = time.monotonic()
    progress, seen = Progress(), dict[Target, Seen]()
    with Waker(transport.connection, types) as waker:
        while True:
            trouble = _look_at_open(looks, seen)
            waited = time.monotonic() - began
            shown = {str(target): s.lines for target, s in seen.items()} | ({"": (trouble,)} if trouble else {})
            progress.show(shown, f"{span(waited)} of {span(timeout_s)}; Ctrl-C stops the waiting, not the cluster")
            failed = [target for target, s in seen.items() if s.is_failed]
            if failed:
                raise _failed(failed[0], seen[failed[0]])
            open_ones = [target for target in looks if target not in seen or not seen[target].is_done]
            if not open_ones:
                return
            if waited >= timeout_s:
                raise _timed_out(open_ones, seen, timeout_s, trouble)
            time.sleep(SHORTEST_LOOK_S)
            waker.wait(min(LOOK_AGAIN_S, timeout_s - waited))


def _look_at_open(looks: Looks, seen: dict[Target, Seen]) -> str:
    """Look at those that aren't done yet. Returns what is the matter when the servers can't be reached."""
    for target, look in looks.items():
        if target not in seen or not seen[target].is_done:
            try:
                seen[target] = look()
            except UnavailableError as error:
                return f"{error.what}: {error.why}" if error.why else error.what
    return ""


def _failed(first: Target, seen: Seen) -> WherryError:
    return WherryError(
        f"{first} failed",
        why="; ".join(line.strip() for line in seen.lines[1:]),
        fix=f"Look at `wherry describe {first.kind} {first.name}` and `wherry logs {first.kind}/{first.name}`.",
    )


def _timed_out(
    open_ones: Sequence[Target], seen: Mapping[Target, Seen], timeout_s: float, trouble: str
) -> TimedOutError:
    parts = [trouble] if trouble else []
    parts += ["; ".join(line.strip() for line in seen[w].lines) for w in open_ones if w in seen]
    first = open_ones[0]
    namespace = "" if first.namespace == "default" else f" -n {first.namespace}"
    return TimedOutError(
        f"{plural(len(open_ones), 'node' if first.kind == 'node' else 'workload')} not done within {span(timeout_s)}",
        why="\n".join(parts),
        fix=f"The cluster goes on with it. `wherry describe {first.kind} {first.name}{namespace}` tells more.",
    )
