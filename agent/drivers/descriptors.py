"""Reads and writes file descriptors (pipes, terminals) without blocking the loop. They must be in non-blocking mode."""

import asyncio
import errno
import os
from contextlib import suppress

READ_BYTES = 64 * 1024


async def read_some(descriptor: int) -> bytes:
    """Return what came next, nothing once no more comes. The other end of a terminal that is gone counts as that."""
    while True:
        try:
            return os.read(descriptor, READ_BYTES)
        except BlockingIOError:
            await _ready(descriptor, is_read=True)
        except OSError as error:
            if error.errno == errno.EIO:
                return b""
            raise


async def write_all(descriptor: int, data: bytes) -> None:
    """Return once all is written, or nobody reads it any more."""
    view = memoryview(data)
    with suppress(BrokenPipeError, OSError):
        while view:
            try:
                view = view[os.write(descriptor, view) :]
            except BlockingIOError:
                await _ready(descriptor, is_read=False)


async def ended(pidfd: int) -> None:
    """Return once the process of that descriptor has ended."""
    await _ready(pidfd, is_read=True)


async def _ready(descriptor: int, *, is_read: bool) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def tell() -> None:
        if not ready.done():
            ready.set_result(None)

    if is_read:
        loop.add_reader(descriptor, tell)
    else:
        loop.add_writer(descriptor, tell)
    try:
        await ready
    finally:
        if is_read:
            loop.remove_reader(descriptor)
        else:
            loop.remove_writer(descriptor)
