"""`wherry explain`: why something runs where it does, why it can't run elsewhere, and what would change that."""

import json
import sys
from argparse import ArgumentParser, Namespace

from manifests.errors import NotFoundError, UsageError
from wherry.cli import lookup
from wherry.cli.arguments import add_connection, add_namespace, transport_of
from wherry.cli.explanation import explanation_page
from wherry.cli.kinds import ALLOCATIONS, NODES, WORKLOAD_KINDS, WORKLOADS, Workload, kind_of, read_one, read_workload
from wherry.cli.lookup import Item, Scope
from wherry.cli.text import style_of
from wherry.cli.transport import Transport, segment

NOTES = """  wherry explain service/web --node n2
  wherry explain allocation/web-0-1f3a9c2e

Of what runs it tells the score that was recorded, and where it would go now. Of what doesn't, everything that rules out
each node, and the smallest changes with which it would fit. Nothing is changed by asking."""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "what", nargs="+", metavar="NAME | KIND/NAME", help="a workload or an allocation, for example service/web"
    )
    parser.add_argument("--node", metavar="NODE", help="only why (not) on this node")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="(default: text)")
    add_namespace(parser)
    add_connection(parser)


def run(arguments: Namespace) -> int:
    transport = transport_of(arguments)
    item = _explanation(transport, arguments.what, arguments.namespace, arguments.node)
    if arguments.output == "json":
        print(json.dumps(item, indent=2))
    else:
        print("\n".join(explanation_page(item, style_of(sys.stdout))))
    return 0


def _explanation(transport: Transport, words: list[str], namespace: str, node: str | None) -> Item:
    if len(words) == 1 and "/" not in words[0]:
        return _by_name(transport, words[0], namespace, node)
    kind, name = read_one(words)
    if kind == ALLOCATIONS:
        return _of_allocation(transport, name, node)
    if kind not in WORKLOAD_KINDS:
        raise UsageError(f"{kind} can't be explained", fix="Name a workload or an allocation, such as service/web.")
    return _of_workload(transport, read_workload(words, namespace), node)


def _by_name(transport: Transport, name: str, namespace: str, node: str | None) -> Item:
    """Return the explanation of the workload of that name, of whatever kind, or else of the allocation."""
    _, items = lookup.list_items(transport, Scope(WORKLOADS, namespace=namespace))
    found = [lookup.workload_of(item) for item in items if item.get("name") == name]
    if len(found) > 1:
        kinds = " and a ".join(workload.kind for workload in found)
        raise UsageError(f"'{name}' is a {kinds}", fix=f"Write for example {found[0].kind}/{name}.")
    if found:
        return _of_workload(transport, found[0], node)
    try:
        return _ask(transport, f"/v1/allocations/{segment(name)}/explain", node)
    except NotFoundError as error:
        _known_node(transport, node)
        if error.why:
            raise
        raise lookup.not_found(transport, Scope(WORKLOADS, namespace=namespace), name) from None


def _of_workload(transport: Transport, workload: Workload, node: str | None) -> Item:
    scope = Scope(kind_of(workload.kind), namespace=workload.namespace)
    path = Workload(segment(workload.namespace), workload.kind, segment(workload.name)).path
    try:
        return _ask(transport, f"{path}/explain", node)
    except NotFoundError:
        lookup.get_named(transport, scope._replace(names=(workload.name,)))  # which knows the nearest name
        _known_node(transport, node)
        raise


def _of_allocation(transport: Transport, name: str, node: str | None) -> Item:
    try:
        return _ask(transport, f"/v1/allocations/{segment(name)}/explain", node)
    except NotFoundError as error:
        _known_node(transport, node)
        if error.why:
            raise  # it is gone
        raise lookup.not_found(transport, Scope(ALLOCATIONS, namespace=None), name) from None


def _ask(transport: Transport, path: str, node: str | None) -> Item:
    item: Item = transport.get(path, {"node": node})
    return item


def _known_node(transport: Transport, node: str | None) -> None:
    """Raise NotFoundError with the nearest name if that node isn't there."""
    if node is not None:
        lookup.get_named(transport, Scope(NODES, (node,)))
