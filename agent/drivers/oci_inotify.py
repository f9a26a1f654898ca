"""Tells when something changed in a folder, by Linux's inotify(7), without looking again and again."""

import asyncio
import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_IN_MODIFY, _IN_MOVED, _IN_CREATE = 0x2, 0xC0, 0x100
_EVENT = struct.Struct("iIII")
_libc = ctypes.CDLL(None, use_errno=True)


class Inotify:
    """Opens itself with the first watch, in the running loop; `close` it."""

    def __init__(self) -> None:
        self._descriptor = -1
        self._hints: dict[int, list[asyncio.Event]] = {}

    @contextmanager
    def watch(self, folder: Path) -> Iterator[asyncio.Event]:
        """Yield an event that is set whenever a file in the folder grows, comes or is renamed; clear it to wait again.

        Where the kernel has no more watches to give, the event is never set: look now and then in any case.
        """
        self._open()
        hint = asyncio.Event()
        number = _libc.inotify_add_watch(self._descriptor, os.fsencode(folder), _IN_MODIFY | _IN_MOVED | _IN_CREATE)
        if number < 0:
            yield hint
            return
        self._hints.setdefault(number, []).append(hint)
        try:
            yield hint
        finally:
            self._hints[number].remove(hint)
            if not self._hints[number]:
                del self._hints[number]
                _libc.inotify_rm_watch(self._descriptor, number)

    def close(self) -> None:
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> None:
        if self._descriptor < 0:
            self._descriptor = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
            if self._descriptor >= 0:
                asyncio.get_running_loop().add_reader(self._descriptor, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, 64 * 1024)
        except OSError:
            return
        at = 0
        while at < len(data):
            number, _, _, length = _EVENT.unpack_from(data, at)
            at += _EVENT.size + length
            for hint in self._hints.get(number, ()):
                hint.set()
