"""Puts the lines of several logs in the order in which they were written, while they come. Pure: time comes in.

Each log's own lines come in order. So the earliest line at hand may go as soon as every other log has a line at hand
too: none earlier can come. A log that says nothing must not hold up the others for ever, so a line waits for it no
longer than HOLD_S, and for one of which nothing was heard since it was opened START_S.
"""

import heapq
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

HOLD_S = 0.25  # longer than a line takes from a container to here
START_S = 2.0  # to open a log on a node that is busy
MOST_HELD_BYTES = 256 * 1024  # of one log; its reader waits then


class Line(NamedTuple):
    time: str
    source: str
    text: bytes  # with its newline


@dataclass(slots=True)
class _Log:
    opened_s: float
    is_open: bool = True
    has_spoken: bool = False
    held_bytes: int = 0
    lines: deque[tuple[str, bytes, float]] = field(default_factory=deque)  # time, text, when it came


class LogMerge:
    """Holds lines back until their turn has come."""

    def __init__(self, *, hold_s: float = HOLD_S, start_s: float = START_S) -> None:
        self._hold_s, self._start_s = hold_s, start_s
        self._logs: dict[str, _Log] = {}
        self._firsts: list[tuple[str, str]] = []  # a heap of the first line's time of each log that has one, and whose

    def open(self, source: str, now_s: float) -> None:
        """Expect lines of that log, perhaps once more."""
        known = self._logs.get(source)
        if known is None:
            self._logs[source] = _Log(now_s)
        else:
            known.opened_s, known.is_open, known.has_spoken = now_s, True, False

    def close(self, source: str) -> None:
        """Expect no more of it; what is held goes out in its turn."""
        if (log := self._logs.get(source)) is not None:
            log.is_open = False
            self._forget_if_over(source, log)

    def add(self, source: str, time: str, text: bytes, now_s: float) -> None:
        log = self._logs[source]
        log.has_spoken = True
        if not log.lines:
            heapq.heappush(self._firsts, (time, source))
        log.lines.append((time, text, now_s))
        log.held_bytes += len(text)

    def has_room(self, source: str) -> bool:
        log = self._logs.get(source)
        return log is None or log.held_bytes < MOST_HELD_BYTES

    @property
    def is_empty(self) -> bool:
        return not self._firsts

    def take(self, now_s: float) -> list[Line]:
        """Return the lines whose turn has come."""
        taken: list[Line] = []
        while self._firsts:
            _, source = self._firsts[0]
            log = self._logs[source]
            if self._due_s(log, now_s) > now_s:
                break
            heapq.heappop(self._firsts)
            time, text, _ = log.lines.popleft()
            log.held_bytes -= len(text)
            taken.append(Line(time, source, text))
            if log.lines:
                heapq.heappush(self._firsts, (log.lines[0][0], source))
            else:
                self._forget_if_over(source, log)
        return taken

    def due_s(self, now_s: float) -> float | None:
        """Return when the next line's turn comes even if no more is heard; None without a line."""
        return self._due_s(self._logs[self._firsts[0][1]], now_s) if self._firsts else None

    def _due_s(self, log: _Log, now_s: float) -> float:
        """Return when the first line of this log may go, which is the earliest at hand."""
        if len(self._firsts) == len(self._logs):
            return now_s
        came_s = log.lines[0][2]
        silent = [other for other in self._logs.values() if other.is_open and not other.lines]
        held = [came_s + self._hold_s if other.has_spoken else other.opened_s + self._start_s for other in silent]
        return max(held, default=now_s)

    def _forget_if_over(self, source: str, log: _Log) -> None:
        if not log.is_open and not log.lines:
            self._logs.pop(source, None)
