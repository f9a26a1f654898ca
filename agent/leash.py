"""How long this node has had no word from a server, and what must end for that: onDisconnect.stopAfter.

Counted on CLOCK_BOOTTIME, which goes on in suspend, from the moment at which the last heartbeat was *sent* that was
acknowledged: the server heard it later than that, so the node always counts more than any server does. What may run
only while there is word is told to a guard before it starts, which kills it if this agent can't any more.
"""

import asyncio
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

from agent.tracked import Tracked, Work
from foundation.clock import Clock
from foundation.logs import Log
from manifests.errors import UnavailableError

TICK_S = 0.5
CHECK_GUARD_S = 2.0
_log = Log(__name__)


@dataclass(frozen=True, slots=True)
class Lease:
    """A container that must be dead once there was no word for so long."""

    container: str
    of: str  # the id of its record
    silent_s: float


class Guard(Protocol):
    """What kills for the agent. agent.guard_process has the real one."""

    def load(self) -> tuple[float | None, tuple[Lease, ...]]: ...

    async def keep(self, leases: Collection[Lease], heard_s: float) -> None: ...

    async def hear(self, heard_s: float) -> None: ...


class Leash:
    """Without a guard the agent alone keeps the deadlines, which is right only where it can't fail by itself."""

    def __init__(self, clock: Clock, guard: Guard | None) -> None:
        self._clock, self._guard = clock, guard
        heard_s, leases = guard.load() if guard else (None, ())
        self._heard_s = -math.inf if heard_s is None else heard_s
        self._leases = {lease.container: lease for lease in leases}
        self._told_s = self._heard_s
        self._is_changed = False
        self._keeping = asyncio.Lock()

    def silent_s(self) -> float:
        """Return for how long there was no word; infinity if there was none in this boot."""
        return self._clock.boot_s() - self._heard_s

    def heard(self, sent_s: float) -> None:
        """A server has acknowledged what was sent then."""
        self._heard_s = max(self._heard_s, sent_s)

    async def hold(self, tracked: Tracked, container: str) -> None:
        """Have the container guarded before it starts. Raises UnavailableError if it can't be, or mustn't start now."""
        lease = _lease_of(tracked, container)
        if lease is None:
            return
        self._leases[container] = lease
        await self._keep()
        if self.silent_s() >= (tracked.stop_after_s or 0.0):
            raise UnavailableError("it isn't started now", why="no server was heard for longer than its stopAfter")

    def follow(self, old: Tracked | None, new: Tracked | None) -> None:
        """Guard what runs and isn't guarded, as after an upgrade; let go of what has surely ended."""
        known = new or old
        if known is None:
            return
        running = {new.container.id} if new and new.container and new.has_running_container else set[str]()
        if new is None or (new.is_seen and new.work is Work.NONE and not new.tries):
            for lease in [x for x in self._leases.values() if x.of == known.id and x.container not in running]:
                del self._leases[lease.container]
                self._is_changed = True
        for container in running - self._leases.keys():
            found = _lease_of(new, container) if new else None
            if found is not None:
                self._leases[container] = found
                self._is_changed = True

    async def run(self, look: Callable[[], None]) -> None:
        """Keep the guard told and alive, and have what is due looked at, until cancelled."""
        checked_s = -math.inf
        while True:
            look()
            now_s = self._clock.now_s()
            is_due = bool(self._leases) and now_s - checked_s >= CHECK_GUARD_S
            if is_due or self._is_changed:
                checked_s = now_s
                await self._try_to_keep()
            elif self._leases and self._guard and self._told_s != self._heard_s:
                self._told_s = self._heard_s
                await self._guard.hear(self._heard_s)
            await self._clock.sleep(TICK_S)

    async def _try_to_keep(self) -> None:
        try:
            await self._keep()
        except UnavailableError as error:
            _log.error("containers are not guarded", why=str(error))

    async def _keep(self) -> None:
        async with self._keeping:
            self._is_changed = False
            self._told_s = self._heard_s
            if self._guard:
                await self._guard.keep(tuple(self._leases.values()), self._heard_s)


def _lease_of(tracked: Tracked, container: str) -> Lease | None:
    silent_s = tracked.assigned.workload.spec.dead_after_s
    return None if silent_s is None or tracked.stop_after_s is None else Lease(container, tracked.id, silent_s)
