"""S23: what is stored of an event never counts a happening twice, whoever stores it and however often that changes."""

import contextlib
from collections import Counter, defaultdict
from collections.abc import Iterator

from control_plane import keys
from control_plane.event_log import event_id
from control_plane.records import EventRecord
from control_plane.state import Batch, ClusterState
from control_plane.told import told_of
from tests.clocks import StepClock
from tests.invariants.steps import Breach, Step


class EventChecker:
    """Takes all steps of a store in order, from its first one on."""

    def __init__(self) -> None:
        self._state = ClusterState(None, StepClock())  # type: ignore[arg-type]  # it is filled by hand
        self._state.subscribe(self._on_batch)
        self._happened: defaultdict[str, Counter[int]] = defaultdict(Counter)  # by event: how often at each revision
        self._found: list[Breach] = []

    def take(self, step: Step) -> Iterator[Breach]:
        changes = [change for change in step.changes if change.key.startswith(keys.ROOT)]
        applying = self._state._apply(changes, step.revision)
        with contextlib.suppress(StopIteration):  # it waits for nothing
            applying.send(None)
        yield from self._found
        self._found.clear()

    def untold(self) -> dict[str, int]:
        """Return how much of what happened isn't counted in what is stored now, by event."""
        told = {id_: e.count for id_ in self._state.events.ids() if (e := self._state.events.get(id_))}
        missing = {id_: sum(at.values()) - told[id_] for id_, at in self._happened.items() if id_ in told}
        return {id_: count for id_, count in missing.items() if count}

    def _on_batch(self, batch: Batch) -> None:
        for change in batch.changes:
            if change.table != "event":
                for told in told_of(change):
                    if told.is_kept:
                        self._happened[event_id(told)][change.revision] += 1
            elif isinstance(change.new, EventRecord) and change.new.reason != "deleted":
                old = change.old if isinstance(change.old, EventRecord) else None
                self._check(change.id, old, change.new)

    def _check(self, id_: str, old: EventRecord | None, new: EventRecord) -> None:
        since = old.revision if old else 0
        happened = sum(n for revision, n in self._happened[id_].items() if since < revision <= new.revision)
        counted = new.count - (old.count if old else 0)
        if counted > happened:
            self._found.append(Breach("S23", f"{id_} counts {counted} since {since}, and {happened} happened"))
        if new.revision <= since:
            self._found.append(Breach("S23", f"{id_} goes back from revision {since} to {new.revision}"))
