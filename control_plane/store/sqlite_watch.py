"""How the embedded store's commits reach its watches: in memory, through bounded buffers, with the log behind them.

A watch that is too slow loses its buffer, not its place: it reads the log again from where it stood.
"""

import asyncio
from collections import deque
from collections.abc import Sequence

from control_plane.store.protocol import ABSENT, Changes, Entry, Revision

MOST_BUFFERED = 1_000  # items of one watch
MOST_BUFFERED_BYTES = 8_000_000
MARK_EVERY = 1_000  # revisions which don't concern a watch, before it gets a mark of progress


class Ended(Exception):
    """The store closes: the watch ends."""


class Subscription:
    """What was committed under a prefix since `begin`, as long as that fits in the buffer."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self._items: deque[Changes] = deque()
        self._bytes = 0
        self._last = ABSENT  # revision of the newest item or mark
        self._is_behind = False
        self._has_ended = False
        self._wake = asyncio.Event()

    def begin(self, revision: Revision) -> None:
        """Start afresh with an empty buffer, when the last commit was that revision."""
        self._items.clear()
        self._bytes = 0
        self._last = revision
        self._is_behind = False

    async def next(self) -> Changes | None:
        """Return the next changes or mark, or None if the buffer overflowed; raises Ended."""
        while not self._items and not self._is_behind and not self._has_ended:
            self._wake.clear()
            await self._wake.wait()
        if self._has_ended:
            raise Ended
        if self._is_behind:
            return None
        item = self._items.popleft()
        self._bytes -= _size(item)
        return item

    def offer(self, committed: Changes) -> None:
        if self._is_behind:
            return
        changes = tuple(change for change in committed.changes if change.key.startswith(self.prefix))
        if not changes and committed.revision - self._last < MARK_EVERY:
            return
        item = Changes(changes, committed.revision)
        self._items.append(item)
        self._bytes += _size(item)
        self._last = committed.revision
        if len(self._items) > MOST_BUFFERED or self._bytes > MOST_BUFFERED_BYTES:
            self._items.clear()
            self._is_behind = True
        self._wake.set()

    def end(self) -> None:
        self._has_ended = True
        self._wake.set()


class Hub:
    """Knows the running watches and the newest published revision."""

    def __init__(self, revision: Revision) -> None:
        self.revision = revision
        self._subscriptions: set[Subscription] = set()
        self._has_ended = False

    def subscribe(self, prefix: str) -> Subscription:
        subscription = Subscription(prefix)
        self._subscriptions.add(subscription)
        if self._has_ended:
            subscription.end()
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        self._subscriptions.discard(subscription)

    def publish(self, committed: Sequence[Changes]) -> None:
        for changes in committed:
            for subscription in self._subscriptions:
                subscription.offer(changes)
        self.revision = committed[-1].revision

    def end(self) -> None:
        self._has_ended = True
        for subscription in self._subscriptions:
            subscription.end()


def _size(item: Changes) -> int:
    return sum(len(change.entry.value) for change in item.changes if isinstance(change.entry, Entry))
