"""`wherry node`: take a node out of use and back, move what runs there away, forget a lost one."""

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from typing import Any

from manifests.errors import NotFoundError, TimedOutError, UnavailableError, UsageError
from wherry.cli.arguments import add_connection, add_wait, transport_of
from wherry.cli.kinds import NODES, did_you_mean
from wherry.cli.lookup import Scope, not_found, workload_of
from wherry.cli.tables import message_of
from wherry.cli.text import clean, plural, say, span
from wherry.cli.transport import Transport, segment

ACTIONS = ("drain", "cordon", "uncordon", "release", "delete")
NOTES = """
  drain     place nothing new on the node, and move away what runs there
  cordon    place nothing new on it; what runs stays
  uncordon  end both
  release   let it stop what it keeps from before a restored snapshot
  delete    forget a node that is lost"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("action", metavar="ACTION", help=", ".join(ACTIONS))
    parser.add_argument("names", nargs="+", metavar="NAME", help="the node, or several")
    add_wait(parser, "a drained node is empty")
    add_connection(parser)


def run(arguments: Namespace) -> int:
    action = arguments.action
    if action not in ACTIONS:
        raise UsageError(
            f"a node can't be told to '{action}'{did_you_mean(action, ACTIONS)}", fix=f"It can: {', '.join(ACTIONS)}."
        )
    transport = transport_of(arguments)
    for name in arguments.names:
        try:
            _act(transport, action, name)
        except NotFoundError:
            raise not_found(transport, Scope(NODES), name) from None
    if action == "drain" and arguments.wait:
        try:
            _wait_until_drained(transport, arguments.names, arguments.timeout)
        except KeyboardInterrupt:
            say("Stopped waiting. The drain goes on; `wherry node uncordon NAME` ends it.")
            raise
    return 0


def _act(transport: Transport, action: str, name: str) -> None:
    if action == "delete":
        transport.delete(f"/v1/nodes/{segment(name)}")
        print(f"node/{name} deleted", flush=True)
        return
    node = transport.post(f"/v1/nodes/{segment(name)}/{action}")
    told = {"drain": "draining", "cordon": "cordoned", "uncordon": "in use again", "release": "released"}[action]
    left = node.get("allocations") or 0
    rest = f", {plural(left, 'allocation')} to move" if action == "drain" and left else ""
    print(f"node/{name} is {told}{rest}", flush=True)


def _wait_until_drained(transport: Transport, names: list[str], timeout_s: float) -> None:
    from wherry.cli.progress import Progress
    from wherry.cli.waiting import LOOK_AGAIN_S, SHORTEST_LOOK_S
    from wherry.cli.watching import Waker

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
    from wherry.cli.waiting import MOST_SHOWN, TERMINAL, line_of

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
