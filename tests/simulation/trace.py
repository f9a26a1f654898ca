"""What happened, in order: a hash over all of it, and the last of it in words."""

import asyncio
import gc
import hashlib
import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from tests.simulation.loop import CURRENT

KEPT = 50


class Trace:
    """`note` what happens in the world. Two runs are the same if their hashes are."""

    def __init__(self, *, is_verbose: bool = False) -> None:
        self._hash = hashlib.blake2b(digest_size=8)
        self.last: deque[str] = deque(maxlen=KEPT)
        self.count = 0
        self._is_verbose = is_verbose

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def note(self, *what: object) -> None:
        line = f"{asyncio.get_running_loop().time() - 1000:9.4f} {' '.join(map(str, what))}"
        self.count += 1
        self._hash.update(line.encode())
        self.tell(line)

    def tell(self, line: str) -> None:
        self.last.append(line)
        if self._is_verbose:
            print(line, flush=True)


class LogsIntoTrace(logging.Handler):
    """Shows what the processes log among the events, without making it part of the hash."""

    def __init__(self, trace: Trace) -> None:
        super().__init__(logging.INFO)
        self._trace = trace

    def emit(self, record: logging.LogRecord) -> None:
        process = CURRENT.get(None)
        try:
            now_s = asyncio.get_running_loop().time() - 1000
        except RuntimeError:
            return
        name = process.name if process else "?"
        self._trace.tell(f"{now_s:9.4f} {name} says: {record.getMessage()}")


@contextmanager
def undisturbed(trace: Trace | None = None) -> Iterator[None]:
    """Collect no garbage, since that would run clean-ups at random moments, and keep logs off the terminal.

    With a trace the logs are shown among its events.
    """
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = [LogsIntoTrace(trace)] if trace else []
    root.setLevel(logging.INFO if trace else logging.CRITICAL)
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        root.handlers[:] = handlers
        root.setLevel(level)
