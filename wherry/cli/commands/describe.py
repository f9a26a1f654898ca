"""`wherry describe`: everything about one thing, for people: what it is, how it stands, and why."""

import json
import sys
import time
from argparse import ArgumentParser, Namespace

from manifests.errors import UsageError
from wherry.cli import lookup
from wherry.cli.arguments import add_connection, add_namespace, transport_of
from wherry.cli.description import allocation_page, ended_lines, event_lines, node_page, workload_page
from wherry.cli.kinds import ALLOCATIONS, CLUSTER, CONFIGS, NAMESPACES, NODES, WORKLOAD_KINDS, read_one
from wherry.cli.lookup import Item, Scope
from wherry.cli.rollout_text import config_page
from wherry.cli.settings_text import settings_page
from wherry.cli.text import style_of
from wherry.cli.transport import Transport

EVENTS_SHOWN = 20
NOTES = """  wherry describe allocation web-0-1f3a9c2e
  wherry describe node n1"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("what", nargs="+", metavar="KIND NAME | KIND/NAME", help="a node, a workload or an allocation")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="(default: text)")
    add_namespace(parser)
    add_connection(parser)


def run(arguments: Namespace) -> int:
    kind, name = read_one(arguments.what)
    if kind not in (NODES, ALLOCATIONS, CONFIGS, NAMESPACES, CLUSTER, *WORKLOAD_KINDS):
        raise UsageError(
            f"{kind} can't be described",
            fix="Describe a node, a workload, a config, a namespace, the cluster or an allocation.",
        )
    transport = transport_of(arguments)
    if kind in (NAMESPACES, CLUSTER):
        return _describe_settings(transport, kind, name, arguments.output)
    item = lookup.get_named(transport, Scope(kind, (name,), arguments.namespace))[0]
    if kind == CONFIGS:
        return _describe_config(item, arguments.output)
    allocations = _allocations(transport, kind, item)
    ended = _ended(transport, kind, item)
    events = _events(transport, kind, item)
    if arguments.output == "json":
        print(json.dumps({"object": item, "allocations": allocations, "ended": ended, "events": events}, indent=2))
        return 0
    now_s, style = time.time(), style_of(sys.stdout)
    page = node_page if kind == NODES else allocation_page if kind == ALLOCATIONS else workload_page
    lines = page(item, allocations, now_s, style)
    print("\n".join([*lines, *ended_lines(ended, now_s, style), *event_lines(events, now_s, style)]))
    return 0


def _describe_settings(transport: Transport, kind: str, name: str, output: str) -> int:
    if kind == CLUSTER:
        item = transport.get("/v1/cluster")["settings"]
    else:
        item = lookup.get_named(transport, Scope(kind, (name,)))[0]
    subject = f"namespace/{name}" if kind == NAMESPACES else "cluster/cluster"
    events = transport.get("/v1/events", {"for": subject, "limit": EVENTS_SHOWN})["items"]
    if output == "json":
        print(json.dumps({"object": item, "events": events}, indent=2))
        return 0
    now_s, style = time.time(), style_of(sys.stdout)
    print("\n".join([*settings_page(item, now_s, style), *event_lines(events, now_s, style)]))
    return 0


def _describe_config(item: Item, output: str) -> int:
    if output == "json":
        print(json.dumps({"object": item}, indent=2))
    else:
        print("\n".join(config_page(item, time.time(), style_of(sys.stdout))))
    return 0


def _allocations(transport: Transport, kind: str, item: Item) -> list[Item]:
    if kind == ALLOCATIONS:
        return []
    if kind == NODES:
        items: list[Item] = transport.get("/v1/allocations", {"node": item["name"]})["items"]
        return items
    return lookup.allocations_of(transport, lookup.workload_of(item))


def _ended(transport: Transport, kind: str, item: Item) -> list[Item]:
    """Return what is kept of a workload's allocations that are gone, newest first."""
    if kind not in WORKLOAD_KINDS:
        return []
    ended = lookup.allocations_of(transport, lookup.workload_of(item), ended="only")
    return sorted(ended, key=lambda a: str(a.get("finishedAt")), reverse=True)


def _events(transport: Transport, kind: str, item: Item) -> list[Item]:
    """Return the newest events about it, oldest first."""
    if kind == NODES:
        subject = f"node/{item['name']}"
    elif kind == ALLOCATIONS:
        subject = f"allocation/{item['id']}"
    else:
        subject = str(lookup.workload_of(item))
    events: list[Item] = transport.get("/v1/events", {"for": subject, "limit": EVENTS_SHOWN})["items"]
    return events
