"""Follows changes: rows of `get --watch` as they change, and a wake-up for those who wait.

A watch that breaks off is opened again, from a new list; so nothing is missed, though steps in between may be.
"""

import json
import queue
import sys
import threading
import time
from collections.abc import Iterator
from typing import Self

from manifests.errors import (
    CompactedError,
    ForbiddenError,
    UnauthorizedError,
    UnavailableError,
    UsageError,
    WherryError,
)
from wherry.cli import lookup
from wherry.cli.commands.get import empty_sentence, view_of
from wherry.cli.connection import Connection
from wherry.cli.lookup import Item, Scope
from wherry.cli.tables import kind_and_name, name_of
from wherry.cli.text import Table, say, style_of
from wherry.cli.transport import Transport

RETRY_S = 1.0
_LEAST = {"STATE": len("progressing"), "PHASE": len("succeeded"), "HEALTH": len("unhealthy")}
_Key = tuple[str, str, str]


def follow(transport: Transport, scope: Scope, output: str) -> int:
    """Print the items of a scope, and then each as it changes, until interrupted."""
    if output == "yaml":
        raise UsageError("-o yaml can't be watched", fix="Use -o json, which prints one object a line.")
    printer = _Printer(scope, output)
    for action, item in _changes(transport, scope, printer):
        printer.print(action, item)
    return 0


def _changes(transport: Transport, scope: Scope, printer: "_Printer") -> Iterator[tuple[str, Item]]:
    """Yield (put or delete, item) for ever."""
    is_first, known = True, set[_Key]()
    while True:
        try:
            revision, items = lookup.list_items(transport, scope)
            if is_first:
                printer.print_first(items)
            else:
                yield from (("put", item) for item in items)
                gone = known - {_key(scope, item) for item in items}
                yield from (("delete", {"namespace": ns, "kind": kind, "name": n, "id": n}) for ns, kind, n in gone)
            known = {_key(scope, item) for item in items}
            is_first = False
            types = lookup.WATCH_TYPES.get(scope.kind, "workload")
            for change in transport.watch(types=types, after=revision):
                item = change.get("object") or {}
                if change.get("action") in ("put", "delete") and scope.holds(item):
                    (known.add if change["action"] == "put" else known.discard)(_key(scope, item))
                    yield change["action"], item
        except CompactedError:
            continue
        except UnavailableError as error:
            if is_first:
                raise
            say(f"The connection was lost, trying again: {error.why or error.what}")
        time.sleep(RETRY_S)


def _key(scope: Scope, item: Item) -> _Key:
    return str(item.get("namespace", "")), str(item.get("kind", "")), name_of(scope.kind, item)


class _Printer:
    """Prints items in one format; in a table, an item whose row hasn't changed is not printed again."""

    def __init__(self, scope: Scope, output: str) -> None:
        self._scope, self._output = scope, output
        self._style = style_of(sys.stdout)
        self._table = Table(view_of(scope, output).headings(), self._style, is_cut=output != "wide", least=_LEAST)
        self._printed: dict[_Key, list[str]] = {}

    def print_first(self, items: list[Item]) -> None:
        if self._output in ("json", "name"):
            for item in items:
                self.print("put", item)
            return
        rows = [self._row(item) for item in items]
        self._printed = {_key(self._scope, i): self._unaged(i) for i in items}
        if not items:
            say(empty_sentence(self._scope))
        print("\n".join(self._table.render(rows)), flush=True)

    def print(self, action: str, item: Item) -> None:
        if self._output == "json":
            print(json.dumps({"action": action, "object": item}), flush=True)
        elif self._output == "name":
            print(kind_and_name(self._scope.kind, item) + (" deleted" if action == "delete" else ""), flush=True)
        elif action == "delete":
            self._printed.pop(_key(self._scope, item), None)
            print(self._style.paint(f"{name_of(self._scope.kind, item)} was deleted", "dim"), flush=True)
        elif self._printed.get(_key(self._scope, item)) != (shown := self._unaged(item)):
            self._printed[_key(self._scope, item)] = shown
            print("\n".join(self._table.render_rows([self._row(item)])), flush=True)

    def _row(self, item: Item) -> list[str]:
        return view_of(self._scope, self._output).row(item)

    def _unaged(self, item: Item) -> list[str]:
        """Return the row at a fixed time, so that a row differs only when something happened."""
        return view_of(self._scope, self._output)._replace(now_s=0.0).row(item)


class Waker:
    """Wakes a waiting command when something changes. The watch is only a hint: without it one looks now and then.

    Leaving its block ends the watching, at the latest when the stream says its next word.
    """

    def __init__(self, connection: Connection, types: str) -> None:
        self._connection, self._types = connection, types
        self._hints: queue.Queue[None] = queue.Queue(maxsize=1)
        self._is_closed = False
        threading.Thread(target=self._run, name="waker", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_closed = True

    def wait(self, timeout_s: float) -> None:
        """Return when something has changed since the last call, or after the timeout."""
        try:
            self._hints.get(timeout=max(timeout_s, 0.01))
        except queue.Empty:
            return

    def _run(self) -> None:
        transport = Transport(self._connection)
        while not self._is_closed:
            try:
                for change in transport.watch(types=self._types):
                    if self._is_closed:
                        return
                    if change.get("type") != "progress":
                        self._hint()
            except (UnauthorizedError, ForbiddenError):
                return
            except WherryError:
                pass  # the waiting command meets the same error when it looks, and says it
            time.sleep(RETRY_S)

    def _hint(self) -> None:
        try:
            self._hints.put_nowait(None)
        except queue.Full:
            return  # one hint is as good as many
