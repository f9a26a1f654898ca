"""A clock for tests that moves only when told to."""

import asyncio


class StepClock:
    """A clock that moves only when told to."""

    def __init__(self) -> None:
        self._now_s = 1_000.0
        self._moved = asyncio.Condition()

    def now_s(self) -> float:
        return self._now_s

    def wall_s(self) -> float:
        return self._now_s

    def boot_s(self) -> float:
        return self._now_s

    async def sleep(self, seconds: float) -> None:
        until_s = self._now_s + seconds
        async with self._moved:
            await self._moved.wait_for(lambda: self._now_s >= until_s)

    async def advance(self, seconds: float) -> None:
        async with self._moved:
            self._now_s += seconds
            self._moved.notify_all()
