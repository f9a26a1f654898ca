"""One pull of an image at a time, which all who want it share."""

import asyncio
from collections.abc import Awaitable, Callable

from manifests.errors import DriverError, UnavailableError


class Pulls:
    """The pulls of one driver."""

    def __init__(self) -> None:
        self._under_way: dict[str, _Pull] = {}

    async def once(self, image: str, pull: Callable[[str], Awaitable[None]]) -> None:
        """Pull, or share the pull that goes on. If who pulls is cancelled, the next in line takes over."""
        shared = self._under_way.setdefault(image, _Pull())
        async with shared.lock:
            if not shared.done:
                try:
                    await pull(image)
                except (DriverError, UnavailableError) as failure:
                    shared.failure = failure
                shared.done = True
                del self._under_way[image]  # who asks from now on begins afresh
        if (failed := shared.failure) is not None:  # one instance each: a raise adds to an error's traceback
            raise type(failed)(failed.what, why=failed.why, fix=failed.fix) from failed


class _Pull:
    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.done = False
        self.failure: DriverError | UnavailableError | None = None
