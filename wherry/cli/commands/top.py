"""`wherry top`: what runs uses now, asked of the nodes themselves."""

import json
import sys
import time
from argparse import ArgumentParser, Namespace

from manifests.errors import UnavailableError, UsageError
from wherry.cli import lookup
from wherry.cli.arguments import add_connection, add_namespace, transport_of
from wherry.cli.kinds import ALLOCATIONS, NODES, WORKLOAD_KINDS, kind_of, read_workload
from wherry.cli.lookup import Item, Scope
from wherry.cli.text import Table, clean, say, style_of
from wherry.cli.transport import Query, Transport
from wherry.cli.usage import ALLOCATION_HEADINGS, NODE_HEADINGS, allocation_rows, node_rows
from wherry.cli.yaml_output import print_yaml

EVERY_S = 2.0
NOTES = """  wherry top nodes
  wherry top service/web --containers
  wherry top --watch
  wherry top --advise service/web

CPU% and MEM% are of the limit, on nodes of what is allocatable; MEMORY is the working set, without file cache that can
be dropped; PEAK is its largest since the node's agent saw the allocation; THROTTLED is the share of the periods in
which it wanted more cpu than its limit; PRESSURE is for how much of the last 10 s something in it waited."""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "what", nargs="*", metavar="nodes | allocations | KIND/NAME", help="of what (default: allocations)"
    )
    parser.add_argument("--containers", action="store_true", help="a row for each container of a group")
    parser.add_argument("--advise", action="store_true", help="what to reserve and limit instead, and the patch for it")
    parser.add_argument("-w", "--watch", action="store_true", help="look again every 2 s")
    parser.add_argument("-o", "--output", choices=("table", "json", "yaml"), default="table", help="(default: table)")
    parser.add_argument("--json", dest="output", action="store_const", const="json", help="the same as -o json")
    add_namespace(parser, with_all=True)
    add_connection(parser)


def run(arguments: Namespace) -> int:
    kind, query = _asked(arguments)
    transport = transport_of(arguments)
    if query.get("name"):
        lookup.get_workload(transport, read_workload(arguments.what, arguments.namespace))  # knows the nearest name
    if arguments.advise:
        return _advise(transport, kind, query, arguments)
    if arguments.output == "yaml":
        raise UsageError("-o yaml is for --advise", fix="Use -o json.")
    show = _Show(transport, kind, query, arguments)
    if not arguments.watch:
        show.once()
        return 0
    show.once(again=True)
    while True:
        time.sleep(EVERY_S)
        try:
            show.once(again=True)
        except UnavailableError as error:
            say(f"The server doesn't answer, trying again: {error.why or error.what}")


def _asked(arguments: Namespace) -> tuple[str, Query]:
    """Return whether nodes or allocations are meant, and of these which."""
    everywhere: Query = {"namespace": None if arguments.all_namespaces else arguments.namespace}
    if not arguments.what:
        return ALLOCATIONS, everywhere
    kind = kind_of(arguments.what[0].partition("/")[0])
    is_plain = len(arguments.what) == 1 and "/" not in arguments.what[0]
    if is_plain and kind == NODES:
        return NODES, {}
    if is_plain and kind == ALLOCATIONS:
        return ALLOCATIONS, everywhere
    if kind not in WORKLOAD_KINDS:
        raise UsageError("top shows nodes, allocations or a workload", fix="Write for example: wherry top service/web")
    workload = read_workload(arguments.what, arguments.namespace)
    return ALLOCATIONS, {"namespace": workload.namespace, "kind": workload.kind, "name": workload.name}


def _advise(transport: Transport, kind: str, query: Query, arguments: Namespace) -> int:
    """Print what would fit better; as YAML, the whole manifests with it, which can be applied."""
    from wherry.cli.advice_text import advice_page, advised, patch_of, patched, to_json

    if kind == NODES or arguments.watch:
        raise UsageError("--advise looks once at workloads", fix="Write for example: wherry top --advise service/web")
    answer: Item = transport.get("/v1/stats", query)
    found = advised(answer)
    if arguments.output == "json":
        print(json.dumps([to_json(each) for each in found], indent=2))
    elif arguments.output == "yaml":
        patches = {w: patch_of([each for each in found if each.workload == w]) for w in {e.workload for e in found}}
        changed = sorted(workload for workload, patch in patches.items() if patch)
        print_yaml([patched(lookup.get_workload(transport, w)["manifest"], patches[w]) for w in changed])
    elif found:
        print("\n".join(advice_page(found, style_of(sys.stdout))).rstrip())
    else:
        say("Nothing runs.")
    _tell_silent(answer)
    return 0


def _tell_silent(answer: Item) -> None:
    for silent in answer["silent"]:
        say(f"{clean(silent.get('node'))} is not in this list: {clean(silent.get('why'))}")


class _Show:
    def __init__(self, transport: Transport, kind: str, query: Query, arguments: Namespace) -> None:
        self._transport, self._kind, self._query, self._arguments = transport, kind, query, arguments
        self._style = style_of(sys.stdout)

    def once(self, *, again: bool = False) -> None:
        answer: Item = self._transport.get("/v1/stats", self._query)
        if self._arguments.output == "json":
            print(json.dumps(answer, indent=None if again else 2), flush=True)
            return
        lines = self._lines(answer)
        if again and self._style.width:
            lines = ["\x1b[H\x1b[2J" + lines[0], *lines[1:]] if lines else ["\x1b[H\x1b[2J"]
        if lines:
            print("\n".join(lines), flush=True)
        if self._kind != NODES:
            _tell_silent(answer)

    def _lines(self, answer: Item) -> list[str]:
        if self._kind == NODES:
            _, nodes = lookup.list_items(self._transport, Scope(NODES))
            return Table(NODE_HEADINGS, self._style).render(node_rows(answer, nodes))
        rows = allocation_rows(answer, each_container=self._arguments.containers)
        if not rows:
            say("Nothing runs.")
            return []
        return Table(ALLOCATION_HEADINGS, self._style).render(rows)
