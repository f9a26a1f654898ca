"""Streams with input (exec, files, connections) that callers of the API have open on one agent's session.

Each direction has a window: the agent sends no more than its reader made room for, and the server asks the caller for
no more than the agent took.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field

from control_plane.log_streams import MOST_WAITING_BYTES, LogStreams
from manifests.errors import UnavailableError
from manifests.session import LOG_WINDOW_BYTES, MoreInput, StreamData, StreamEnded

_AGAIN = "What it did until then is done. Look at the node, then run it again."


@dataclass(slots=True)
class AttachedStream:
    """One stream, between the agent's session and a caller."""

    number: int
    ended: StreamEnded | None = None
    waiting: deque[StreamData] = field(default_factory=deque)
    waiting_bytes: int = 0
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    room_bytes: int = LOG_WINDOW_BYTES
    has_room: asyncio.Event = field(default_factory=asyncio.Event)

    async def read(self) -> StreamData | None:
        """Return what came next of the output, None at the end; then `ended` says how."""
        while not self.waiting:
            if self.ended is not None:
                return None
            self.woken.clear()
            await self.woken.wait()
        data = self.waiting.popleft()
        self.waiting_bytes -= len(data.data)
        return data

    async def take_room(self, count: int) -> None:
        """Return once the agent has room for more input, and count it as used."""
        while self.room_bytes <= 0:
            self.has_room.clear()
            await self.has_room.wait()
        self.room_bytes -= count

    def end(self, ended: StreamEnded) -> None:
        self.ended = self.ended or ended
        self.woken.set()


class AttachedStreams:
    """The open ones of one session. Their numbers are unlike those of the session's logs."""

    def __init__(self, logs: LogStreams) -> None:
        self._logs = logs
        self._streams: dict[int, AttachedStream] = {}

    @property
    def is_idle(self) -> bool:
        return not self._streams

    def open(self) -> AttachedStream:
        stream = AttachedStream(self._logs.next_number())
        self._streams[stream.number] = stream
        return stream

    def close(self, number: int) -> None:
        self._streams.pop(number, None)

    def feed(self, data: StreamData) -> None:
        if (stream := self._streams.get(data.stream)) is None:
            return
        if stream.waiting_bytes + len(data.data) > MOST_WAITING_BYTES:
            stream.end(_broken(data.stream, "the agent sent more than it was asked for"))
            return
        stream.waiting.append(data)
        stream.waiting_bytes += len(data.data)
        stream.woken.set()

    def grant(self, more: MoreInput) -> None:
        if (stream := self._streams.get(more.stream)) is not None:
            stream.room_bytes += more.count
            stream.has_room.set()

    def end(self, ended: StreamEnded) -> None:
        if (stream := self._streams.pop(ended.stream, None)) is not None:
            stream.end(ended)

    def end_all(self, why: str) -> None:
        for number in list(self._streams):
            self.end(_broken(number, why))


def _broken(number: int, why: str) -> StreamEnded:
    what = "the connection to the container broke off"
    return StreamEnded(stream=number, what=what, why=why, fix=_AGAIN, status=UnavailableError.http_status)
