"""`wherry events`: what happened, to what, how often, why and by whom; and on request, as it happens."""

import json
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping

from manifests.errors import CompactedError, UnavailableError, UsageError
from wherry.cli.arguments import add_connection, duration, transport_of, whole_number
from wherry.cli.kinds import CONFIGS, EVENTS, WORKLOAD_KINDS, Workload, read_one
from wherry.cli.lookup import Item
from wherry.cli.tables import View
from wherry.cli.text import Table, say, style_of
from wherry.cli.transport import Transport

RETRY_S = 1.0
_LEAST = {"AGE": 4, "TIMES": 5, "SUBJECT": 20, "REASON": 12}
NOTES = """  wherry events --for service/web --watch
  wherry events --for node/n1 --since 1h"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--for", dest="subject", metavar="KIND/NAME", help="only of this workload, allocation or node")
    parser.add_argument("-w", "--watch", action="store_true", help="go on, and print events as they come")
    parser.add_argument("--since", type=duration, metavar="TIME", help="only of the last so much time, for example 1h")
    parser.add_argument("--limit", type=whole_number, default=200, metavar="N", help="the newest N (default: 200)")
    parser.add_argument("-o", "--output", choices=("table", "wide", "json"), default="table", help="(default: table)")
    parser.add_argument("-n", "--namespace", metavar="NS", help="only of workloads in this namespace")
    add_connection(parser)


def run(arguments: Namespace) -> int:
    transport = transport_of(arguments)
    wanted = {"for": _subject_of(arguments), "namespace": arguments.namespace}
    query = {**wanted, "since": arguments.since and int(arguments.since), "limit": arguments.limit}
    answer = transport.get("/v1/events", query)
    if arguments.output == "json" and not arguments.watch:
        print(json.dumps(answer, indent=2))
        return 0
    printer = _Printer(arguments.output)
    printer.print_first(answer["items"], is_watching=arguments.watch)
    if arguments.watch:
        _follow(transport, wanted, printer, int(answer["revision"]))
    return 0


def _subject_of(arguments: Namespace) -> str | None:
    """Return the subject as events name it: `service/web`, `service/prod/web`, `node/n1`."""
    if arguments.subject is None:
        return None
    kind, name = read_one([arguments.subject])
    if kind in WORKLOAD_KINDS or kind == CONFIGS:
        given, slash, rest = name.partition("/")
        namespace = given if slash else arguments.namespace or "default"
        return str(Workload(namespace, WORKLOAD_KINDS.get(kind, "config"), rest if slash else name))
    if kind not in ("nodes", "allocations", "servers"):
        raise UsageError(f"{kind} have no events of their own", fix="Name one thing, for example service/web.")
    return f"{kind.rstrip('s')}/{name}"


def _follow(transport: Transport, wanted: Mapping[str, str | None], printer: "_Printer", after: int) -> None:
    """Print events as they come, for ever. After a lost connection it goes on where it was."""
    while True:
        try:
            for change in transport.watch(types="event", after=after):
                event = change.get("object") or {}
                if change.get("type") == "event" and _is_wanted(event, wanted):
                    printer.print(event)
                after = max(after, int(change.get("revision") or 0))
        except CompactedError:
            after = int(transport.get("/v1/events", {"limit": 0})["revision"])
            say("Some events may have been missed: the server no longer knows them one by one.")
        except UnavailableError as error:
            say(f"The connection was lost, trying again: {error.why or error.what}")
        time.sleep(RETRY_S)


def _is_wanted(event: Item, wanted: Mapping[str, str | None]) -> bool:
    subject, namespace = wanted["for"], wanted["namespace"]
    if namespace is not None and event.get("namespace") != namespace:
        return False
    about = f"allocation/{event['allocation']}" if event.get("allocation") else ""
    return subject is None or subject in (event.get("subject"), about, event.get("workload"))


class _Printer:
    def __init__(self, output: str) -> None:
        self._output = output
        self._table = Table(self._view().headings(), style_of(sys.stdout), is_cut=output != "wide", least=_LEAST)

    def print_first(self, events: list[Item], *, is_watching: bool) -> None:
        if self._output == "json":
            for event in events:
                self.print(event)
            return
        if not events:
            say("No events.")
        if events or is_watching:
            print("\n".join(self._table.render([self._view().row(e) for e in events])), flush=True)

    def print(self, event: Item) -> None:
        line = json.dumps(event) if self._output == "json" else self._table.render_rows([self._view().row(event)])[0]
        print(line, flush=True)

    def _view(self) -> View:
        return View(EVENTS, is_wide=self._output == "wide", has_namespace=False, now_s=time.time())
