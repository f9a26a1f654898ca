"""Takes apart the log format of the CRI, which containerd, CRI-O and Podman's conmon write. Pure.

A line is `TIME STREAM TAG TEXT`, e.g. `2026-11-24T22:15:00.123456789Z stdout F hello`. TAG begins with F where the text
ends a line and with P where the line goes on in the next entry of that stream: managers cut long lines, and pass on
what was written without a newline. TIME is RFC 3339 in the manager's zone, without zeros at the end.
Source: Kubernetes' design proposal "CRI: Log management for container stdout/stderr streams".
"""

import re
from datetime import UTC, datetime, timedelta

from agent.driver import LogChunk

FULL = b"F"
_STREAMS = {b"stdout": "stdout", b"stderr": "stderr"}
_TIME = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?(Z|[+-]\d\d:\d\d)")
MARGIN_S = 0.001  # more nanoseconds than a manager reads lines at once
_FULL_LENGTH = len("2026-11-24T22:15:00.123456789Z")


class LogLines:
    """Turns the bytes of such a file, cut anywhere, into what the container wrote.

    `is_timed` puts the time before each line, and not before its later pieces. Lines before `since` are left out. Lines
    that came together have one time in the file: here each next one is a nanosecond later, so that a reader may go on
    from any of them. For that, begin MARGIN_S before `since`.
    """

    def __init__(self, *, is_timed: bool = False, since: str = "") -> None:
        self._is_timed = is_timed
        self._since = since.encode()
        self._rest = b""
        self._time = self._told = b""  # of the last line: as it is in the file, and as it was told
        self._goes_on: dict[str, bool] = {}  # by stream whose last entry was a piece: whether that line is wanted

    def feed(self, data: bytes) -> list[LogChunk]:
        """Return what the bytes complete, in order; what comes together of one stream is passed on together."""
        *entries, self._rest = (self._rest + data).split(b"\n")
        runs: list[tuple[str, list[bytes]]] = []
        for entry in entries:
            time, _, after = entry.partition(b" ")
            name, _, after = after.partition(b" ")
            tag, _, text = after.partition(b" ")
            if (stream := _STREAMS.get(name)) is None:
                continue  # half an entry: the manager was killed while it wrote
            pieces = self._pieces(stream, time, is_full=tag.startswith(FULL), text=text)
            if not pieces:
                continue
            if not runs or runs[-1][0] != stream:
                runs.append((stream, []))
            runs[-1][1].extend(pieces)
        return [LogChunk(stream, b"".join(pieces)) for stream, pieces in runs]

    def _pieces(self, stream: str, time: bytes, *, is_full: bool, text: bytes) -> list[bytes]:
        is_wanted = self._goes_on.pop(stream, None)
        pieces = [text]
        if is_wanted is None:  # a line begins
            if self._is_timed or self._since:
                time = self._told = self._later(full_time(time))
            is_wanted = not self._since or time >= self._since
            if self._is_timed:
                pieces = [time, b" ", text]
        if is_full:
            pieces.append(b"\n")
        else:
            self._goes_on[stream] = is_wanted
        return pieces if is_wanted else []

    def _later(self, time: bytes) -> bytes:
        if time != self._time:
            self._time = time
            return time
        nanoseconds = int(self._told[20:29]) + 1
        return b"%s%09dZ" % (self._told[:20], nanoseconds) if nanoseconds < 1_000_000_000 else self._told


def earlier(time: str) -> bytes:
    """Return the time less MARGIN_S.

    >>> earlier("2026-11-24T22:15:00.000123456Z")
    b'2026-11-24T22:14:59.999123456Z'
    """
    moment = datetime.fromisoformat(time[:26] + "+00:00") - timedelta(seconds=MARGIN_S)
    return f"{moment:%Y-%m-%dT%H:%M:%S.%f}{time[26:]}".encode()


def full_time(time: bytes) -> bytes:
    """Return the time in UTC with nine digits, so that times compare as text; unchanged if it is no time.

    >>> full_time(b"2026-11-24T22:15:00.5Z"), full_time(b"2026-11-24T23:15:00.123456789+01:00")
    (b'2026-11-24T22:15:00.500000000Z', b'2026-11-24T22:15:00.123456789Z')
    """
    if len(time) == _FULL_LENGTH and time.endswith(b"Z"):
        return time  # the usual case
    match = _TIME.fullmatch(time)
    if match is None:
        return time
    whole, fraction, zone = match.groups()
    if zone not in (b"Z", b"+00:00"):
        moment = datetime.fromisoformat((whole + zone).decode()).astimezone(UTC)
        whole = moment.strftime("%Y-%m-%dT%H:%M:%S").encode()
    return b"%s.%sZ" % (whole, (fraction or b"").ljust(9, b"0"))
