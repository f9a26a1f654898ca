"""`wherry logs`: what the containers of one allocation, or of all of a workload, wrote."""

import os
import sys
import threading
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from typing import Any

from manifests.errors import NotFoundError, UnavailableError, WherryError
from wherry.cli import lookup
from wherry.cli.arguments import add_connection, add_namespace, connection_of, whole_number
from wherry.cli.connection import Connection
from wherry.cli.kinds import ALLOCATIONS, Workload, read_workload
from wherry.cli.lookup import Item, Scope
from wherry.cli.text import say, style_of
from wherry.cli.timed_lines import TimedLines
from wherry.cli.transport import Query, Transport, segment
from wherry.cli.waiting import TERMINAL

LOOK_EVERY_S = 1.0
_HAS_CONTAINER = frozenset({"running", "backoff", "stopping", "stopped", "succeeded", "failed", "unknown"})
NOTES = """  wherry logs web-0-1f3a9c2e --tail 20"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("target", metavar="TARGET", help="an allocation's id, or service/web for all its allocations")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what is written, until all have ended")
    parser.add_argument("--tail", type=whole_number, metavar="N", help="only the last N lines of each")
    add_namespace(parser)
    add_connection(parser)


def run(arguments: Namespace) -> int:
    connection = connection_of(arguments)
    find = _finder(arguments.target, arguments.namespace)
    allocations = find(Transport(connection))
    if not allocations:
        say(f"{arguments.target} has no allocations." + _hint(arguments.target))
        return 0
    query: Query = {"follow": "true" if arguments.follow else None, "tail": arguments.tail, "timestamps": "true"}
    reader = _Reader(connection, query, has_prefix=len(allocations) > 1)
    if arguments.follow:
        return reader.follow(find)
    return reader.read_once(allocations)


def _finder(target: str, namespace: str) -> Callable[[Transport], list[Item]]:
    """Return what looks up the allocations that are meant, now or later."""
    kind, slash, name = target.partition("/")
    if slash and kind.lower() not in ("allocation", "alloc"):
        workload = read_workload([target], namespace)
        return lambda transport: _of_workload(transport, workload)
    allocation = name if slash else target
    return lambda transport: [_of_id(transport, allocation)]


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


def _of_id(transport: Transport, allocation: str) -> Item:
    try:
        return lookup.get_named(transport, Scope(ALLOCATIONS, (allocation,), None))[0]
    except NotFoundError as error:
        workloads: list[Item] = transport.get("/v1/workloads")["items"]
        same = next((w for w in workloads if w.get("name") == allocation), None)
        if same is None:
            raise
        fix = f"For all allocations of the workload: wherry logs {lookup.workload_of(same)}"
        raise NotFoundError(error.what.split(";")[0], fix=fix) from None


class _Reader:
    """Copies streams to standard output, each by a thread of its own, line by line where there are several."""

    def __init__(self, connection: Connection, query: Query, *, has_prefix: bool) -> None:
        self._connection, self._query = connection, query
        self._has_prefix = has_prefix
        self._lock = threading.Lock()
        self._style = style_of(sys.stdout)
        self._failures: dict[str, WherryError] = {}
        self._newest: dict[str, str] = {}  # allocation: when the last line was written that was read
        self._read: dict[str, str] = {}  # allocation: the container whose stream was opened last
        self._threads: dict[str, threading.Thread] = {}
        self._is_closed = False  # standard output

    def read_once(self, allocations: list[Item]) -> int:
        for allocation in allocations:
            self._start(allocation)
        while any(thread.is_alive() for thread in self._threads.values()):
            time.sleep(0.02)
        self._raise_if_closed()
        if len(allocations) == 1 and self._failures:
            raise next(iter(self._failures.values()))
        for name, error in self._failures.items():
            say(f"{name}: {error.what}" + (f": {error.why}" if error.why else ""))
        return 1 if self._failures else 0

    def follow(self, find: Callable[[Transport], list[Item]]) -> int:
        """Read until all allocations have ended for good, their next attempts and successors included."""
        transport = Transport(self._connection)
        while True:
            try:
                allocations = find(transport)
            except NotFoundError:
                allocations = []
            except UnavailableError as error:
                say(f"The server doesn't answer, trying again: {error.why or error.what}")
                time.sleep(LOOK_EVERY_S)
                continue
            for allocation in allocations:
                self._start_if_new(allocation)
            is_over = all(a.get("phase") in TERMINAL for a in allocations)
            if is_over and not any(thread.is_alive() for thread in self._threads.values()):
                return 0
            self._raise_if_closed()
            time.sleep(LOOK_EVERY_S if self._read else 0.2)

    def _start_if_new(self, allocation: Item) -> None:
        """Open a stream for an allocation's container, once for each container that it has had."""
        name, container = str(allocation["id"]), str(allocation.get("containerId") or "")
        thread = self._threads.get(name)
        if allocation.get("phase") not in _HAS_CONTAINER or (thread and thread.is_alive()):
            return
        failure = self._failures.pop(name, None)
        if failure is not None:
            say(f"{name}: {failure.what}" + (f": {failure.why}" if failure.why else ""))
        if failure is not None or self._read.get(name) != container:
            self._has_prefix = self._has_prefix or (bool(self._read) and name not in self._read)
            self._read[name] = container
            self._start(allocation)

    def _start(self, allocation: Mapping[str, Any]) -> None:
        name = str(allocation["id"])
        thread = threading.Thread(target=self._copy, args=(name,), name=f"logs-{name}", daemon=True)
        self._threads[name] = thread
        thread.start()

    def _copy(self, allocation: str) -> None:
        """Copy one stream; of an allocation that was read before, what came since."""
        transport = Transport(self._connection)
        newest = self._newest.get(allocation, "")
        lines, rest = TimedLines(newest), b""
        query = {**self._query, "tail": None, "since": newest} if newest else self._query
        try:
            with transport.open_stream(f"/v1/allocations/{segment(allocation)}/logs", query) as response:
                while chunk := transport.read_chunk(response):
                    rest = self._write(allocation, rest + lines.feed(chunk))
                    self._newest[allocation] = lines.newest
        except WherryError as error:
            self._failures[allocation] = error
        except OSError:
            self._is_closed = True
        rest += lines.end()
        if rest and not self._is_closed:
            self._write(allocation, rest + b"\n")

    def _write(self, allocation: str, data: bytes) -> bytes:
        """Write whole lines with the allocation's id before each, and return what is left; all of it if unprefixed."""
        if not self._has_prefix:
            self._out(data)
            return b""
        *lines, rest = data.split(b"\n")
        prefix = f"{self._style.paint(allocation, 'dim')} | ".encode()
        if lines:
            self._out(b"".join(prefix + line + b"\n" for line in lines))
        return rest

    def _out(self, data: bytes) -> None:
        with self._lock:
            view = memoryview(data)
            while view:
                view = view[os.write(1, view) :]

    def _raise_if_closed(self) -> None:
        if self._is_closed:
            raise BrokenPipeError
