"""What a leader does besides deciding: it stores events, removes what nobody needs, and forgets old history."""

from control_plane.controllers.collector import Collector
from control_plane.controllers.compactor import Compactor, HistoryPromise
from control_plane.controllers.event_writer import EventWriter
from control_plane.event_log import EventLog
from control_plane.state import ClusterState
from control_plane.store.protocol import CreatedAt, Store
from foundation.clock import Clock
from foundation.tasks import TaskGroup


class Bookkeeping:
    """Keeps the books under one fence, until cancelled. None of it is in the way of a decision."""

    def __init__(
        self, store: Store, state: ClusterState, clock: Clock, events: EventLog, promise: HistoryPromise
    ) -> None:
        self._store, self._state, self._clock, self._events, self._promise = store, state, clock, events, promise

    async def run(self, fence: CreatedAt) -> None:
        async with TaskGroup() as tasks:
            writer = EventWriter(self._store, self._state, self._clock, self._events)
            tasks.create_task(writer.run(fence), name="store-events")
            tasks.create_task(Collector(self._store, self._state, self._clock).run(fence), name="collect")
            compactor = Compactor(self._store, self._state, self._clock, self._promise)
            tasks.create_task(compactor.run(), name="compact")
