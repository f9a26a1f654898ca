"""Takes the times off the lines of a log, and remembers the newest: where a stream breaks off, the next one goes on.

Pure. Bytes come as they may be cut; what is known to be text is passed on at once, also of a line that isn't whole.
"""

import re

TIME_BYTES = len("2026-11-24T22:15:00.123456789Z")
_TIME = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z ")


class TimedLines:
    """`newest` is the time of the last whole line passed on. Lines up to `after` were read before: left out."""

    def __init__(self, after: str = "") -> None:
        self.newest = after
        self._after = after.encode()
        self._start = b""  # of a line whose time isn't whole yet
        self._time = after  # of the present line
        self._is_within = False  # a line
        self._is_left_out = False  # that line

    def feed(self, data: bytes) -> bytes:
        """Return the text in it, without times.

        >>> TimedLines().feed(b"2026-11-24T22:15:00.123456789Z hello\\n2026-11-24T22:15:01.0")
        b'hello\\n'
        """
        text: list[bytes] = []
        data, self._start = self._start + data, b""
        while data:
            if not self._is_within:
                if len(data) <= TIME_BYTES and not _is_plain(data):
                    self._start = data
                    break
                data = self._begin(data)
            line, newline, data = data.partition(b"\n")
            if not self._is_left_out:
                text.append(line + newline)
            self._is_within = not newline
            if newline:
                self.newest = self._time
        return b"".join(text)

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
        self._is_left_out = time <= self._after
        if not self._is_left_out:
            self._time = time.decode()
        return data[TIME_BYTES + 1 :]


def _is_plain(start: bytes) -> bool:
    """Say whether it can't become a time any more."""
    template = b"0000-00-00T00:00:00.000000000Z "
    return any(chr(byte).isdigit() != chr(like).isdigit() for byte, like in zip(start, template, strict=False))
