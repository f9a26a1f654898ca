"""The user's terminal while a command elsewhere uses it: raw, of known size, and as it was in the end."""

import os
import sys
import termios
import threading
import tty
from asyncio import AbstractEventLoop, Queue, run_coroutine_threadsafe
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_READ_BYTES = 32 * 1024


def size(descriptor: int = 1) -> tuple[int, int]:
    """Return its columns and rows."""
    try:
        found = os.get_terminal_size(descriptor)
    except OSError:
        return 80, 24
    return found.columns or 80, found.lines or 24


@contextmanager
def raw(descriptor: int) -> Iterator[None]:
    """Pass every key on for the block, Ctrl-C too; then restore what was."""
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def read_input(loop: AbstractEventLoop, queue: Queue[bytes]) -> None:
    """Put what comes from standard input into the queue, nothing at its end, as the queue has room.

    By a thread that doesn't keep the process: files, pipes and terminals alike can be read so, and none can be left.
    """

    def read() -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody asks any more
            while True:
                data = os.read(sys.stdin.fileno(), _READ_BYTES)
                run_coroutine_threadsafe(queue.put(data), loop).result()
                if not data:
                    return

    threading.Thread(target=read, name="standard input", daemon=True).start()
