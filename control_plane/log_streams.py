"""Log streams that readers of the API have open on one agent's session: numbers out, bytes back.

An agent sends no more of a stream than its reader has made room for (`LOG_WINDOW_BYTES`, then what `MoreLogs` grants),
so a slow reader slows its own stream, and neither the session nor this server's memory suffers.
"""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from manifests.errors import NotFoundError, UnavailableError
from manifests.session import LOG_WINDOW_BYTES

MOST_WAITING_BYTES = 4 * LOG_WINDOW_BYTES  # an agent that sends more keeps to no window


@dataclass(slots=True)
class _Stream:
    waiting: bytearray = field(default_factory=bytearray)
    has_ended: bool = False
    error: str = ""
    status: int = 0
    woken: asyncio.Event = field(default_factory=asyncio.Event)

    def end(self, error: str, status: int) -> None:
        self.has_ended, self.error, self.status = True, error, status
        self.woken.set()


class LogStreams:
    """The open streams of one session."""

    def __init__(self) -> None:
        self._streams: dict[int, _Stream] = {}
        self._last_number = 0

    @property
    def is_idle(self) -> bool:
        return not self._streams

    def open(self) -> int:
        """Return the number of a new stream."""
        number = self.next_number()
        self._streams[number] = _Stream()
        return number

    def next_number(self) -> int:
        """Return one that no stream of this session had."""
        self._last_number += 1
        return self._last_number

    def close(self, number: int) -> None:
        self._streams.pop(number, None)

    def feed(self, number: int, data: bytes) -> None:
        stream = self._streams.get(number)
        if stream is None:
            return
        if len(stream.waiting) + len(data) > MOST_WAITING_BYTES:
            self.end(number, "the agent sent more than it was asked for")
            return
        stream.waiting += data
        stream.woken.set()

    def end(self, number: int, error: str, status: int = 0) -> None:
        stream = self._streams.pop(number, None)
        if stream:
            stream.end(error, status)

    def end_all(self, error: str) -> None:
        for number in list(self._streams):
            self.end(number, error)

    async def read(self, number: int) -> AsyncGenerator[bytes, None]:
        """Yield what has come, as soon as there is some, until the stream ends.

        Raises what the agent named, or else UnavailableError, after all that came, if it ended with an error.
        """
        stream = self._streams.get(number)
        if stream is None:
            return
        while stream.waiting or not stream.has_ended:
            if stream.waiting:
                data = bytes(stream.waiting)
                stream.waiting.clear()
                yield data
            else:
                stream.woken.clear()
                await stream.woken.wait()
        if stream.error and stream.status == NotFoundError.http_status:
            raise NotFoundError(stream.error)
        if stream.error:
            raise UnavailableError("the log stream broke off", why=stream.error)
