"""Writes the wish that the cluster is left as it is, and takes it back."""

from control_plane import keys
from control_plane.desired.actor import current_actor
from control_plane.desired.committer import Committer
from control_plane.records import FreezeRecord
from control_plane.store.protocol import ABSENT, Delete, ModifiedAt, Put, Revision
from foundation.clock import Clock


class FreezeWriter:
    def __init__(self, committer: Committer, clock: Clock) -> None:
        self._committer, self._store, self._state, self._clock = committer, committer.store, committer.state, clock

    async def freeze(self, reason: str) -> Revision:
        """Freeze the cluster. Where it is frozen already, the reason changes and the time stays."""

        async def freeze_once() -> Revision:
            entry = await self._store.get(keys.FREEZE)
            known = self._state.freeze.get("") if entry else None
            since_s = known.since_s if known else self._clock.wall_s()
            record = FreezeRecord(by=current_actor(), reason=reason, since_s=since_s)
            compare = ModifiedAt(keys.FREEZE, entry.mod_revision if entry else ABSENT)
            return await self._committer.commit((compare,), (Put(keys.FREEZE, record.to_bytes()),))

        return await self._committer.retried(freeze_once)

    async def unfreeze(self) -> Revision:
        """End it, whoever began it and whether or not their record can be read."""

        async def unfreeze_once() -> Revision:
            entry = await self._store.get(keys.FREEZE)
            if entry is None:
                return self._state.revision
            compares = (ModifiedAt(keys.FREEZE, entry.mod_revision),)
            writes = (Delete(keys.FREEZE), self._committer.deletion(keys.cluster_place("freeze")))
            return await self._committer.commit(compares, writes)

        return await self._committer.retried(unfreeze_once)
