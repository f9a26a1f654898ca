"""Reads the logs of many containers at once, each by a thread of its own, and writes them in order of time.

A reader waits while its lines wait for their turn, so memory stays small: its connection fills, then its server stops
asking, then its agent stops reading. Nothing is dropped on the way.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from manifests.errors import NotFoundError, UnavailableError, WherryError
from wherry.cli.connection import Connection
from wherry.cli.log_merge import Line, LogMerge
from wherry.cli.lookup import Item
from wherry.cli.text import say, style_of
from wherry.cli.timed_lines import TimedLines
from wherry.cli.transport import Query, Transport, segment
from wherry.cli.waiting import TERMINAL

LOOK_EVERY_S = 1.0
MOST_LINE_BYTES = 64 * 1024  # a longer one is shown as several
PATIENCE_S = 10.0  # for a log that doesn't come, where all are read to their ends
_COLOURS = ("cyan", "yellow", "green", "magenta", "blue", "red")
_HAS_CONTAINER = frozenset({"running", "backoff", "stopping", "stopped", "succeeded", "failed", "unknown"})


class Source(NamedTuple):
    """One container whose log is read."""

    allocation: str
    container: str  # of a group, else ""
    id: str  # what the node's manager calls the present one
    phase: str

    @property
    def name(self) -> str:
        return f"{self.allocation}/{self.container}" if self.container else self.allocation


def sources_of(allocation: Mapping[str, Any], only: str | None) -> list[Source]:
    """Return the containers of an allocation, or the one that is meant."""
    id_, group = str(allocation["id"]), allocation.get("containers") or []
    named = [(str(c.get("name")), c) for c in group if only is None or c.get("name") == only]
    of = named or [(only or "", allocation)]
    return [Source(id_, name, str(c.get("containerId") or ""), str(c.get("phase") or "")) for name, c in of]


class LogReader:
    """`query` is what is asked of each log."""

    def __init__(self, connection: Connection, query: Query, *, container: str | None) -> None:
        self._connection, self._query, self._container = connection, query, container
        self._has_prefix = False
        self._changed = threading.Condition()  # guards the next two
        self._merge = LogMerge()
        self._failures: dict[str, WherryError] = {}
        self._newest: dict[str, str] = {}  # source: when the last line was written that was read
        self._read: dict[str, str] = {}  # source: the container whose stream was opened last
        self._threads: dict[str, threading.Thread] = {}
        self._style = style_of(sys.stdout)
        self._prefixes: dict[str, bytes] = {}

    def read_once(self, allocations: list[Item]) -> int:
        sources = [source for allocation in allocations for source in sources_of(allocation, self._container)]
        self._has_prefix = len(sources) > 1
        self._merge = LogMerge(hold_s=PATIENCE_S, start_s=PATIENCE_S)
        if self._has_prefix:  # what has not been started has no log, and there are others to show
            sources = [source for source in sources if source.phase in _HAS_CONTAINER]
        for source in sources:
            self._start(source)
        self._write_until(lambda: not self._is_reading())
        if len(sources) == 1 and self._failures:
            raise next(iter(self._failures.values()))
        for name, error in self._failures.items():
            _say_failure(name, error)
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
                self._write_for(LOOK_EVERY_S)
                continue
            sources = [source for allocation in allocations for source in sources_of(allocation, self._container)]
            for source in sources:
                self._start_if_new(source, is_alone=len(sources) == 1)
            if all(a.get("phase") in TERMINAL for a in allocations) and not self._is_reading():
                self._write_until(lambda: self._merge.is_empty)
                return 0
            self._write_for(LOOK_EVERY_S if self._read else 0.2)

    def _start_if_new(self, source: Source, *, is_alone: bool) -> None:
        """Open a stream for a source, once for each container that it has had."""
        thread = self._threads.get(source.name)
        if source.phase not in _HAS_CONTAINER or (thread and thread.is_alive()):
            return
        with self._changed:
            failure = self._failures.pop(source.name, None)
        if failure is not None:
            _say_failure(source.name, failure)
        if failure is not None or self._read.get(source.name) != source.id:
            is_another = bool(self._read) and source.name not in self._read
            self._has_prefix = self._has_prefix or is_another or not is_alone
            self._read[source.name] = source.id
            self._start(source)

    def _start(self, source: Source) -> None:
        with self._changed:
            self._merge.open(source.name, time.monotonic())
        thread = threading.Thread(target=self._copy, args=(source,), name=f"logs-{source.name}", daemon=True)
        self._threads[source.name] = thread
        thread.start()

    def _is_reading(self) -> bool:
        return any(thread.is_alive() for thread in self._threads.values())

    def _copy(self, source: Source) -> None:
        """Read one stream; of a container that was read before, what came since."""
        transport = Transport(self._connection)
        newest = self._newest.get(source.name, "")
        lines, rest = TimedLines(newest), b""
        query: dict[str, Any] = {**self._query, "container": source.container or self._container}
        query |= {"tail": None, "since": newest} if newest else {}
        try:
            with transport.open_stream(f"/v1/allocations/{segment(source.allocation)}/logs", query) as response:
                while chunk := transport.read_chunk(response):
                    rest = self._take(source.name, lines.pieces(chunk), rest)
                    self._newest[source.name] = lines.newest
            if rest := rest + lines.end():  # it ended within a line
                self._add(source.name, [(lines.newest, rest + b"\n")])
        except WherryError as error:  # half a line comes again, whole
            with self._changed:
                self._failures[source.name] = error
        finally:
            with self._changed:
                self._merge.close(source.name)
                self._changed.notify_all()

    def _take(self, source: str, pieces: list[tuple[str, bytes]], rest: bytes) -> bytes:
        """Hand on the whole lines, and return what has begun. A log alone is shown as it comes, prompts and all."""
        if not self._has_prefix:
            self._add(source, pieces)
            return b""
        whole: list[tuple[str, bytes]] = []
        for at, piece in pieces:
            rest += piece
            if rest.endswith(b"\n") or len(rest) > MOST_LINE_BYTES:
                whole.append((at, rest if rest.endswith(b"\n") else rest + b"\n"))
                rest = b""
        self._add(source, whole)
        return rest

    def _add(self, source: str, lines: list[tuple[str, bytes]]) -> None:
        """Hand lines to the writer, waiting while it has too many."""
        with self._changed:
            self._changed.wait_for(lambda: self._merge.has_room(source))
            now_s = time.monotonic()
            for at, text in lines:
                self._merge.add(source, at, text, now_s)
            self._changed.notify_all()

    def _write_for(self, seconds: float) -> None:
        end_s = time.monotonic() + seconds
        self._write_until(lambda: time.monotonic() >= end_s, end_s)

    def _write_until(self, is_over: Callable[[], bool], end_s: float | None = None) -> None:
        """Write lines in their turn until it is over and, without an end in time, all of them are written."""
        while True:
            with self._changed:
                now_s = time.monotonic()
                lines = self._merge.take(now_s)
                if not lines:
                    if is_over() and (end_s is not None or self._merge.is_empty):
                        return
                    due = [due_s for due_s in (self._merge.due_s(now_s), end_s, now_s + 0.1) if due_s is not None]
                    self._changed.wait(max(0.001, min(due) - now_s))
                    continue
                self._changed.notify_all()  # there is room again
            self._out(b"".join(self._prefixed(line) for line in lines))
            if end_s is not None and is_over():
                return

    def _prefixed(self, line: Line) -> bytes:
        if not self._has_prefix:
            return line.text
        prefix = self._prefixes.get(line.source)
        if prefix is None:
            colour = _COLOURS[len(self._prefixes) % len(_COLOURS)]
            prefix = self._prefixes[line.source] = f"{self._style.paint(line.source, colour)} | ".encode()
        return prefix + line.text

    @staticmethod
    def _out(data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(1, view) :]


def _say_failure(name: str, error: WherryError) -> None:
    say(f"{name}: {error.what}" + (f": {error.why}" if error.why else ""))
