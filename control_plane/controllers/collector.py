"""Removes what nobody needs, while this server leads: a bounded number of things at a time, under the fence.

Level-triggered: it looks at all there is whenever anything has changed, so what one pass leaves the next one takes.
While the cluster is frozen it leaves everything as it is.
"""

from itertools import islice

from control_plane.controllers.freeze import is_frozen
from control_plane.controllers.garbage import garbage_of
from control_plane.controllers.writes import transactions
from control_plane.state import ClusterState
from control_plane.store.protocol import CreatedAt, Store
from foundation.clock import Clock
from foundation.logs import Log
from manifests.errors import ConflictError, UnavailableError

log = Log(__name__)

COLLECT_EVERY_S = 2.0
MOST_AT_ONCE = 200  # deletions of one pass


class Collector:
    def __init__(self, store: Store, state: ClusterState, clock: Clock) -> None:
        self._store, self._state, self._clock = store, state, clock
        self._seen = -1  # the revision at which there was nothing to remove

    async def run(self, fence: CreatedAt) -> None:
        """Collect until cancelled."""
        while True:
            await self._clock.sleep(COLLECT_EVERY_S)
            if self._state.revision == self._seen or is_frozen(self._state):
                continue
            try:
                await self._collect(fence)
            except (ConflictError, UnavailableError) as error:  # it is needed after all, or later: the next look tells
                log.debug("nothing was removed", why=error.why or error.what)
            except Exception as error:  # a bug here must not end the leading
                log.error("what is left over could not be removed", exc_info=error)

    async def _collect(self, fence: CreatedAt) -> None:
        revision = self._state.revision
        units = list(islice(garbage_of(self._state), MOST_AT_ONCE))
        if not units:
            self._seen = revision
        for txn in transactions(fence, units):
            committed = await self._store.commit(txn)
            log.debug("left-overs were removed", count=len(txn.writes), revision=committed)
            await self._state.wait_for(committed)
