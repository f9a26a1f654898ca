"""Every change of the store, in order, with the moment when it was heard of."""

import asyncio
import time
from dataclasses import dataclass

from control_plane import keys
from control_plane.store.protocol import Change, Revision, Store
from manifests.errors import UnavailableError

AGAIN_S = 0.2


@dataclass(frozen=True, slots=True)
class Heard:
    """A change, and the wall clock when word of it came: later than it was made, by seconds while etcd is broken."""

    at_s: float
    change: Change


def clock_of(at_s: float) -> str:
    """Return the time of day, as the daemons' logs have it."""
    return f"{time.strftime('%H:%M:%S', time.localtime(at_s))}.{int(at_s * 1000) % 1000:03d}"


class Chronicle:
    def __init__(self) -> None:
        self.heard: list[Heard] = []
        self.revision = Revision(1)
        self._moved = asyncio.Condition()

    @property
    def changes(self) -> list[Change]:
        return [heard.change for heard in self.heard]

    async def follow(self, store: Store) -> None:
        """Write everything down, from the store's first revision on, until cancelled."""
        while True:
            try:
                async for item in store.watch("/", after=self.revision):
                    now_s = time.time()
                    self.heard += [Heard(now_s, c) for c in item.changes if c.key.startswith(keys.ROOT)]
                    self.revision = item.revision
                    async with self._moved:
                        self._moved.notify_all()
            except UnavailableError:
                await asyncio.sleep(AGAIN_S)

    async def catch_up(self, revision: Revision, deadline_s: float) -> None:
        """Return once everything up to that revision is written down."""
        async with asyncio.timeout(deadline_s), self._moved:
            await self._moved.wait_for(lambda: self.revision >= revision)
