"""Logs as conmon writes them: `2026-11-24T22:15:00.123456789+00:00 stdout F text`, and over several files of rotation.

F ends a line, P says that it goes on in the next entry of that stream. The newest file is `log`, then `log.1`, `log.2`.
Source of the format: the Kubernetes CRI logging design.
"""

import asyncio
import os
import re
import stat
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from agent.driver import LogChunk
from agent.drivers.oci_inotify import Inotify

FILE_BYTES = 10 << 20  # a container's logs take so many files of that size at most
FILES = 3
MOST_BATCH_BYTES = 64 * 1024
_BLOCK_BYTES = 64 * 1024
_LOOK_S = 1.0  # should a hint be lost
_FRACTION_AT = len("2026-11-24T22:15:00.")
_ENTRY = re.compile(rb"(\S+?)(?:Z|[+-]00:00) (stdout|stderr) ([FP])(?::\S+)? ?(.*)", re.DOTALL)


class LogReader:
    """Turns entries into what the container wrote. `timed` and `since` as in agent.driver.

    conmon gives all lines that it reads at once the same time. Here each is a nanosecond later than the one before, so
    that a time names one line, and who goes on from there sees none twice.
    """

    def __init__(self, *, timed: bool, since: str) -> None:
        self._timed = timed
        self._since = since.encode()
        self._told = b""  # the time of the last entry, as conmon wrote it
        self._repeats = 0  # how many entries before had that same time
        self._is_within_line: dict[bytes, bool] = {}

    def read(self, entries: Iterable[bytes], *, skip: int = 0) -> list[LogChunk]:
        """Return the output of these entries but the first `skip`, what comes together of one stream in one piece."""
        runs: list[tuple[bytes, list[bytes]]] = []
        for number, entry in enumerate(entries):
            match = _ENTRY.fullmatch(entry)
            if match is None:
                continue  # half an entry, of a machine that lost power
            time, stream, kind, text = match.groups()
            when = self._time(time)
            if number < skip or (self._since and when < self._since):
                continue
            if not runs or runs[-1][0] != stream:
                runs.append((stream, []))
            pieces = runs[-1][1]
            if self._timed and not self._is_within_line.get(stream):
                pieces.append(when + b" ")
            pieces.append(text)
            self._is_within_line[stream] = kind == b"P"
            if kind == b"F":
                pieces.append(b"\n")
        return [LogChunk(stream.decode(), b"".join(pieces)) for stream, pieces in runs]

    def _time(self, told: bytes) -> bytes:
        self._repeats = self._repeats + 1 if told == self._told else 0
        self._told = told
        if not self._repeats or len(told) < _FRACTION_AT + 9:
            return told + b"Z"
        later = min(int(told[_FRACTION_AT:]) + self._repeats, 999_999_999)
        return b"%s%09dZ" % (told[:_FRACTION_AT], later)


def files_of(log: Path) -> list[Path]:
    """Return the log's files that there are, the oldest first."""
    names = [log.with_name(f"{log.name}.{number}") for number in range(FILES - 1, 0, -1)]
    return [file for file in (*names, log) if file.exists()]


async def read_log(
    log: Path, *, follow: bool, tail: int | None, timed: bool, since: str, inotify: Inotify, has_ended: asyncio.Event
) -> AsyncGenerator[LogChunk, None]:
    """Yield what the log holds, and while `follow`, what comes, until the container has ended."""
    reader = LogReader(timed=timed, since=since)
    with inotify.watch(log.parent) as hint, _Position(log) as position:
        if tail is not None:
            lines, before = await asyncio.to_thread(position.last_entries, tail)
            for chunk in reader.read(lines, skip=before):
                yield chunk
        while True:
            was_over = has_ended.is_set()  # before the last look: conmon has written all by then
            while lines := await asyncio.to_thread(position.next_entries):
                for chunk in reader.read(lines):
                    yield chunk
            if not follow or was_over:
                return
            await _either(hint, has_ended)


