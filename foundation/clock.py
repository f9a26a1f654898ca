"""Where time comes from. Daemons take a `Clock` from outside, so that a simulator can run them on virtual time."""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    def now_s(self) -> float:
        """Seconds on a clock that never jumps and has no meaning across processes: for ages, timeouts and backoff."""
        ...

    def wall_s(self) -> float:
        """Seconds since the Unix epoch, which may jump: only for people to read, never to decide."""
        ...

    def boot_s(self) -> float:
        """Seconds since the machine's boot, on one clock for all its processes, which goes on while it is suspended."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The real clock. `now_s` is the running loop's time, so a loop with virtual time carries it along."""

    def now_s(self) -> float:
        return asyncio.get_running_loop().time()

    def wall_s(self) -> float:
        return time.time()

    def boot_s(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
