"""Clocks for tests: one whose time of day is set by hand while timers run as ever, and one moved by hand alone."""

import asyncio
from datetime import UTC, datetime

from foundation.clock import SystemClock


class SetClock(SystemClock):
    """Goes on by itself from the time it was set to last, forwards or back. Needs a running loop."""

    def __init__(self, text: str) -> None:
        self.set(text)

    def set(self, text: str) -> None:
        """Set it to a time in UTC, such as `2026-11-24 22:14:59`."""
        self._base_s = datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() - self.now_s()

    def wall_s(self) -> float:
        return self._base_s + self.now_s()


class StepClock:
    """A clock that moves only when told to."""

    def __init__(self) -> None:
        self._now_s = 1_000.0
        self._moved = asyncio.Event()

    def now_s(self) -> float:
        return self._now_s

    def wall_s(self) -> float:
        return self._now_s

    def boot_s(self) -> float:
        return self._now_s

    async def sleep(self, seconds: float) -> None:
        until_s = self._now_s + seconds
        while self._now_s < until_s:
            await self._moved.wait()

    def advance(self, seconds: float) -> None:
        """Move it, and wake who has slept for long enough."""
        self._now_s += seconds
        self._moved.set()
        self._moved = asyncio.Event()
