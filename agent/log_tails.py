"""The last lines that a container wrote before it ended, for those who ask why. Follows the node's records.

Read once for each attempt that ended, but for those that were asked to stop; a restart doesn't wait for it. A manager
that doesn't answer in time costs the lines and nothing else.
"""

import asyncio
import re

from agent.driver import ContainerId, ContainerState, Driver
from agent.node import Node
from agent.tracked import Tracked
from foundation.tasks import TaskGroup
from manifests.allocations import MOST_LOG_TAIL_BYTES, Phase
from manifests.errors import WherryError

MOST_LINES = 40
READ_TIMEOUT_S = 3.0
MOST_AT_ONCE = 2  # should everything crash at once, the manager has better to do
_KEPT_BYTES = 16 * 1024
_ESCAPE = re.compile(
    r"\x1b(?:\][^\x07\x1b]*(?:\x07|\x1b\\)?|\[[0-?]*[ -/]*[@-~]?|[PX^_][^\x1b]*(?:\x1b\\)?|.)?", re.DOTALL
)


def tail_of(data: bytes) -> tuple[str, ...]:
    """Return the last lines of the output, at most MOST_LOG_TAIL_BYTES in all, as plain text.

    >>> tail_of(b"\\x1b[31mred\\x1b[0m\\n10 %\\r90 %\\nno\\tluck\\x00\\n\\n")
    ('red', '90 %', 'no luck')
    """
    text = _ESCAPE.sub("", data.decode(errors="replace"))
    kept: list[str] = []
    left = MOST_LOG_TAIL_BYTES
    for line in reversed([_plain(line) for line in text.split("\n")]):
        if not line and not kept:
            continue
        size = len(line.encode()) + 1
        if size > left:
            break
        kept.append(line)
        left -= size
    if not kept and (last := next((line for line in map(_plain, reversed(text.split("\n"))) if line), "")):
        kept = [last.encode()[-left + 1 :].decode(errors="ignore")]
    return tuple(reversed(kept[:MOST_LINES]))


def _plain(line: str) -> str:
    """Return what is seen of a line: what a carriage return overwrote is gone, and all that isn't text."""
    shown = line.rstrip("\r").rpartition("\r")[2].replace("\t", " ")
    return "".join(c for c in shown if c.isprintable()).rstrip()


class LogTails:
    """Call `follow` with each record before and after a change."""

    def __init__(self, node: Node, driver: Driver, *, tasks: TaskGroup) -> None:
        self._node = node
        self._driver = driver
        self._tasks = tasks
        self._places = asyncio.Semaphore(MOST_AT_ONCE)

    def follow(self, old: Tracked | None, new: Tracked | None) -> None:
        if old is None or new is None or new.status.last_ending is old.status.last_ending:
            return
        ended = old.container
        if ended is None or ended.state is not ContainerState.EXITED or new.status.phase is Phase.STOPPED:
            return
        self._tasks.create_task(self._read(new.id, old.status.attempt, ended.id), name=f"log tail {new.id}")

    async def _read(self, container: str, attempt: int, ended: ContainerId) -> None:
        async with self._places:
            if lines := tail_of(await self._last_bytes(ended)):
                self._node.add_log_tail(container, attempt, lines)

    async def _last_bytes(self, ended: ContainerId) -> bytes:
        """Return what came in time of the last lines."""
        data = b""
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                async for chunk in self._driver.logs(ended, follow=False, tail=MOST_LINES):
                    data = (data + chunk.data)[-_KEPT_BYTES:]
        except (WherryError, TimeoutError):
            pass
        return data
