"""Whether the machine itself stood still: then nodes may be called lost though nothing was done to them."""

import asyncio
import time
from collections.abc import Iterable

from tests.chaos.fault import LOST_S, Effect, Fault

TICK_S = 0.1
STALL_S = 1.0


class Stalls:
    """Ticks beside everything else; a tick that comes far too late is told as a fault of all nodes."""

    def __init__(self, nodes: Iterable[str]) -> None:
        self.found: list[Fault] = []
        self._nodes = frozenset(nodes)

    async def watch(self) -> None:
        while True:
            slept_s = time.time()
            await asyncio.sleep(TICK_S)
            if (late_s := time.time() - slept_s - TICK_S) > STALL_S:
                effect = Effect(f"for {late_s:.1f} s", touches=self._nodes, silences=self._nodes, freezes=self._nodes)
                self.found.append(Fault("the machine stood still", effect, slept_s, slept_s + late_s + LOST_S))


def cpu_pressure_s() -> float:
    """Return for how long in all some process had to wait for a processor; 0.0 where the kernel doesn't tell."""
    try:
        with open("/proc/pressure/cpu") as file:
            return int(file.readline().rpartition("total=")[2]) / 1e6
    except OSError:
        return 0.0
