"""Copies files out of containers and into them, through the root of their processes as the kernel shows it.

So it works whatever is in the image, on volumes and in memory alike, and `foundation.trees` never leaves that root.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import IO, TypeAlias

from agent.driver import LogChunk
from agent.drivers.container_processes import cgroups_of
from agent.drivers.descriptors import read_some, write_all
from foundation.trees import Say, pack, place_for, resolve, unpack
from manifests.errors import DriverError, InvalidError, NotFoundError, WherryError

_MOST_SAID = 100  # of what was left out
_FULL = "Look at the volume's or the node's free space, and whether the container's root is read-only."


@dataclass(frozen=True, slots=True)
class Place:
    """A path inside a container, by a process of it."""

    pid: int
    container: str
    path: str
    name: str  # of what is put there, where it is a folder


def reading(place: Place) -> "_Copying":
    """Return what gives that as a tar archive."""

    def work(root: int, file: IO[bytes], say: Say) -> None:
        found = resolve(root, place.path)
        try:
            if not found.mode:
                raise FileNotFoundError(place.path)
            pack(found, file, say)
        finally:
            os.close(found.parent)

    return _copying(place, work, is_write=False)


def writing(place: Place) -> "_Copying":
    """Return what takes a tar archive and puts it there, as the container's own user."""

    def work(root: int, file: IO[bytes], say: Say) -> None:
        status = os.stat(f"/proc/{place.pid}")
        found = place_for(root, place.path, place.name)
        try:
            unpack(found, file, say, owner=(status.st_uid, status.st_gid), keeps_links=True)
        finally:
            os.close(found.parent)

    return _copying(place, work, is_write=True)


class Copy:
    """Implements agent.driver.Attached: a thread on the other end of a pipe."""

    def __init__(self, work: Callable[[Say], None], descriptor: int, *, is_write: bool) -> None:
        self._descriptor, self._is_write = descriptor, is_write
        self._said: list[str] = []
        self._working = asyncio.ensure_future(asyncio.to_thread(work, self._say))
        self._has_input_ended = False

    def _say(self, text: str) -> None:
        if len(self._said) < _MOST_SAID:
            self._said.append(text)

    async def read(self) -> LogChunk | None:
        if not self._is_write and (data := await read_some(self._descriptor)):
            return LogChunk("stdout", data)
        await asyncio.wait([self._working])
        if self._said:
            said, self._said = self._said, []
            return LogChunk("stderr", "".join(f"{line}\n" for line in said).encode())
        return None

    async def write(self, data: bytes) -> None:
        if self._is_write and not self._has_input_ended:
            await write_all(self._descriptor, data)

    async def end_input(self) -> None:
        if self._is_write and not self._has_input_ended:
            self._has_input_ended = True
            os.close(self._descriptor)

    async def resize(self, columns: int, rows: int) -> None:
        """There is no terminal."""

    async def exit_code(self) -> int:
        await self._working
        return 0

    async def close(self) -> None:
        """Close the pipe, which ends the thread."""
        if not self._has_input_ended:
            self._has_input_ended = True
            os.close(self._descriptor)
        with suppress(WherryError):
            await self._working


_Copying: TypeAlias = AbstractAsyncContextManager[Copy]


@asynccontextmanager
async def _copying(
    place: Place, work: Callable[[int, IO[bytes], Say], None], *, is_write: bool
) -> AsyncGenerator[Copy, None]:
    theirs, ours = os.pipe()
    if not is_write:
        theirs, ours = ours, theirs
    os.set_blocking(ours, False)
    copy = Copy(lambda say: _work(place, work, theirs, say, is_write=is_write), ours, is_write=is_write)
    try:
        yield copy
    finally:
        await asyncio.shield(copy.close())


def _work(
    place: Place, work: Callable[[int, IO[bytes], Say], None], descriptor: int, say: Say, *, is_write: bool
) -> None:
    with os.fdopen(descriptor, "rb" if is_write else "wb", buffering=256 * 1024) as file:
        try:
            root = os.open(f"/proc/{place.pid}/root", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                if place.container not in cgroups_of(place.pid):
                    raise ProcessLookupError(place.pid)
                work(root, file, say)
                if is_write:
                    while file.read(65536):  # the padding behind the archive
                        pass
            finally:
                os.close(root)
        except BrokenPipeError:
            pass  # whoever reads has left
        except Exception as error:
            raise _translated(place, error) from error


def _translated(place: Place, error: Exception) -> WherryError:
    what = f"cannot copy {place.path}"
    if isinstance(error, FileNotFoundError):
        return NotFoundError(f"{what}: there is no such file or folder in the container")
    if isinstance(error, OSError):
        why = (error.strerror or str(error)) + (f" ({error.filename})" if isinstance(error.filename, str) else "")
        return DriverError(what, why=why, fix=_FULL)
    return InvalidError(what, why=str(error) or type(error).__name__)