async def _either(hint: asyncio.Event, has_ended: asyncio.Event) -> None:
    """Return when something was written, or the container has ended, or after a while in any case."""
    waits = [asyncio.ensure_future(event.wait()) for event in (hint, has_ended)]
    try:
        await asyncio.wait(waits, timeout=_LOOK_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    hint.clear()


class _Position:
    """Where a reader is in a log: an open file, which stays the same when it is renamed, and how far it was read."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._file: BinaryIO | None = None
        self._rest = b""

    def __enter__(self) -> "_Position":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def next_entries(self) -> list[bytes]:
        """Return entries that come next, none if there are none yet. Passes on to the next file at a file's end."""
        if self._file is None:
            self._open(next(iter(files_of(self._log)), None))
        while self._file is not None:
            newer = self._newer()  # looked for before the read: when it is there, the old one gets nothing more
            data = self._file.read(MOST_BATCH_BYTES)
            if data:
                *entries, self._rest = (self._rest + data).split(b"\n")
                if entries:
                    return entries
            elif newer is None:
                return []
            else:
                self._open(newer)
        return []

    def last_entries(self, lines: int) -> tuple[list[bytes], int]:
        """Return the entries of the last lines, and stand behind them.

        Before them come some of the same time as the first, so that it can be told apart; also returned is how many.
        """
        files = files_of(self._log)
        self._open(files[-1] if files else None)
        if self._file is None:
            return [], 0
        end = _end_of_entries(self._file)
        if lines < 1:
            self._file.seek(end)
            return [], 0
        kept: deque[bytes] = deque()
        count = before = 0
        for entry in self._entries_backwards(files, end):
            count += entry.split(b" ", 3)[2:3] == [b"F"]
            if count > lines:
                if entry.split(b" ", 1)[0] != kept[0].split(b" ", 1)[0]:
                    break
                before += 1
            kept.appendleft(entry)
        self._file.seek(end)
        return list(kept), before

    def _entries_backwards(self, files: list[Path], end: int) -> Iterator[bytes]:
        """Yield entries from the last to the first, over all files; of the newest, at hand, only those before `end`."""
        assert self._file is not None
        yield from _backwards(self._file, end)
        for path in reversed(files[:-1]):
            with suppress(FileNotFoundError), path.open("rb", buffering=0) as file:
                yield from _backwards(file, _end_of_entries(file))

    def _newer(self) -> Path | None:
        """Return the file that follows the one at hand; None while that is the newest."""
        assert self._file is not None
        here = os.fstat(self._file.fileno())
        files = files_of(self._log)
        for file, newer in pairwise(files):
            with suppress(OSError):
                if _is_same(file.stat(), here):
                    return newer
        with suppress(OSError):
            if _is_same(self._log.stat(), here):
                return None
        return files[0] if files and here.st_nlink == 0 else None  # it was rotated away while we read it

    def _open(self, path: Path | None) -> None:
        if self._file is not None:
            self._file.close()
        self._file, self._rest = (None if path is None else path.open("rb", buffering=0)), b""


def _is_same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino) and stat.S_ISREG(one.st_mode)


def _end_of_entries(file: BinaryIO) -> int:
    """Return where the last whole entry ends."""
    at = file.seek(0, os.SEEK_END)
    while at > 0:
        start = max(0, at - _BLOCK_BYTES)
        file.seek(start)
        found = file.read(at - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        at = start
    return 0


def _backwards(file: BinaryIO, end: int) -> Iterator[bytes]:
    """Yield the entries before `end`, where one ends, the last first."""
    at, rest = max(0, end - 1), b""
    while at > 0:
        start = max(0, at - _BLOCK_BYTES)
        file.seek(start)
        rest, *entries = (file.read(at - start) + rest).split(b"\n")
        at = start
        yield from reversed(entries)
    if end > 0:
        yield rest


def rotate_all(logs: Iterable[Path]) -> None:
    for log in logs:
        rotate(log)


def rotate(log: Path) -> None:
    """Move the log aside if it is full, and have conmon begin a new one. The oldest file goes."""
    try:
        if log.stat().st_size < FILE_BYTES:
            return
    except FileNotFoundError:
        return
    for number in range(FILES - 1, 0, -1):
        source = log if number == 1 else log.with_name(f"{log.name}.{number - 1}")
        with suppress(FileNotFoundError):
            source.rename(log.with_name(f"{log.name}.{number}"))
    reopen(log)


def reopen(log: Path) -> None:
    """Have conmon open the log anew, by its control pipe; it ended if nobody reads that."""
    with suppress(OSError):
        descriptor = os.open(log.with_name("ctl"), os.O_WRONLY | os.O_NONBLOCK)
        try:
            os.write(descriptor, b"2 0 0\n")
        finally:
            os.close(descriptor)
