"""Waits for the digest that all replicas of a version are to run, once this node has said which one it found.

The first node to say so decides, through the leader. Where no answer comes in time, as on a node that is cut off, what
was found here runs: to be late would be worse than to differ, and `describe` shows it.
"""

import asyncio

from agent.tracked import Tracked
from foundation.logs import Log

PIN_WAIT_S = 3.0  # an answer was seen to take 0.1 s
_log = Log(__name__)


class Pins:
    """Follows the node's records."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Event] = {}

    def follow(self, before: Tracked | None, after: Tracked | None) -> None:
        known = after or before
        if known is not None and (event := self._waiting.get(known.id)) and (after is None or after.is_pinned):
            event.set()

    async def wait(self, tracked: Tracked) -> None:
        """Return once the container's image is pinned, or after PIN_WAIT_S."""
        if tracked.is_pinned:
            return
        event = self._waiting[tracked.id] = asyncio.Event()
        try:
            async with asyncio.timeout(PIN_WAIT_S):
                await event.wait()
        except TimeoutError:
            _log.info("image was not pinned in time", container=tracked.id, image=tracked.spec.image)
        finally:
            del self._waiting[tracked.id]
