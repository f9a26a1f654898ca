"""Draining nodes: what it would do, and waiting until it is done."""

import time
from collections.abc import Mapping
from typing import Any

from manifests.errors import TimedOutError, UnavailableError
from wherry.cli.lookup import workload_of
from wherry.cli.progress import Progress
from wherry.cli.tables import message_of
from wherry.cli.text import clean, plural, span
from wherry.cli.transport import Transport, segment
from wherry.cli.waiting import LOOK_AGAIN_S, MOST_SHOWN, SHORTEST_LOOK_S, TERMINAL, line_of
from wherry.cli.watching import Waker


def plan_lines(name: str, plan: Mapping[str, Any]) -> list[str]:
    """Return what the drain of a node would do, as the server sees it now."""
    moves, stays, stops = (plan.get(part) or [] for part in ("moves", "stays", "stops"))
    told = f"{len(moves)} would move, {len(stays)} would stay, {len(stops)} would just stop"
    lines = [f"node/{name} would be drained: {told}"]
    lines += [f"  {clean(m['allocation'])} -> {clean(m['to'])}: {clean(m['why'])}" for m in moves]
    for stay in stays:
        lines.append(f"  {clean(stay['allocation'])} stays: {clean(stay.get('why'))}")
    return lines + [f"  {clean(s['allocation'])} stops: {clean(s['why'])}" for s in stops]


def wait_until_drained(transport: Transport, names: list[str], timeout_s: float) -> None:
    """Return when nothing on the nodes holds resources any more. Raises TimedOutError with what is left."""
    began, progress = time.monotonic(), Progress()
    shown: dict[str, list[str]] = {}
    undrained = list(names)
    with Waker(transport.connection, "node,allocation") as waker:
        while undrained:
            undrained = [name for name in undrained if not _look(transport, name, shown)]
            waited = time.monotonic() - began
            progress.show(shown, f"{span(waited)} of {span(timeout_s)}; Ctrl-C stops the waiting, not the drain")
            if undrained and waited >= timeout_s:
                raise _timed_out(undrained, shown, timeout_s)
            if undrained:
                time.sleep(SHORTEST_LOOK_S)
                waker.wait(min(LOOK_AGAIN_S, timeout_s - waited))


def _look(transport: Transport, name: str, shown: dict[str, list[str]]) -> bool:
    """Say whether the node is drained, and put down how it stands."""
    try:
        node = transport.get(f"/v1/nodes/{segment(name)}")
        shown[name] = _lines(transport, node)
    except UnavailableError as error:
        shown[name] = [f"node/{name}: {error.what}, trying again"]
        return False
    return bool(node.get("state") == "drained")


def _timed_out(undrained: list[str], shown: dict[str, list[str]], timeout_s: float) -> TimedOutError:
    return TimedOutError(
        f"{', '.join(undrained)} not drained within {span(timeout_s)}",
        why="; ".join(line.strip() for name in undrained for line in shown[name]),
        fix="The drain goes on. Where should its allocations go? `wherry get workloads` tells what is blocked.",
    )


def _lines(transport: Transport, node: Mapping[str, Any]) -> list[str]:
    name = clean(node.get("name"))
    if node.get("state") == "drained":
        return [f"node/{name}: drained"]
    items = transport.get("/v1/allocations", {"node": name})["items"]
    left = [a for a in items if a.get("phase") not in TERMINAL]
    first = f"node/{name}: {clean(node.get('state'))}, {plural(len(left), 'allocation')} left"
    lines = [first, *(f"  {line_of(a)}" for a in left[:MOST_SHOWN])]
    owners = {str(workload_of(a)) for a in left}
    workloads = transport.get("/v1/workloads")["items"]
    stuck = [w for w in workloads if str(workload_of(w)) in owners and message_of(w)]
    return lines + [f"  {workload_of(w)}: {message_of(w)}" for w in stuck]
