"""Serves streams with input over a session: commands inside containers, files, and connections.

Nothing is buffered beyond the stream's windows: output waits until its reader has made room, and the server sends no
more input than was taken.
"""

import asyncio
from collections import deque
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TypeAlias, assert_never

from agent.copies import Place, reading, writing
from agent.driver import Attached, Container, ContainerState, Driver, ExecSpec, SupportsAttach
from agent.forwards import connecting
from agent.group import Group
from agent.log_streams import MOST_CHUNK_BYTES, Window, member_of
from agent.tracked import Role
from agent.transport import Channel
from foundation.tasks import TaskGroup
from manifests.errors import ConflictError, DriverError, UnavailableError, WherryError
from manifests.session import (
    LOG_WINDOW_BYTES,
    STDERR,
    STDOUT,
    Attach,
    InputEnded,
    MoreInput,
    MoreLogs,
    OpenExec,
    OpenFiles,
    OpenForward,
    Resize,
    StreamData,
    StreamEnded,
)

MOST_STREAMS = 256
_Input: TypeAlias = StreamData | Resize | InputEnded


@dataclass(slots=True)
class _Stream:
    task: asyncio.Task[None] | None = None
    window: Window = field(default_factory=Window)
    input: deque[_Input] = field(default_factory=deque)
    input_bytes: int = 0
    has_input: asyncio.Event = field(default_factory=asyncio.Event)


class AttachedStreams:
    """The attached streams of one session; they end with its task group."""

    def __init__(self, driver: Driver, channel: Channel, tasks: TaskGroup) -> None:
        self._driver, self._channel, self._tasks = driver, channel, tasks
        self._open: dict[int, _Stream] = {}

    def open(self, ask: Attach, group: Group | None) -> None:
        if ask.stream in self._open:
            return
        is_full = len(self._open) >= MOST_STREAMS
        stream = self._open[ask.stream] = _Stream()
        stream.task = self._tasks.create_task(
            self._serve(ask, stream, group, is_full=is_full), name=f"{ask.type} {ask.allocation}"
        )
        stream.task.add_done_callback(lambda _: self._open.pop(ask.stream, None))

    def grant(self, more: MoreLogs) -> None:
        if (stream := self._open.get(more.stream)) is not None:
            stream.window.grant(more.count)

    def take(self, frame: _Input) -> None:
        """Take input in; a server that keeps to no window has its stream ended."""
        if (stream := self._open.get(frame.stream)) is None:
            return
        stream.input_bytes += len(frame.data) if isinstance(frame, StreamData) else 0
        if isinstance(frame, Resize) and stream.input and isinstance(stream.input[-1], Resize):
            stream.input.pop()  # only the last of them counts
        stream.input.append(frame)
        stream.has_input.set()
        if stream.input_bytes > 2 * LOG_WINDOW_BYTES and stream.task is not None:
            stream.task.cancel()

    def close(self, number: int) -> None:
        if (stream := self._open.get(number)) is not None and stream.task is not None:
            stream.task.cancel()

    async def _serve(self, ask: Attach, stream: _Stream, group: Group | None, *, is_full: bool) -> None:
        try:
            if is_full:
                raise UnavailableError(f"this node has {MOST_STREAMS} streams open already")
            ended = StreamEnded(stream=ask.stream, exit_code=await self._run(ask, stream, group))
        except WherryError as error:
            ended = StreamEnded(
                stream=ask.stream, what=error.what, why=error.why, fix=error.fix, status=error.http_status
            )
        await self._channel.send(ended)

    async def _run(self, ask: Attach, stream: _Stream, group: Group | None) -> int:
        container = await self._running(ask, group)
        async with self._attached(ask, container) as attached:
            feeding = asyncio.create_task(self._feed(ask.stream, stream, attached), name=f"input {ask.stream}")
            try:
                while (chunk := await attached.read()) is not None:
                    channel = STDERR if chunk.stream == "stderr" else STDOUT
                    for at in range(0, len(chunk.data), MOST_CHUNK_BYTES):
                        piece = chunk.data[at : at + MOST_CHUNK_BYTES]
                        await stream.window.take(len(piece))
                        await self._channel.send_bytes(StreamData(ask.stream, piece, channel).to_bytes())
                return await attached.exit_code()
            finally:
                feeding.cancel()
                await asyncio.wait([feeding])

    async def _feed(self, number: int, stream: _Stream, attached: Attached) -> None:
        """Hand on the input in the order in which it came."""
        while True:
            while not stream.input:
                stream.has_input.clear()
                await stream.has_input.wait()
            match frame := stream.input.popleft():
                case StreamData():
                    await attached.write(frame.data)
                    stream.input_bytes -= len(frame.data)
                    await self._channel.send(MoreInput(stream=number, count=len(frame.data)))
                case Resize():
                    await attached.resize(frame.columns, frame.rows)
                case InputEnded():
                    await attached.end_input()
                case _:
                    assert_never(frame)

    async def _running(self, ask: Attach, group: Group | None) -> Container:
        """Return the container that is meant, as it runs. For a connection, any of a group will do."""
        if isinstance(ask, OpenForward):
            members = [m for m in group.members if m.container is not None] if group is not None else []
            running = [m for m in members if m.container and m.container.state is ContainerState.RUNNING]
            tracked = running[0] if running else member_of(ask.allocation, members[0].name if members else "", group)
            if group is not None and not running and len(group.members) > 1:
                tracked = next(m for m in group.members if m.role is not Role.SANDBOX)
        else:
            tracked = member_of(ask.allocation, ask.container, group)
        known = tracked.container
        found = await self._driver.inspect(known.id) if known is not None else None
        if found is None or found.state is not ContainerState.RUNNING or not found.pid:
            of = f"container {tracked.name} of {ask.allocation}" if tracked.name else f"allocation {ask.allocation}"
            raise ConflictError(
                f"{of} doesn't run",
                why=tracked.status.message or f"it is {tracked.status.phase}",
                fix=f"`wherry describe allocation {ask.allocation}` tells why, `wherry logs` what it wrote.",
            )
        return found

    def _attached(self, ask: Attach, container: Container) -> AbstractAsyncContextManager[Attached]:
        match ask:
            case OpenExec():
                if not isinstance(self._driver, SupportsAttach):
                    raise DriverError("this node's driver can't run commands for somebody who is attached")
                return self._driver.attach_exec(
                    container.id, ExecSpec(ask.command, ask.has_input, ask.has_terminal, ask.columns, ask.rows)
                )
            case OpenFiles():
                place = Place(container.pid, container.id, ask.path, ask.name)
                return writing(place) if ask.is_write else reading(place)
            case OpenForward():
                return connecting(container, ask.port)
            case _:
                assert_never(ask)
