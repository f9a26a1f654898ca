"""Forgets old history of the store, but never what is promised: so much time and so many revisions back.

What revision belongs to which time is known only to the leader, on its own clock and from when it took the lead. A new
leader knows nothing older than itself, so it keeps more than is promised and never less. Watchers that are further
behind list again (ClusterState.follow). A compaction can't be fenced; that of a deposed leader keeps the promise too.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from control_plane.state import ClusterState
from control_plane.store.protocol import Revision, Store
from foundation.clock import Clock
from foundation.logs import Log
from manifests.errors import WherryError

log = Log(__name__)

SAMPLES = 60  # within the promised time: what is kept is older by one of them at most
LEAST_STEP = 1000  # revisions: fewer aren't worth a compaction


@dataclass(frozen=True, slots=True)
class HistoryPromise:
    """How far back the history of the store reaches at least."""

    keep_s: float = 3600.0
    keep_revisions: int = 10_000


PROMISE = HistoryPromise()


@dataclass(frozen=True, slots=True)
class Sample:
    """What the store's revision was at a time."""

    at_s: float
    revision: Revision


def compactable(samples: Sequence[Sample], now_s: float, promise: HistoryPromise) -> Revision:
    """Return the revision before which nothing is promised; 0 if that isn't known yet. `samples` are in order.

    >>> old, new = Sample(0.0, Revision(500)), Sample(3600.0, Revision(20_000))
    >>> compactable([old, new], 3600.0, HistoryPromise(3600, 10_000))
    500
    >>> compactable([old, new], 3600.0, HistoryPromise(3600, 19_900))
    100
    >>> compactable([old, new], 3599.0, HistoryPromise(3600, 10_000))
    0
    """
    old_enough = [s.revision for s in samples if s.at_s <= now_s - promise.keep_s]
    if not old_enough:
        return Revision(0)
    return Revision(max(0, min(old_enough[-1], samples[-1].revision - promise.keep_revisions)))


class Compactor:
    def __init__(self, store: Store, state: ClusterState, clock: Clock, promise: HistoryPromise) -> None:
        self._store, self._state, self._clock, self._promise = store, state, clock, promise
        self._samples: deque[Sample] = deque()
        self._compacted = Revision(0)

    async def run(self) -> None:
        """Sample and compact until cancelled."""
        while True:
            self._sample()
            target = compactable(self._samples, self._clock.now_s(), self._promise)
            if target >= self._compacted + self._least_step():
                await self._compact(target)
            await self._clock.sleep(self._promise.keep_s / SAMPLES)

    def _sample(self) -> None:
        now_s = self._clock.now_s()
        self._samples.append(Sample(now_s, self._state.revision))
        while len(self._samples) > 1 and self._samples[1].at_s <= now_s - self._promise.keep_s:
            self._samples.popleft()

    def _least_step(self) -> int:
        return min(LEAST_STEP, max(1, self._promise.keep_revisions // 10))

    async def _compact(self, target: Revision) -> None:
        try:
            await self._store.compact(target)
        except WherryError as error:
            log.warning("the store's history could not be compacted", revision=target, why=error.sentence())
            return
        self._compacted = target
        log.info("the store's history was compacted", before=target, revision=self._state.revision)
