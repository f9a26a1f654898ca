"""The rehearsals of one server: one at a time, in a thread beside the loop, of its own cache or of the store's past."""

import asyncio
from collections.abc import Sequence
from typing import Any

from control_plane.controllers.standing import Standing
from control_plane.rehearsal.answer import Answer, answered, fork_of, fork_of_past, prepared
from control_plane.rehearsal.fork import Fork
from control_plane.rehearsal.proposal import Aim, proposed, view_of
from control_plane.rehearsal.question import Question
from control_plane.state import ClusterState
from control_plane.store.protocol import Revision, Store
from foundation.clock import Clock
from manifests.errors import ConflictError
from manifests.plans import AppliedPlan, Planned
from manifests.workloads import Document

MOST_TOLD = 5  # differences that are told one by one


class Rehearser:
    def __init__(self, store: Store, state: ClusterState, standing: Standing, clock: Clock) -> None:
        self._store, self._state, self._standing, self._clock = store, state, standing, clock
        self._turn = asyncio.Lock()  # each takes a processor for itself

    async def answer(
        self,
        question: Question,
        documents: Sequence[Document] = (),
        *,
        at_revision: Revision | None = None,
    ) -> Answer:
        """Return what would be. Raises CompactedError if the store has forgotten that revision."""
        async with self._turn:
            rehearsal, results, at = await prepared(await self._fork(at_revision), question, documents)
            return await asyncio.to_thread(answered, rehearsal, results, at)

    async def propose(self, aim: Aim, *, at_revision: Revision | None = None) -> dict[str, Any]:
        """Return which moves would serve the aim, and why. Raises what `answer` does, and what `proposed` does."""
        async with self._turn:
            fork = await self._fork(at_revision)
            return view_of(await asyncio.to_thread(proposed, fork, aim), fork, aim)

    async def _fork(self, at_revision: Revision | None) -> Fork:
        if at_revision is not None:
            return await fork_of_past(self._store, at_revision, self._clock)
        return fork_of(self._state, self._standing, self._clock)

    async def check(self, plan: AppliedPlan, documents: Sequence[Document]) -> dict[str, Revision]:
        """Return at which revision each record must be still. Raises ConflictError if the plan doesn't hold any more.

        What has changed beside doesn't matter, as long as the same things would go to the same places.
        """
        cluster = self._state.cluster.get("")
        if cluster is None or (cluster.id, cluster.generation) != (plan.cluster, plan.generation):
            raise _moved(plan, ["it is of another cluster, or from before a snapshot was restored"])
        await self._state.wait_for(plan.revision)
        fresh = await self.answer(Question(), documents)
        differs = [
            f"{id_} is at revision {fresh.at.get(id_, 0)}, and was at {plan.at.get(id_, 0)}"
            for id_ in sorted(fresh.at.keys() | plan.at.keys())
            if fresh.at.get(id_, 0) != plan.at.get(id_, 0)
        ]
        if differs := differs or _elsewhere(plan.placements, fresh.placements()):
            raise _moved(plan, differs)
        return fresh.at


def _elsewhere(planned: Sequence[Planned], now: Sequence[Planned]) -> list[str]:
    """Return in sentences what would go elsewhere than was planned."""
    before = {(p.workload, p.index, p.version): p.node for p in planned}
    after = {(p.workload, p.index, p.version): p.node for p in now}
    changed = [key for key in sorted(before.keys() | after.keys()) if before.get(key) != after.get(key)]
    return [f"{w} {i} would go {_to(after.get(key := (w, i, v)))}, not {_to(before.get(key))}" for w, i, v in changed]


def _to(node: str | None) -> str:
    return f"to {node}" if node else "nowhere"


def _moved(plan: AppliedPlan, differs: Sequence[str]) -> ConflictError:
    more = f"; and {len(differs) - MOST_TOLD} more" if len(differs) > MOST_TOLD else ""
    return ConflictError(
        "the plan is out of date",
        why=f"since revision {plan.revision} things have moved: " + "; ".join(differs[:MOST_TOLD]) + more,
        fix="Make a new one with `wherry plan`, and look at it.",
    )
