"""`wherry node`: take a node out of use and back, move away what runs there, label and taint it, forget a lost one."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from manifests.errors import NotFoundError, UsageError
from wherry.cli.arguments import add_connection, add_wait, duration, transport_of
from wherry.cli.kinds import NODES, did_you_mean
from wherry.cli.lookup import Scope, not_found
from wherry.cli.node_changes import CHANGES, patch_of
from wherry.cli.text import clean, if_stopped, plural
from wherry.cli.transport import Transport, segment

ACTIONS = ("drain", "cordon", "uncordon", *CHANGES, "confirm-lost", "release", "delete")
NOTES = """
  drain         place nothing new on the node, and move away what runs there; daemons stop last
  cordon        place nothing new on it; what runs stays
  uncordon      end both
  label         NAME KEY=VALUE... KEY-...: over the labels that its agent was started with
  annotate      NAME KEY=TEXT... KEY-...: for people; nothing is decided by it
  taint         NAME KEY[=VALUE]:noSchedule...: only what tolerates it comes; with noExecute, only that stays
  untaint       NAME KEY[:EFFECT]...
  confirm-lost  call silent nodes lost that the brake on mass loss holds, so that their work is replaced
  release       let it stop what it keeps from before a restored snapshot
  delete        forget a node that is lost"""
T = TypeVar("T")
_TOLD = {
    "drain": "draining",
    "cordon": "cordoned",
    "uncordon": "in use again",
    "release": "released",
    "confirm-lost": "confirmed as lost",
}


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("action", metavar="ACTION", help=", ".join(ACTIONS))
    parser.add_argument("words", nargs="*", metavar="NAME", help="the node, or several; or one and its changes")
    parser.add_argument("--deadline", type=duration, metavar="TIME", help="of a drain: then what is left is stopped")
    parser.add_argument("--dry-run", action="store_true", help="of a drain: only say what would go where")
    parser.add_argument("--all", action="store_true", help="of confirm-lost: all nodes that the brake holds")
    add_wait(parser, "a drained node is empty")
    add_connection(parser)


def run(arguments: Namespace) -> int:
    action, words = arguments.action, list(arguments.words)
    if action not in ACTIONS:
        raise UsageError(
            f"a node can't be told to '{action}'{did_you_mean(action, ACTIONS)}", fix=f"It can: {', '.join(ACTIONS)}."
        )
    _check_flags(arguments)
    transport = transport_of(arguments)
    if action in CHANGES:
        _change(transport, action, words)
        return 0
    names = _held(transport) if arguments.all else words
    for name in names:
        _with_name(transport, name, lambda name: _act(transport, arguments, name))
    if action == "drain" and arguments.wait and not arguments.dry_run:
        _wait(transport, names, arguments.timeout)
    return 0


def _check_flags(arguments: Namespace) -> None:
    action = arguments.action
    if action != "drain" and (arguments.deadline is not None or arguments.dry_run):
        raise UsageError("--deadline and --dry-run are for draining", fix="Run `wherry node drain NAME --dry-run`.")
    if arguments.all and action != "confirm-lost":
        raise UsageError("--all is for confirm-lost", fix="Name the nodes.")
    if arguments.all == bool(arguments.words):
        what = "either names or --all" if action == "confirm-lost" else "the name of a node"
        raise UsageError(f"{action} needs {what}", fix="Run `wherry get nodes` for their names.")


def _with_name(transport: Transport, name: str, call: Callable[[str], T]) -> T:
    """Return what the call returns; a node that isn't there is said with the nearest name."""
    try:
        return call(name)
    except NotFoundError:
        raise not_found(transport, Scope(NODES), name) from None


def _act(transport: Transport, arguments: Namespace, name: str) -> None:
    action, path = arguments.action, f"/v1/nodes/{segment(name)}"
    if action == "delete":
        transport.delete(path)
        print(f"node/{name} deleted", flush=True)
        return
    if arguments.dry_run:
        from wherry.cli.draining import plan_lines

        print("\n".join(plan_lines(name, transport.post(f"{path}/drain?dryRun=true"))), flush=True)
        return
    body = {"deadline": f"{arguments.deadline:g}s"} if arguments.deadline is not None else None
    node = transport.post(f"{path}/{action}", body)
    left = node.get("allocations") or 0
    rest = f", {plural(left, 'allocation')} to move" if action == "drain" and left else ""
    rest += f", within {clean(node['drainDeadline'])}" if action == "drain" and node.get("drainDeadline") else ""
    print(f"node/{name} is {_TOLD[action]}{rest}", flush=True)


def _change(transport: Transport, action: str, words: Sequence[str]) -> None:
    name, changes = words[0], words[1:]
    if not changes:
        raise UsageError(f"nothing is said about how to {action} node {name}", fix="Run `wherry node --help`.")
    patch = patch_of(action, changes)
    node = _with_name(transport, name, lambda name: transport.patch(f"/v1/nodes/{segment(name)}", patch))
    print(f"node/{name} {_changed(action, node)}", flush=True)


def _changed(action: str, node: Mapping[str, Any]) -> str:
    """Return how the node is now, in what was changed."""
    if action in ("taint", "untaint"):
        return "taints: " + (", ".join(clean(t) for t in node.get("taints") or []) or "none")
    field = "labels" if action == "label" else "metadata"
    pairs = ", ".join(f"{clean(key)}={clean(value)}" for key, value in (node.get(field) or {}).items())
    return f"{field}: {pairs or 'none'}"


def _held(transport: Transport) -> list[str]:
    brake = transport.get("/v1/cluster").get("brake")
    if not brake:
        raise UsageError("there is nothing to confirm", why="no node is held: the brake on mass loss is off")
    return [str(name) for name in brake.get("held") or []]


def _wait(transport: Transport, names: Sequence[str], timeout_s: float) -> None:
    from wherry.cli.draining import wait_until_drained

    with if_stopped("The drain goes on; `wherry node uncordon NAME` ends it."):
        wait_until_drained(transport, list(names), timeout_s)
