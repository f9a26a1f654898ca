"""A command in a container of Docker, attached to through the connection that its start becomes.

Source: Docker Engine API, "Attach to a container", on hijacking: without a terminal the output is multiplexed, and to
close the one direction ends the command's input.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress

from agent.driver import ExecSpec, LogChunk
from agent.drivers.docker_api import DockerApi
from agent.drivers.docker_codec import Frames, Json
from foundation.clock import Clock
from manifests.errors import ConflictError, DriverError, NotFoundError, UnavailableError

_READ_BYTES = 64 * 1024
_POLL_S = 0.02
_PID_S = 2.0
_END_S = 10.0  # the output closes a moment before docker knows of the end
_SIZE_TRIES = 20  # a terminal can only be resized once the command runs


class DockerExec:
    """Implements agent.driver.Attached."""

    def __init__(
        self,
        api: DockerApi,
        execution: str,
        spec: ExecSpec,
        clock: Clock,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._api, self._execution, self._clock = api, execution, clock
        self._reader, self._writer = streams
        self._frames = None if spec.has_terminal else Frames()
        self._waiting: deque[LogChunk] = deque()

    async def read(self) -> LogChunk | None:
        while not self._waiting:
            try:
                data = await self._reader.read(_READ_BYTES)
            except OSError as broken:
                raise UnavailableError("docker broke off the connection to a command", why=str(broken)) from broken
            if not data:
                return None
            self._waiting += [LogChunk("stdout", data)] if self._frames is None else self._frames.feed(data)
        return self._waiting.popleft()

    async def write(self, data: bytes) -> None:
        with suppress(OSError):
            self._writer.write(data)
            await self._writer.drain()

    async def end_input(self) -> None:
        with suppress(OSError):
            if self._frames is None:
                self._writer.write(b"\x04")
            else:
                self._writer.write_eof()

    async def resize(self, columns: int, rows: int) -> None:
        for _ in range(_SIZE_TRIES):
            with suppress(DriverError, NotFoundError, ConflictError):
                await self._api.exec_resize(self._execution, columns, rows)
                return
            await self._clock.sleep(_POLL_S)

    async def exit_code(self) -> int:
        until_s = self._clock.now_s() + _END_S
        while (ended := await self._api.exec_inspect(self._execution))["Running"]:
            if self._clock.now_s() > until_s:
                raise UnavailableError(
                    "docker doesn't tell how the command ended", why=f"its output closed {_END_S:g} s ago"
                )
            await self._clock.sleep(_POLL_S)
        return int(ended["ExitCode"] or 0)


@asynccontextmanager
async def attached_exec(
    api: DockerApi, container: str, spec: ExecSpec, clock: Clock, *, kill: Callable[[Json], None]
) -> AsyncGenerator[DockerExec, None]:
    """Run it for the block. `kill` ends what still runs of it."""
    try:
        execution = await api.exec_prepare(container, spec)
    except ConflictError as refused:
        raise DriverError(
            refused.what, why=refused.why, fix="It is not running: only a running container takes commands."
        ) from refused
    streams = await api.exec_attach(execution, has_terminal=spec.has_terminal)
    try:
        running = DockerExec(api, execution, spec, clock, streams)
        if spec.has_terminal:
            await running.resize(spec.columns, spec.rows)
        yield running
    finally:
        streams[1].close()
        with suppress(NotFoundError, UnavailableError, DriverError):
            kill(await _begun(api, execution, clock))


async def _begun(api: DockerApi, execution: str, clock: Clock) -> Json:
    """Return what docker says of a command once it knows its process: that is a moment after the first output."""
    until_s = clock.now_s() + _PID_S
    while True:
        said = await api.exec_inspect(execution)
        if (said["Pid"] and said["Running"]) or said["ExitCode"] is not None or clock.now_s() > until_s:
            return said
        await clock.sleep(_POLL_S)
