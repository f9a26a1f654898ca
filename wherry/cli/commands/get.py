"""`wherry get`: what there is, as a table or for programs, once or as it changes."""

import json
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from manifests.errors import UsageError
from wherry.cli import lookup
from wherry.cli.arguments import add_connection, add_namespace, transport_of
from wherry.cli.kinds import ALLOCATIONS, CLUSTER, NAMESPACES, SERVERS, VOLUMES, read_targets
from wherry.cli.lookup import Scope
from wherry.cli.tables import View, kind_and_name
from wherry.cli.text import Table, clean, say, style_of
from wherry.cli.transport import Transport
from wherry.cli.yaml_output import print_yaml

FORMATS = ("table", "wide", "json", "yaml", "name")
NOTES = """
kinds: nodes, services, daemons, jobs, cronjobs, workloads (all of those), configs, namespaces, volumes,
  allocations, events, servers (and their store), cluster
-o yaml prints workloads, configs and settings as manifests, which can be edited and applied again."""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("what", nargs="+", metavar="KIND [NAME...] | KIND/NAME...", help="a kind, and names if not all")
    parser.add_argument("-o", "--output", choices=FORMATS, default="table", help="the format (default: table)")
    parser.add_argument("-w", "--watch", action="store_true", help="go on, and print rows as they change")
    gone = parser.add_mutually_exclusive_group()
    gone.add_argument("--all", dest="ended", action="store_const", const="true", help="also allocations that are gone")
    gone.add_argument(
        "--finished", dest="ended", action="store_const", const="only", help="only allocations that are gone"
    )
    add_namespace(parser, with_all=True)
    add_connection(parser)


def run(arguments: Namespace) -> int:
    targets = read_targets(arguments.what)
    namespace = None if arguments.all_namespaces else arguments.namespace
    scopes = [Scope(target.kind, target.names, namespace, arguments.ended) for target in targets]
    if arguments.ended and (arguments.watch or any(scope.kind != ALLOCATIONS for scope in scopes)):
        raise UsageError("--all and --finished are for lists of allocations", fix="Run `wherry get allocations --all`.")
    transport = transport_of(arguments)
    if any(scope.kind in (SERVERS, CLUSTER) for scope in scopes):
        return _print_whole(transport, scopes, arguments)
    if arguments.watch:
        from wherry.cli.watching import follow

        if scopes[0].kind == VOLUMES:
            raise UsageError("volumes can't be watched", fix="Run `wherry get volumes`, which tells who uses them.")
        if scopes[0].kind == NAMESPACES:
            raise UsageError("namespaces can't be watched", fix="Run `wherry events --watch` for changes of settings.")
        if len(scopes) > 1:
            raise UsageError("only one kind can be watched at a time", fix="Watch `workloads`, or use two terminals.")
        return follow(transport, scopes[0], arguments.output)
    for number, scope in enumerate(scopes):
        if number and arguments.output in ("table", "wide"):
            print()
        _print_once(transport, scope, arguments.output)
    return 0


def _print_once(transport: Transport, scope: Scope, output: str) -> None:
    if scope.names:
        revision, items = 0, lookup.get_named(transport, scope)
    else:
        revision, items = lookup.list_items(transport, scope)
    if output == "json":
        one = items[0] if len(scope.names) == 1 and len(items) == 1 else {"revision": revision, "items": items}
        print(json.dumps(one, indent=2, ensure_ascii=True))
    elif output == "yaml":
        print_yaml(items)
    elif not items:
        say(empty_sentence(scope))
    elif output == "name":
        print("\n".join(kind_and_name(scope.kind, item) for item in items))
    else:
        view = view_of(scope, output)
        table = Table(view.headings(), style_of(sys.stdout), is_cut=not view.is_wide)
        print("\n".join(table.render([view.row(item) for item in items])))
        if any(item.get("brake") for item in items):
            _tell_brake(transport)


def _tell_brake(transport: Transport) -> None:
    """Say that the brake on mass loss holds nodes, and how to end that."""
    brake = transport.get("/v1/cluster").get("brake")
    if brake:
        say(f"The brake on mass loss is on: {clean(brake.get('sentence'))}.")


def _print_whole(transport: Transport, scopes: Sequence[Scope], arguments: Namespace) -> int:
    from wherry.cli.cluster import print_cluster
    from wherry.cli.servers import print_servers

    if len(scopes) > 1 or scopes[0].names or arguments.watch:
        kind = next(scope.kind for scope in scopes if scope.kind in (SERVERS, CLUSTER))
        raise UsageError(f"{kind} can only be shown whole, alone and once", fix=f"Run `wherry get {kind}`.")
    (print_servers if scopes[0].kind == SERVERS else print_cluster)(transport, arguments.output)
    return 0


def view_of(scope: Scope, output: str) -> View:
    return View(scope.kind, is_wide=output == "wide", has_namespace=scope.namespace is None, now_s=time.time())


def empty_sentence(scope: Scope) -> str:
    """Return what to say when there is nothing to list."""
    is_global = scope.kind in lookup.GLOBAL
    where = "" if is_global else " in any namespace" if scope.namespace is None else f" in namespace {scope.namespace}"
    return f"No {scope.kind}{where}."
