"""Reads a container's log files in the format of agent.drivers.log_lines, also while they grow and are rotated.

The newest file has the plain name, older ones have `.1`, `.2`, ... behind it. Knows files, no container manager.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO

from agent.driver import LogChunk
from agent.drivers.log_lines import FULL, LogLines, earlier, full_time
from foundation.clock import Clock
from manifests.errors import DriverError

OLDER_FILES = 2
_READ_BYTES = 256 << 10
_BLOCK_BYTES = 64 << 10
_POLL_S = (0.02, 0.25)  # while it writes, and after it has been silent for a while
_ASK_EVERY_S = 0.5


async def read_log(
    path: Path,
    *,
    clock: Clock,
    has_ended: Callable[[], Awaitable[bool]] | None,
    tail: int | None,
    timed: bool,
    since: str,
) -> AsyncGenerator[LogChunk, None]:
    """Yield what is in the files: the last `tail` lines or all, from `since` on.

    With `has_ended`, goes on with what follows until that is true and all is read, even if there is no file yet.
    """
    lines = LogLines(is_timed=timed, since=since)
    with ExitStack() as opened:
        file = await asyncio.to_thread(_open_at, path, tail, since, opened)
        is_last, pause_s, asked_s = has_ended is None, _POLL_S[0], clock.now_s()
        while True:
            if file is not None and (data := await asyncio.to_thread(file.read, _READ_BYTES)):
                pause_s = _POLL_S[0]
                for chunk in lines.feed(data):
                    yield chunk
                continue
            if (newer := await asyncio.to_thread(_newer, path, file, opened)) is not None:
                if file is not None:
                    for chunk in lines.feed(await asyncio.to_thread(file.read)):  # until the newer one was there
                        yield chunk
                    file.close()
                file = newer
                continue
            if is_last or has_ended is None:
                return
            await clock.sleep(pause_s)
            pause_s = min(_POLL_S[1], 1.5 * pause_s)
            if clock.now_s() - asked_s >= _ASK_EVERY_S:
                is_last, asked_s = await has_ended(), clock.now_s()


def rotate(path: Path) -> None:
    """Move the files on by one name, and delete the oldest. The manager writes on into `.1` until it reopens."""
    for number in range(OLDER_FILES, 0, -1):
        with suppress(FileNotFoundError):
            _older(path, number - 1).replace(_older(path, number))


def remove_logs(path: Path) -> None:
    for number in range(OLDER_FILES + 1):
        _older(path, number).unlink(missing_ok=True)


def _older(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}") if number else path


def _files(path: Path) -> list[Path]:
    """Return the names of all files that there may be, oldest first."""
    return [_older(path, number) for number in range(OLDER_FILES, -1, -1)]


def _open_at(path: Path, tail: int | None, since: str, opened: ExitStack) -> BinaryIO | None:
    """Open the file in which to begin, at the place where to begin; None without any."""
    wanted, chosen = tail, None
    for name in reversed(_files(path)):
        if (file := _opened(name, opened)) is None:
            continue
        chosen = file
        if wanted is None:
            file.seek(_offset_before(file, earlier(since)) if since else 0)
            continue
        offset, wanted = _tail_offset(file, wanted)
        file.seek(offset)
        if not wanted:
            break
    return chosen


def _newer(path: Path, file: BinaryIO | None, opened: ExitStack) -> BinaryIO | None:
    """Open the file that was begun after this one, None if this is the newest."""
    own = os.fstat(file.fileno()).st_ino if file is not None else -1
    found: Path | None = None
    for name in reversed(_files(path)):
        with suppress(FileNotFoundError):
            if name.stat().st_ino == own:
                break
            found = name
    return _opened(found, opened) if found is not None else None  # None also if it is rotated this moment: look again


def _opened(name: Path, opened: ExitStack) -> BinaryIO | None:
    try:
        return opened.enter_context(name.open("rb"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DriverError(
            f"cannot read the log {name}", why=error.strerror or str(error), fix="Run the agent as root."
        ) from error


def _tail_offset(file: BinaryIO, wanted: int) -> tuple[int, int]:
    """Return where the last `wanted` lines begin, and how many of them are in older files."""
    begin = file.seek(0, os.SEEK_END)
    if not wanted:
        return begin, 0
    data, starts = b"", list[int]()
    while begin and len(starts) < wanted:
        end, begin = begin, max(0, begin - _BLOCK_BYTES)
        file.seek(begin)
        data = file.read(end - begin) + data
        starts = [begin + offset for offset in _line_starts(data, is_whole=begin == 0)]
    return (starts[-wanted], 0) if len(starts) >= wanted else (0, wanted - len(starts))


def _line_starts(data: bytes, *, is_whole: bool) -> Iterator[int]:
    """Yield where lines begin: after an entry that ended one. Unless `is_whole`, the first entry is cut off."""
    ended, offset = is_whole, 0
    for number, entry in enumerate(data.split(b"\n")[:-1]):
        if ended:
            yield offset
        fields = entry.split(b" ", 3)
        ended = len(fields) > 2 and fields[2].startswith(FULL) and (is_whole or number > 0)
        offset += len(entry) + 1


def _offset_before(file: BinaryIO, time: bytes) -> int:
    """Return where a line begins before the first of that time or later, found by halves: times only go up."""
    low, high = 0, file.seek(0, os.SEEK_END)
    while high - low > _BLOCK_BYTES:
        middle = (low + high) // 2
        file.seek(middle)
        file.readline()
        at = file.tell()
        line = file.readline()
        if at < high and line and full_time(line.partition(b" ")[0]) < time:
            low = at
        else:
            high = middle
    return low
