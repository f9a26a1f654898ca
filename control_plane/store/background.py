"""The tasks that a store runs between `open` and `close`: renewals, expiry, the reading end of watches."""

import asyncio
from collections.abc import Coroutine

from foundation.tasks import TaskGroup
from manifests.errors import UnavailableError

CLOSE_TIMEOUT_S = 5.0


class _Closed(Exception):
    """Ends the group, which cancels its tasks."""


class Background:
    """A task group that is opened and closed by calls, as the Store protocol is, instead of by a block.

    One task stands in for the block; all others are the group's. A bug in one ends them all and is raised by `close`.
    """

    def __init__(self, name: str) -> None:
        self._entered = asyncio.Event()
        self._closing = asyncio.Event()
        self._group = TaskGroup()
        self._owner = asyncio.create_task(self._hold(), name=name)  # the one task that no block holds

    @classmethod
    async def open(cls, name: str) -> "Background":
        self = cls(name)
        await self._entered.wait()
        return self

    @property
    def is_closed(self) -> bool:
        return self._closing.is_set() or self._owner.done()

    def start(self, part: Coroutine[object, object, None], *, name: str) -> asyncio.Task[None]:
        """Run the coroutine until it ends, is cancelled, or the store closes; raises UnavailableError after that."""
        if self.is_closed:
            part.close()
            raise UnavailableError("the store is closed")
        return self._group.create_task(part, name=name)

    async def close(self) -> None:
        self._closing.set()
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await asyncio.shield(self._owner)

    async def _hold(self) -> None:
        try:
            async with self._group:
                self._entered.set()
                await self._closing.wait()
                raise _Closed
        except* _Closed:
            pass
