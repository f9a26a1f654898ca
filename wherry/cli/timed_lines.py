"""Takes the times off the lines of a log, and remembers the newest: where a stream breaks off, the next one goes on.

Pure. Bytes come as they may be cut; what is known to be text is passed on at once, also of a line that isn't whole.
"""

import re
from collections import deque

TIME_BYTES = len("2026-11-24T22:15:00.123456789Z")
_TIME = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z ")


RECENT = 4096  # lines among which one that goes back in time is looked for


class TimedLines:
    """`newest` is the time of the last whole line passed on. Lines up to `after` were read before: left out."""

    def __init__(self, after: str = "") -> None:
        self.newest = after
        self._after = after.encode()
        self._newest_begun = b""
        self._recent: deque[bytes] = deque(maxlen=RECENT)  # times of lines
        self._start = b""  # of a line whose time isn't whole yet
        self._time = after  # of the present line
        self._is_within = False  # a line
        self._is_left_out = False  # that line

    def feed(self, data: bytes) -> bytes:
        """Return the text in it, without times.

        >>> TimedLines().feed(b"2026-11-24T22:15:00.123456789Z hello\\n2026-11-24T22:15:01.0")
        b'hello\\n'
        """
        return b"".join(text for _, text in self.pieces(data))

    def pieces(self, data: bytes) -> list[tuple[str, bytes]]:
        """Return the same text line by line, each with its time; the last may be a part of a line."""
        found: list[tuple[str, bytes]] = []
        *whole, last = (self._start + data).split(b"\n")
        self._start = b""
        for text in [*(line + b"\n" for line in whole), *([last] if last else [])]:
            is_whole = text.endswith(b"\n")
            if not self._is_within:
                if not is_whole and len(text) <= TIME_BYTES and not _is_plain(text):
                    self._start = text
                    break
                text = self._begin(text)  # what is left of it
            if not self._is_left_out:
                found.append((self._time, text))
            self._is_within = not is_whole
            if is_whole:
                self.newest = self._time
        return found

    def end(self) -> bytes:
        """Return what is left at the end of the stream."""
        rest, self._start = self._start, b""
        return rest

    def _begin(self, data: bytes) -> bytes:
        """Return the line without its time."""
        self._is_within = True
        if not _TIME.match(data):  # an agent of an older version
            self._is_left_out = False
            return data
        time = data[:TIME_BYTES]
        self._is_left_out = time <= self._after or self._is_repeated(time)
        if not self._is_left_out:
            self._time = time.decode()
        return data[TIME_BYTES + 1 :]

    def _is_repeated(self, time: bytes) -> bool:
        """Say whether the line came before: Docker sends some again when it begins a new file for the log.

        Times have nanoseconds, so one that goes back and was there already is that line. A line of the other stream may
        go back a little as well, to a time of its own.
        """
        if time <= self._newest_begun and time in self._recent:
            return True
        self._newest_begun = max(self._newest_begun, time)
        self._recent.append(time)
        return False


def _is_plain(start: bytes) -> bool:
    """Say whether it can't become a time any more."""
    template = b"0000-00-00T00:00:00.000000000Z "
    return any(chr(byte).isdigit() != chr(like).isdigit() for byte, like in zip(start, template, strict=False))
