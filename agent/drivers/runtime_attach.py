"""A command that an OCI runtime runs inside a container, attached to: by pipes, or by a terminal which we make.

The runtime stays in the foreground and ends as the command does. With a terminal it is given one end of ours, copies
between that and the one inside, and follows our size when it gets a SIGWINCH.
"""

import asyncio
import fcntl
import os
import signal
import struct
import subprocess
import termios
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from agent.driver import ExecSpec, LogChunk
from agent.drivers.descriptors import ended, read_some, write_all
from foundation.tasks import TaskGroup

_SIZE_TRIES, _SIZE_PAUSE_S = 50, 0.02
_QUEUED = 4  # chunks of output that wait for a reader


class RuntimeProcess:
    """Implements agent.driver.Attached."""

    def __init__(self, process: "subprocess.Popen[bytes]", terminal: int | None, pid_file: Path) -> None:
        self._process, self._terminal, self._pid_file = process, terminal, pid_file
        self._output: asyncio.Queue[LogChunk | None] = asyncio.Queue(_QUEUED)
        self._input = terminal if terminal is not None else process.stdin.fileno() if process.stdin else None

    async def pump(self) -> None:
        """Read its output until there is no more; the queue's bound holds it back."""
        sources = [("stdout", self._terminal)] if self._terminal is not None else self._pipes()
        async with TaskGroup() as tasks:
            for name, descriptor in sources:
                if descriptor is not None:
                    tasks.create_task(self._pump_one(name, descriptor), name=f"exec {name}")
        await self._output.put(None)

    def _pipes(self) -> list[tuple[str, int | None]]:
        pipes = (("stdout", self._process.stdout), ("stderr", self._process.stderr))
        return [(name, pipe.fileno() if pipe else None) for name, pipe in pipes]

    async def _pump_one(self, name: str, descriptor: int) -> None:
        with suppress(OSError):
            while data := await read_some(descriptor):
                await self._output.put(LogChunk(name, data))

    async def read(self) -> LogChunk | None:
        return await self._output.get()

    async def write(self, data: bytes) -> None:
        if self._input is not None:
            await write_all(self._input, data)

    async def end_input(self) -> None:
        if self._terminal is not None:
            await write_all(self._terminal, b"\x04")
        elif self._process.stdin is not None:
            self._input = None
            self._process.stdin.close()

    async def resize(self, columns: int, rows: int) -> None:
        if self._terminal is not None:
            set_size(self._terminal, columns, rows)
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGWINCH)
            for _ in range(_SIZE_TRIES):  # runc tells the pid a moment after the command has begun
                with suppress(OSError, ValueError):
                    self._resize_inside(columns, rows)
                    return
                await asyncio.sleep(_SIZE_PAUSE_S)

    def _resize_inside(self, columns: int, rows: int) -> None:
        """Set the size of the command's own terminal: crun passes no new size on."""
        inside = os.open(f"/proc/{int(self._pid_file.read_text())}/fd/0", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            if os.isatty(inside):
                set_size(inside, columns, rows)
        finally:
            os.close(inside)

    async def exit_code(self) -> int:
        descriptor = os.pidfd_open(self._process.pid)
        try:
            await ended(descriptor)
        finally:
            os.close(descriptor)
        code = self._process.wait()
        return code if code >= 0 else 128 - code

    def close(self, end: Callable[[bool], None]) -> None:
        """End what still runs of it. Blocks."""
        is_running = self._process.poll() is None
        end(is_running)
        if is_running:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        if self._terminal is not None:
            os.close(self._terminal)


def set_size(terminal: int, columns: int, rows: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def start(command: Sequence[str], spec: ExecSpec, pid_file: Path) -> RuntimeProcess:
    """Start the runtime's command, which writes the pid of the command inside to `pid_file`.

    Blocks for a moment: for a thread.
    """
    if not spec.has_terminal:
        given = subprocess.PIPE if spec.has_input else subprocess.DEVNULL
        process = subprocess.Popen(
            command, stdin=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                os.set_blocking(pipe.fileno(), False)
        return RuntimeProcess(process, None, pid_file)
    ours, theirs = os.openpty()
    try:
        set_size(ours, spec.columns, spec.rows)
        process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    os.set_blocking(ours, False)
    return RuntimeProcess(process, ours, pid_file)


@asynccontextmanager
async def attached(process: RuntimeProcess, end: Callable[[bool], None]) -> AsyncGenerator[RuntimeProcess, None]:
    """Attach to it for the block. `end`, which blocks, kills the command inside if it is told that it still runs."""
    pumping = asyncio.create_task(process.pump(), name="exec output")
    try:
        yield process
    finally:
        pumping.cancel()
        await asyncio.wait([pumping])
        await asyncio.shield(asyncio.to_thread(process.close, end))
