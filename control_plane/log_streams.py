"""Log streams that readers of the API have open on one agent's session: numbers out, bytes back."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from manifests.errors import UnavailableError, WherryError

MOST_CHUNKS_WAITING = 512  # a reader that is further behind is cut off, so that it can't hold the session up


@dataclass(slots=True)
class _Stream:
    chunks: asyncio.Queue[bytes | None] = field(default_factory=lambda: asyncio.Queue(MOST_CHUNKS_WAITING))
    error: str = ""

    def end(self, error: str = "") -> None:
        self.error = self.error or error
        if self.chunks.full():
            self.chunks.get_nowait()
        self.chunks.put_nowait(None)


class LogStreams:
    """The open streams of one session."""

    def __init__(self) -> None:
        self._streams: dict[int, _Stream] = {}
        self._last_number = 0

    def open(self) -> int:
        """Return the number of a new stream."""
        self._last_number += 1
        self._streams[self._last_number] = _Stream()
        return self._last_number

    def close(self, number: int) -> None:
        self._streams.pop(number, None)

    def feed(self, number: int, data: bytes) -> None:
        stream = self._streams.get(number)
        if stream is None:
            return
        try:
            stream.chunks.put_nowait(data)
        except asyncio.QueueFull:
            self._streams.pop(number)
            stream.end("the reader was too slow, and the stream was cut: read again with a shorter --tail")

    def end(self, number: int, error: str) -> None:
        stream = self._streams.pop(number, None)
        if stream:
            stream.end(error)

    def end_all(self, error: str) -> None:
        for number in list(self._streams):
            self.end(number, error)

    async def read(self, number: int) -> AsyncIterator[bytes]:
        """Yield the stream's bytes until it ends. Raises UnavailableError if it ended with an error."""
        stream = self._streams.get(number)
        if stream is None:
            return
        while (chunk := await stream.chunks.get()) is not None:
            yield chunk
        if stream.error:
            raise _ended(stream.error)


def _ended(error: str) -> WherryError:
    return UnavailableError("the log stream broke off", why=error)
