"""`wherry inspect`: what an allocation is made of, down to the kernel, and how to see each thing by hand."""

import json
import sys
from argparse import ArgumentParser, Namespace
from typing import Any

from manifests.errors import NotFoundError, UsageError
from wherry.cli import lookup
from wherry.cli.arguments import add_connection, add_namespace, transport_of
from wherry.cli.kinds import ALLOCATIONS, WORKLOAD_KINDS, read_one, read_workload
from wherry.cli.layer_tree import tree_lines
from wherry.cli.lookup import Scope
from wherry.cli.text import say, style_of
from wherry.cli.transport import Transport, segment

NOTES = """  wherry inspect --layers service/web
  wherry inspect web-0-1f3a9c2e --json

Manifest, version, allocation; its containers with image, bundle, OCI runtime and shim; their namespaces, cgroups with
all limits and live values, and processes. The commands are to be run on its node."""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "what", nargs="+", metavar="ALLOCATION | KIND/NAME", help="an allocation, or a workload: its first that runs"
    )
    parser.add_argument("--layers", action="store_true", help="layer below layer (which is all there is as yet)")
    parser.add_argument("--no-commands", action="store_true", help="without the commands that show the same by hand")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="(default: text)")
    parser.add_argument("--json", dest="output", action="store_const", const="json", help="the same as -o json")
    add_namespace(parser)
    add_connection(parser)


def run(arguments: Namespace) -> int:
    transport = transport_of(arguments)
    allocation = _allocation(transport, arguments.what, arguments.namespace)
    try:
        answer: dict[str, Any] = transport.get(f"/v1/allocations/{segment(allocation)}/layers")
    except NotFoundError:
        raise lookup.not_found(transport, Scope(ALLOCATIONS, namespace=None), allocation) from None
    if arguments.output == "json":
        print(json.dumps(answer, indent=2))
        return 0
    style = style_of(sys.stdout)
    print("\n".join(tree_lines(answer["layers"], style, has_commands=not arguments.no_commands)))
    if not arguments.no_commands:
        say(f"Behind $ stands what shows the same by hand, on node {answer['node']}.")
    return 0


def _allocation(transport: Transport, words: list[str], namespace: str) -> str:
    """Return the id that is meant: of a workload, the first allocation that runs."""
    if len(words) == 1 and "/" not in words[0]:
        return words[0]
    kind, name = read_one(words)
    if kind == ALLOCATIONS:
        return name
    if kind not in WORKLOAD_KINDS:
        raise UsageError(f"{kind} can't be inspected", fix="Name an allocation or a workload, such as service/web.")
    workload = read_workload(words, namespace)
    lookup.get_workload(transport, workload)
    found = lookup.allocations_of(transport, workload)
    running = [a for a in found if a.get("phase") == "running"] or found
    if not running:
        raise NotFoundError(f"{workload} has no allocations", fix=f"Ask why: wherry explain {workload}")
    return str(running[0]["id"])
