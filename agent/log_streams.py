"""Streams containers' logs over a session, on request. A slow reader slows its own stream, not the node or the session.

Of each stream no more is sent than its reader has made room for; nothing is buffered here.
"""

import asyncio
import struct
from dataclasses import dataclass, field

from agent.driver import ContainerId, Driver, LogChunk
from agent.group import Group
from agent.tracked import Role, Tracked
from agent.transport import Channel
from foundation.tasks import TaskGroup
from manifests.errors import NotFoundError, UnavailableError, WherryError
from manifests.session import LOG_WINDOW_BYTES, LogsEnded, MoreLogs, OpenLogs

MOST_STREAMS = 256
MOST_CHUNK_BYTES = 32 * 1024
_HEADER = struct.Struct(">IB")
_NUMBERS = {"stdout": 1, "stderr": 2}


@dataclass(slots=True)
class Window:
    """How much the reader has room for."""

    left_bytes: int = LOG_WINDOW_BYTES
    opened: asyncio.Event = field(default_factory=asyncio.Event)

    def grant(self, count: int) -> None:
        self.left_bytes += count
        self.opened.set()

    async def take(self, count: int) -> None:
        """Return once there is room, and count it as used."""
        while self.left_bytes <= 0:
            self.opened.clear()
            await self.opened.wait()
        self.left_bytes -= count


class LogStreams:
    """The open log streams of one session; they end with its task group."""

    def __init__(self, driver: Driver, channel: Channel, tasks: TaskGroup) -> None:
        self._driver = driver
        self._channel = channel
        self._tasks = tasks
        self._open: dict[int, asyncio.Task[None]] = {}
        self._windows: dict[int, Window] = {}

    def open(self, ask: OpenLogs, group: Group | None) -> None:
        if ask.stream in self._open:
            return
        is_full = len(self._open) >= MOST_STREAMS
        self._windows[ask.stream] = Window()
        task = self._tasks.create_task(self._serve(ask, group, is_full=is_full), name=f"logs {ask.allocation}")
        self._open[ask.stream] = task
        task.add_done_callback(lambda _: self._ended(ask.stream))

    def grant(self, more: MoreLogs) -> None:
        if (window := self._windows.get(more.stream)) is not None:
            window.grant(more.count)

    def close(self, stream: int) -> None:
        if (task := self._open.get(stream)) is not None:
            task.cancel()

    def _ended(self, stream: int) -> None:
        self._open.pop(stream, None)
        self._windows.pop(stream, None)

    async def _serve(self, ask: OpenLogs, group: Group | None, *, is_full: bool) -> None:
        error, status = "", 0
        try:
            if is_full:
                raise UnavailableError(f"this node streams {MOST_STREAMS} logs already")
            await self._pass_on(ask, container_of(ask, group))
        except WherryError as failure:
            error = f"{failure.what}: {failure.why}" if failure.why else failure.what
            status = failure.http_status
        await self._channel.send(LogsEnded(stream=ask.stream, error=error, status=status))

    async def _pass_on(self, ask: OpenLogs, container: ContainerId) -> None:
        window = self._windows[ask.stream]
        log = self._driver.logs(container, follow=ask.follow, tail=ask.tail, timed=ask.timed, since=ask.since)
        async for chunk in log:
            for frame in _frames(ask.stream, chunk):
                await window.take(len(frame) - _HEADER.size)
                await self._channel.send_bytes(frame)


def _frames(stream: int, chunk: LogChunk) -> list[bytes]:
    header = _HEADER.pack(stream, _NUMBERS.get(chunk.stream, 1))
    return [header + chunk.data[at : at + MOST_CHUNK_BYTES] for at in range(0, len(chunk.data), MOST_CHUNK_BYTES)]


def container_of(ask: OpenLogs, group: Group | None) -> ContainerId:
    """Return the current attempt's container, or between two attempts the last one's."""
    tracked = member_of(ask.allocation, ask.container, group)
    assert group is not None
    if ask.previous:
        return _previous_of(ask, tracked)
    if tracked.container is not None:
        return tracked.container.id
    if tracked.earlier:
        return tracked.earlier[-1]
    of = ask.allocation if group.is_alone else f"container {tracked.name} of {ask.allocation}"
    raise NotFoundError(
        f"allocation {of} has no container yet" if group.is_alone else f"{of} has not started yet",
        why=tracked.status.message or group.status.message,
    )


def _previous_of(ask: OpenLogs, tracked: Tracked) -> ContainerId:
    if not tracked.earlier:
        raise NotFoundError(
            f"{ask.allocation} has no earlier attempt here whose log is kept",
            why=f"attempt {tracked.status.attempt} is its first on this node, or an earlier one's container is gone",
        )
    return tracked.earlier[-1]


def member_of(allocation: str, container: str, group: Group | None) -> Tracked:
    """Return the one that was named, or the only one."""
    if group is None:
        raise NotFoundError(f"allocation {allocation} is not on this node")
    members = {member.name: member for member in group.members if member.role is not Role.SANDBOX}
    if container in members:
        return members[container]
    if not container and len(members) == 1:
        return next(iter(members.values()))
    have = ", ".join(members)
    if container:
        raise NotFoundError(f"allocation {allocation} has no container {container}: its containers are {have}")
    raise NotFoundError(f"allocation {allocation} has {len(members)} containers: name one of {have} (-c NAME)")
