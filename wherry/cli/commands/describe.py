"""`wherry describe`: everything about one thing, for people: what it is, how it stands, and why."""

import json
import sys
import time
from argparse import ArgumentParser, Namespace

from manifests.errors import UsageError
from wherry.cli import lookup
from wherry.cli.arguments import add_connection, add_namespace, transport_of
from wherry.cli.description import allocation_page, node_page, workload_page
from wherry.cli.kinds import ALLOCATIONS, NODES, WORKLOAD_KINDS, read_one
from wherry.cli.lookup import Item, Scope
from wherry.cli.text import style_of
from wherry.cli.transport import Transport

EVENTS_READ = 1000
EVENTS_SHOWN = 12
NOTES = """  wherry describe allocation web-0-1f3a9c2e
  wherry describe node n1"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("what", nargs="+", metavar="KIND NAME | KIND/NAME", help="a node, a workload or an allocation")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="(default: text)")
    add_namespace(parser)
    add_connection(parser)


def run(arguments: Namespace) -> int:
    kind, name = read_one(arguments.what)
    if kind not in (NODES, ALLOCATIONS, *WORKLOAD_KINDS):
        raise UsageError(
            f"{kind} can't be described", fix="Describe a node, a service, a daemon, a job, a cronjob or an allocation."
        )
    transport = transport_of(arguments)
    item = lookup.get_named(transport, Scope(kind, (name,), arguments.namespace))[0]
    allocations = _allocations(transport, kind, item)
    events = _events(transport, kind, item, allocations)
    if arguments.output == "json":
        print(json.dumps({"object": item, "allocations": allocations, "events": events}, indent=2))
        return 0
    page = node_page if kind == NODES else allocation_page if kind == ALLOCATIONS else workload_page
    print("\n".join(page(item, allocations, events, time.time(), style_of(sys.stdout))))
    return 0


def _allocations(transport: Transport, kind: str, item: Item) -> list[Item]:
    if kind == ALLOCATIONS:
        return []
    if kind == NODES:
        items: list[Item] = transport.get("/v1/allocations", {"node": item["name"]})["items"]
        return items
    return lookup.allocations_of(transport, lookup.workload_of(item))


def _events(transport: Transport, kind: str, item: Item, allocations: list[Item]) -> list[Item]:
    """Return the newest events about it, and about its allocations, oldest first."""
    if kind == NODES:
        subjects = {f"node/{item['name']}"}
    elif kind == ALLOCATIONS:
        subjects = {f"allocation/{item['id']}"}
    else:
        subjects = {str(lookup.workload_of(item)), *(f"allocation/{a['id']}" for a in allocations)}
    workload = str(lookup.workload_of(item)) if kind in WORKLOAD_KINDS else None
    events: list[Item] = transport.get("/v1/events", {"limit": EVENTS_READ})["items"]
    mine = [e for e in events if e.get("subject") in subjects or (workload and e.get("workload") == workload)]
    return mine[-EVENTS_SHOWN:]
