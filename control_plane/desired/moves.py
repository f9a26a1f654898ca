"""Writes the marks of what is to be moved, as it was planned or not at all; and takes back those that are left."""

from collections.abc import Iterator, Sequence

from control_plane import keys
from control_plane.desired.actor import current_actor
from control_plane.desired.committer import Committer
from control_plane.store.protocol import ABSENT, Compare, Delete, ModifiedAt, Put, Revision
from foundation.clock import Clock
from manifests.allocations import Allocation, Desired
from manifests.errors import ConflictError, InvalidError
from manifests.moves import MOST_MOVES, MoveOrder, MoveRecord
from manifests.workloads import Kind

MOST_TOLD = 5


class MoveWriter:
    def __init__(self, committer: Committer, clock: Clock) -> None:
        self._committer, self._state, self._clock = committer, committer.state, clock

    async def order(self, moves: Sequence[MoveOrder], *, planned_at: Revision) -> Revision:
        """Mark them all, in one transaction. Raises ConflictError if anything of it isn't as it was planned."""
        if not 1 <= len({m.allocation for m in moves}) == len(moves) <= MOST_MOVES:
            raise InvalidError(f"there must be 1 to {MOST_MOVES} moves, each of another allocation")
        await self._state.wait_for(planned_at)
        if len(self._state.moves):
            fix = "Wait until they are done, or take them back with `wherry rebalance --cancel`."
            raise ConflictError("moves are under way already", why=f"{len(self._state.moves)} are left", fix=fix)
        problems = [f"{m.allocation}: {why}" for m in moves if (why := self._problem(m, planned_at))]
        if problems:
            more = f"; and {len(problems) - MOST_TOLD} more" if len(problems) > MOST_TOLD else ""
            raise ConflictError(
                "the moves are out of date",
                why="; ".join(problems[:MOST_TOLD]) + more,
                fix="Run `wherry rebalance` again.",
            )
        compares = [compare for move in moves for compare in self._compares(move)]
        writes = [self._mark(move) for move in moves]
        return await self._committer.commit(tuple(dict.fromkeys(compares)), writes)

    async def cancel(self) -> Revision:
        """Take back all marks that are left; what has begun is brought to the end that needs the fewest changes."""

        async def cancel_once() -> Revision:
            stored = [s for id_ in list(self._state.moves.ids()) if (s := self._state.moves.stored(id_))]
            revision = self._state.revision
            if stored:
                compares = [ModifiedAt(s.key, s.modified_at) for s in stored]
                deletes = [Delete(s.key) for s in stored]
                told = self._committer.deletion(keys.cluster_place("moves"))
                revision = await self._committer.commit(compares, (*deletes, told))
            return revision

        return await self._committer.retried(cancel_once)

    def _problem(self, move: MoveOrder, planned_at: Revision) -> str:
        a = self._state.allocations.get(move.allocation)
        if a is None or a.desired is not Desired.RUN:
            return "it isn't there any more"
        if a.workload.kind is not Kind.SERVICE:
            return "only what belongs to services is moved"
        if a.node != move.from_node:
            return f"it is on {a.node}"
        if move.to_node not in self._state.nodes or move.to_node == a.node:
            return f"it can't move to {move.to_node}"
        workload = keys.id_of_ref(a.workload)
        record = self._state.workloads.get(workload)
        is_changed = max(self._state.workloads.modified_at(workload), self._state.allocations.modified_at(a.id))
        if record is None or record.uid != a.workload.uid or is_changed > planned_at:
            return f"it has changed since revision {planned_at}"
        return ""

    def _compares(self, move: MoveOrder) -> Iterator[Compare]:
        a = self._allocation(move)
        yield ModifiedAt(keys.MOVES + a.id, ABSENT)
        yield ModifiedAt(keys.ALLOCATIONS + keys.placed_id(a.node, a.id), self._state.allocations.modified_at(a.id))

    def _mark(self, move: MoveOrder) -> Put:
        a = self._allocation(move)
        record = MoveRecord(
            allocation=a.id,
            workload=a.workload,
            version=a.version,
            from_node=a.node,
            to_node=move.to_node,
            why=move.why,
            changed_by=current_actor(),
            since_s=self._clock.wall_s(),
        )
        return Put(keys.MOVES + a.id, record.to_bytes())

    def _allocation(self, move: MoveOrder) -> Allocation:
        a = self._state.allocations.get(move.allocation)
        assert a is not None
        return a
