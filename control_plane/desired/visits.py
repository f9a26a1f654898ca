"""Writes down who entered a container, before they do: for the leader to tell as an event."""

import random

from control_plane import keys
from control_plane.desired.actor import current_actor
from control_plane.desired.committer import Committer
from control_plane.records import DeletionRecord
from control_plane.store.protocol import Put, Revision
from foundation.clock import Clock
from manifests.allocations import Allocation

MOST_COMMAND = 120  # characters of a command that are told


class VisitWriter:
    def __init__(self, committer: Committer, clock: Clock, rng: random.Random) -> None:
        self._committer, self._clock, self._rng = committer, clock, rng

    async def note(self, allocation: Allocation, reason: str, what: str) -> Revision:
        """Note that the present actor does `what` in an allocation. Raises UnavailableError without the store."""
        ref = allocation.workload
        told = what if len(what) <= MOST_COMMAND else what[: MOST_COMMAND - 1] + "…"
        record = DeletionRecord(
            place=keys.id_of_ref(ref),
            reason=reason,
            message=f"{told} in {allocation.id} on {allocation.node}",
            allocation=allocation.id,
            changed_by=current_actor(),
            at_s=self._clock.wall_s(),
        )
        key = f"{keys.DELETIONS}{ref.namespace}/{reason}/{self._rng.randbytes(8).hex()}"
        return await self._committer.commit((), (Put(key, record.to_bytes()),))
