"""`wherry rollout`: how a workload's passage to a new version stands, its history, and the user's words about it."""

import json
import sys
import time
from argparse import ArgumentParser, Namespace

from manifests.errors import NotFoundError, UsageError
from wherry.cli.arguments import add_connection, add_namespace, duration, transport_of, whole_number
from wherry.cli.commands.apply import change_text, result_line
from wherry.cli.kinds import Workload, did_you_mean, kind_of, read_workload
from wherry.cli.lookup import Item, Scope, get_workload, not_found
from wherry.cli.text import Table, age, clean, say, style_of
from wherry.cli.transport import Transport

ACTIONS = ("status", "history", "undo", "pause", "resume", "promote")
STATUS_TIMEOUT_S = 600.0
MOST_CHANGES_SHOWN = 4
NOTES = """
  status    follow it until it is complete; exit code 1 if it fails or is reverted, 5 if it isn't done in time
  history   the kept versions, newest first: what each changed, why, and whether it was ever healthy
  undo      go back to the last version that was healthy, or to that of --to
  pause     renew nothing until it is resumed; what is there is kept up
  resume    go on
  promote   go on past the canaries"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("action", metavar="ACTION", help=", ".join(ACTIONS))
    parser.add_argument("what", nargs="+", metavar="KIND/NAME", help="a service or a daemon")
    parser.add_argument("--to", type=whole_number, metavar="N", help="of undo: the version to go back to")
    parser.add_argument(
        "--timeout", type=duration, default=STATUS_TIMEOUT_S, metavar="TIME", help="of status: follow so long at most"
    )
    parser.add_argument(
        "-o", "--output", choices=("table", "json"), default="table", help="of history (default: table)"
    )
    add_namespace(parser)
    add_connection(parser)


def run(arguments: Namespace) -> int:
    action = arguments.action
    if action not in ACTIONS:
        raise UsageError(
            f"a rollout has no '{action}'{did_you_mean(action, ACTIONS)}", fix=f"It has: {', '.join(ACTIONS)}."
        )
    if arguments.to is not None and action != "undo":
        raise UsageError(f"{action} takes no --to", fix="Only undo goes to a version.")
    workload = read_workload(arguments.what, arguments.namespace)
    check_kind(workload)
    transport = transport_of(arguments)
    if action == "status":
        return _status(transport, workload, arguments.timeout)
    if action == "history":
        return _history(transport, workload, arguments.output)
    body = {"version": arguments.to} if arguments.to is not None else None
    result = act(transport, workload, action, body)
    told = {"pause": "paused", "resume": "resumed", "promote": "promoted"}.get(action)
    if told is None:
        print(result_line(result), flush=True)
    else:
        print(f"{workload} {'was' if result.get('action') == 'unchanged' else 'is'} {told}", flush=True)
    return 0


def check_kind(workload: Workload) -> None:
    if workload.kind not in ("service", "daemon"):
        raise UsageError(f"a {workload.kind} has no rollouts", fix="Name a service or a daemon.")


def act(transport: Transport, workload: Workload, action: str, body: object = None) -> Item:
    """Say it to the server, and return the result. Raises NotFoundError with the nearest name."""
    try:
        result: Item = transport.post(f"{workload.path}/rollout/{action}", body)
    except NotFoundError as error:
        get_workload(transport, workload)  # which knows the nearest name, if it is this that isn't there
        raise error from None
    return result


def _status(transport: Transport, workload: Workload, timeout_s: float) -> int:
    from wherry.cli.waiting import wait_until_rolled_out

    get_workload(transport, workload)
    try:
        line = wait_until_rolled_out(transport, workload, 0, timeout_s)
    except KeyboardInterrupt:
        say("Stopped following. The rollout goes on.")
        raise
    print(line, flush=True)
    return 0


def _history(transport: Transport, workload: Workload, output: str) -> int:
    try:
        items = transport.get(f"{workload.path}/versions")["items"]
    except NotFoundError:
        raise not_found(transport, Scope(kind_of(workload.kind), (), workload.namespace), workload.name) from None
    if output == "json":
        print(json.dumps({"items": items}, indent=2, ensure_ascii=True))
        return 0
    now_s = time.time()
    table = Table(("VERSION", "AGE", "HEALTHY", "ALLOCATIONS", "BY", "CAUSE"), style_of(sys.stdout), is_cut=False)
    print("\n".join(table.render([_row(item, now_s) for item in items])))
    return 0


def _row(item: Item, now_s: float) -> list[str]:
    is_present, is_target = item.get("isPresent"), item.get("isTarget")
    marks = " (present)" if is_present and is_target else " (failed)" if is_present else " (runs)" if is_target else ""
    changes = [change_text(change) for change in item.get("changes") or []]
    told = ", ".join(changes[:MOST_CHANGES_SHOWN]) + (", …" if len(changes) > MOST_CHANGES_SHOWN else "")
    cause = clean(item.get("cause"))
    return [
        f"{item.get('version')}{marks}",
        age(item.get("createdAt"), now_s),
        "yes" if item.get("wasHealthy") else "no",
        str(item.get("allocations", 0)),
        clean(item.get("changedBy")) or "-",
        f"{cause}: {told}" if told else cause,
    ]
