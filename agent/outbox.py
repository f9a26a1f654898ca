"""Statuses on their way to a server: the newest of each allocation, kept until a server has acknowledged it."""

import asyncio
from typing import TypeVar

from manifests.allocations import AllocationStatus
from manifests.session import Statuses

MOST_IN_FRAME = 256


class Outbox:
    """One frame is under way at a time; what changes meanwhile is coalesced. Bounded by the node's allocations."""

    def __init__(self) -> None:
        self._statuses: dict[str, AllocationStatus] = {}
        self._forgotten: dict[str, None] = {}
        self._sent: Statuses | None = None
        self._sequence = 0
        self._changed = asyncio.Event()

    def put(self, status: AllocationStatus) -> None:
        self._statuses[status.id] = status
        self._forgotten.pop(status.id, None)
        self._changed.set()

    def forget(self, allocation: str) -> None:
        self._statuses.pop(allocation, None)
        self._forgotten[allocation] = None
        self._changed.set()

    def begin_session(self) -> None:
        """A Hello carries all statuses; what was forgotten it can't say, so that is sent again."""
        if self._sent is not None:
            self._forgotten = dict.fromkeys(self._sent.forgotten) | self._forgotten
        self._sent = None
        self._statuses.clear()
        self._changed.set()

    async def next_frame(self) -> Statuses:
        """Return the next frame once there is something to send and the last one is acknowledged."""
        await self.wait_for_work()
        statuses = _taken(self._statuses, MOST_IN_FRAME)
        forgotten = _taken(self._forgotten, MOST_IN_FRAME)
        self._sequence += 1
        self._sent = Statuses(sequence=self._sequence, statuses=tuple(statuses.values()), forgotten=tuple(forgotten))
        return self._sent

    async def wait_for_work(self) -> None:
        """Return once there is something to send and nothing is under way."""
        while self._sent is not None or not (self._statuses or self._forgotten):
            self._changed.clear()
            await self._changed.wait()

    def acknowledge(self, sequence: int) -> None:
        if self._sent is not None and self._sent.sequence == sequence:
            self._sent = None
            self._changed.set()

    @property
    def has_terminal(self) -> bool:
        """Whether an ending waits, which must be on disk before a server may hear of it."""
        return any(status.is_terminal for status in self._statuses.values())


_V = TypeVar("_V")


def _taken(source: dict[str, _V], most: int) -> dict[str, _V]:
    return {key: source.pop(key) for key in list(source)[:most]}
