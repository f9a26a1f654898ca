"""How many may start at once, and who goes first: restarts of what people rely upon, then first starts, by arrival."""

import asyncio
import heapq
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Gate:
    """Lets `places` through at a time. Those who wait are bounded by the node's allocations."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._arrivals = 0

    @asynccontextmanager
    async def enter(self, *, is_urgent: bool) -> AsyncIterator[None]:
        await self._take(is_urgent=is_urgent)
        try:
            yield
        finally:
            self._give()

    async def _take(self, *, is_urgent: bool) -> None:
        if self._free > 0:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._arrivals += 1
        heapq.heappush(self._waiting, (0 if is_urgent else 1, self._arrivals, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give()  # the turn came at the very moment of the cancellation
            raise

    def _give(self) -> None:
        while self._waiting:
            _, _, turn = heapq.heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
