"""Removes images that nothing needs: when the disk fills up, and what was not needed for long.

Which ones is decided by agent.image_choice. What an assignment names is looked at again before each removal, and the
manager itself has the last word: it refuses to remove what a container has.
"""

import asyncio
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Protocol

from agent.driver import Driver, HeldImage
from agent.image_choice import Idle, ImagePolicy, idle_images
from agent.image_ledger import ImageLedger
from agent.references import normalized
from foundation.clock import Clock
from foundation.logs import Log
from manifests.errors import NotFoundError, WherryError

LOOK_EVERY_S = 60.0  # at the disk
SWEEP_EVERY_S = 3600.0  # for what was not needed for long
_log = Log(__name__)


class Wanted(Protocol):
    def __call__(self) -> Iterable[str] | None:
        """Return the images that assignments name; None while not all assignments are known."""
        ...


def used_percent(folder: str) -> float | None:
    """Return how full the file system of a folder is, as `df` says it; None if there is no such folder. Blocks."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return None
    used, free = disk.f_blocks - disk.f_bfree, disk.f_bavail
    return 100.0 * used / (used + free) if used + free else None


class ImageGarbage:
    """`run` sweeps until cancelled."""

    def __init__(
        self,
        driver: Driver,
        ledger: ImageLedger,
        wanted: Wanted,
        policy: ImagePolicy,
        clock: Clock,
        *,
        percent_of: Callable[[str], float | None] = used_percent,
    ) -> None:
        self._driver, self._ledger, self._wanted, self._policy = driver, ledger, wanted, policy
        self._clock, self._percent_of = clock, percent_of

    async def run(self) -> None:
        swept_s, is_failing = self._clock.now_s(), False
        while True:
            await self._clock.sleep(LOOK_EVERY_S)
            try:
                is_due = self._clock.now_s() - swept_s >= SWEEP_EVERY_S
                if is_due or await self._is_full():
                    swept_s = self._clock.now_s()
                    await self.sweep()
                is_failing = False
            except WherryError as error:
                if not is_failing:
                    _log.warning("images could not be looked through", why=str(error))
                is_failing = True

    async def _is_full(self) -> bool:
        return self._policy.high_percent < 100 and (await self._percent() or 0.0) >= self._policy.high_percent

    async def _percent(self) -> float | None:
        return await asyncio.to_thread(self._percent_of, await self._driver.image_folder())

    async def sweep(self) -> None:
        """Remove what is to go now. Raises WherryError if the manager can't say what there is."""
        if (wanted := self._wanted()) is None:
            return
        now_s = self._clock.wall_s()
        held = await self._driver.list_images()
        for name in {name for image in held if image.is_used for name in image.names} | set(wanted):
            self._ledger.used(name, now_s)
        self._ledger.keep_only((name for image in held for name in image.names), now_s)
        idle = idle_images(held, wanted, self._ledger.last_used_s, self._policy, now_s)
        is_full = await self._is_full()
        for one in idle:
            if one.unused_s is not None and one.unused_s >= self._policy.unused_s:
                await self._remove(one, f"it was not needed for {one.unused_s / 3600:.0f} h")
            elif is_full:
                percent = await self._percent() or 0.0
                if percent < self._policy.low_percent:
                    break
                idle_for = "nothing needs it" if one.unused_s is None else f"not needed for {one.unused_s / 60:.0f} min"
                await self._remove(one, f"the disk is {percent:.0f} % full; {idle_for}")
        await self._ledger.save()

    async def _remove(self, idle: Idle, why: str) -> None:
        if self._is_wanted(idle.image):
            return
        try:
            for name in sorted(idle.image.names) or [idle.image.id]:
                with suppress(NotFoundError):  # it went with the name before it
                    await self._driver.remove_image(name)
                self._ledger.forget(name)
        except WherryError as error:
            _log.info("image stays", image=_shown(idle.image), why=error.why or error.what)
        else:
            _log.info("image removed", image=_shown(idle.image), why=why, bytes=idle.image.size_bytes)

    def _is_wanted(self, image: HeldImage) -> bool:
        """Say whether the image came to be named by an assignment since it was chosen."""
        wanted = self._wanted()
        return wanted is None or bool({normalized(n) for n in wanted} & {normalized(n) for n in image.names})


def _shown(image: HeldImage) -> str:
    return min(image.names, key=len, default=image.id)
