"""`wherry logs`: what the containers of one allocation, or of all of a workload, wrote, in order of time."""

import re
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable

from manifests.errors import NotFoundError, UsageError
from wherry.cli import lookup
from wherry.cli.arguments import add_connection, add_namespace, connection_of, duration, whole_number
from wherry.cli.kinds import ALLOCATIONS, Workload, read_workload
from wherry.cli.log_reader import LogReader
from wherry.cli.lookup import Item, Scope
from wherry.cli.text import say
from wherry.cli.transport import Query, Transport

_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d)(:\d\d)?(\.\d{1,9})?Z?")
NOTES = """  wherry logs web-0-1f3a9c2e --tail 20
  wherry logs web-0-1f3a9c2e -c proxy -f
  wherry logs web --since 10m
  wherry logs web-0-1f3a9c2e --previous     # why it crashed"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("target", metavar="TARGET", help="an allocation's id, or service/web for all its allocations")
    parser.add_argument("-c", "--container", metavar="NAME", help="only this container of a group (default: all)")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what is written, until all have ended")
    parser.add_argument("--tail", type=whole_number, metavar="N", help="only the last N lines of each container")
    parser.add_argument(
        "--since", type=moment, metavar="TIME", help="only from then on: 10m ago, or 2026-11-24T22:15:00Z"
    )
    parser.add_argument("-p", "--previous", action="store_true", help="of the attempt before the present one")
    add_namespace(parser)
    add_connection(parser)


def run(arguments: Namespace) -> int:
    if arguments.previous and arguments.follow:
        raise UsageError("--previous and -f don't go together", why="an attempt that is over writes no more")
    connection = connection_of(arguments)
    transport = Transport(connection)
    find = _finder(transport, arguments.target, arguments.namespace)
    allocations = find(transport)
    if not allocations:
        say(f"{arguments.target} has no allocations." + _hint(arguments.target))
        return 0
    query: Query = {
        "follow": "true" if arguments.follow else None,
        "tail": arguments.tail,
        "timestamps": "true",
        "since": arguments.since,
        "previous": "true" if arguments.previous else None,
    }
    reader = LogReader(connection, query, container=arguments.container)
    return reader.follow(find) if arguments.follow else reader.read_once(allocations)


def moment(text: str) -> str:
    """Return a time as logs write it, from a time (UTC) or from how long ago it was, as argparse's `type`.

    >>> moment("2026-11-24 22:15")
    '2026-11-24T22:15:00.000000000Z'
    """
    if found := _TIME.fullmatch(text):
        day, minute, second, fraction = found.groups()
        return f"{day}T{minute}{second or ':00'}.{(fraction or '.')[1:]:0<9}Z"
    try:
        ago_s = duration(text)
    except ArgumentTypeError as error:
        raise ArgumentTypeError(f"'{text}' is neither a time such as 2026-11-24T22:15:00Z nor one ago: 10m") from error
    at_s = time.time() - ago_s
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at_s)) + f".{int(at_s % 1 * 1e9):09d}Z"


def _finder(transport: Transport, target: str, namespace: str) -> Callable[[Transport], list[Item]]:
    """Return what looks up the allocations that are meant, now or later. A name alone is an allocation's id, or else
    that of the one workload which has it.
    """
    kind, slash, name = target.partition("/")
    if slash and kind.lower() not in ("allocation", "alloc"):
        workload = read_workload([target], namespace)
        return lambda transport: _of_workload(transport, workload)
    id_ = name if slash else target
    try:
        lookup.get_named(transport, Scope(ALLOCATIONS, (id_,), None))
    except NotFoundError as error:
        same = _workloads_named(transport, id_, namespace)
        if len(same) != 1:
            either = " or ".join(f"wherry logs {w}" for w in same)
            raise NotFoundError(error.what, why=error.why, fix=f"Say {either}." if either else error.fix) from None
        workload = same[0]
        return lambda transport: _of_workload(transport, workload)
    return lambda transport: lookup.get_named(transport, Scope(ALLOCATIONS, (id_,), None))


def _workloads_named(transport: Transport, name: str, namespace: str) -> list[Workload]:
    items: list[Item] = transport.get("/v1/workloads", {"namespace": namespace})["items"]
    return [lookup.workload_of(w) for w in items if w.get("name") == name and w.get("namespace") == namespace]


def _of_workload(transport: Transport, workload: Workload) -> list[Item]:
    allocations = lookup.allocations_of(transport, workload)
    if not allocations:
        lookup.get_workload(transport, workload)  # says that there is none of that name
    return allocations


def _hint(target: str) -> str:
    """Say where the logs of a CronJob are."""
    kind, _, name = target.partition("/")
    is_cron = kind.lower() in ("cronjob", "cronjobs", "cj")
    return f" Its jobs have: `wherry describe cronjob {name}` names them." if is_cron else ""
