"""Answers a question about what would be: of this moment, of a revision of the past, or of a snapshot in a file."""

import asyncio
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from control_plane import keys
from control_plane.controllers.standing import Standing
from control_plane.desired.committer import Committer
from control_plane.desired.configs import ConfigWriter
from control_plane.desired.versions import Result
from control_plane.desired.workloads import WorkloadWriter
from control_plane.rehearsal.fork import CacheStore, Fork, JumpingClock
from control_plane.rehearsal.outcome import Outcome, outcome_of
from control_plane.rehearsal.question import Question
from control_plane.rehearsal.rehearsal import Rehearsal
from control_plane.snapshots import Snapshot
from control_plane.state import ClusterState
from control_plane.store.protocol import Change, Entry, Revision, Store
from foundation.clock import Clock
from manifests.errors import ConflictError
from manifests.plans import Planned
from manifests.workloads import Document

SEED = 0  # of the uids of workloads that are only drafted


@dataclass(frozen=True, slots=True)
class Answer:
    """What would be; `results` are those of the documents, as of a dry run, and `at` what they were drafted on."""

    revision: Revision
    results: tuple[Result, ...]
    at: dict[str, Revision]
    rehearsal: Rehearsal
    outcome: Outcome

    def placements(self) -> list[Planned]:
        """Return what would be new of the workloads that the documents concern, and where."""
        concerned = {keys.workload_id(r.namespace, r.kind, r.name) for r in self.results}
        new = ((keys.id_of_ref(a.workload), a) for a in self.outcome.new)
        found = [Planned(workload=w, index=a.index, version=a.version, node=a.node) for w, a in new if w in concerned]
        return sorted(found, key=lambda p: (p.workload, p.index, p.version, p.node))


async def prepared(
    fork: Fork,
    question: Question,
    documents: Sequence[Document] = (),
) -> tuple[Rehearsal, list[Result], dict[str, Revision]]:
    """Return a rehearsal with all that is to be different.

    It waits for nothing: only the writers of users' desires are such as could wait.
    """
    rehearsal = Rehearsal(fork)
    state, at = fork.state, {}
    results: list[Result] = []
    if documents:
        committer = Committer(CacheStore(state), state, fork.clock)
        rng = random.Random(SEED)
        writer = WorkloadWriter(committer, ConfigWriter(committer, fork.clock, rng), fork.clock, rng)
        writes, results = await writer.draft(documents)
        at = {keys.workload_id(r.namespace, r.kind, r.name): _modified_at(state, r) for r in results}
        rehearsal.write(writes)
    rehearsal.write(question.writes(state, fork.clock.wall_s()))
    return rehearsal, results, at


def answered(rehearsal: Rehearsal, results: Sequence[Result], at: dict[str, Revision]) -> Answer:
    """Run the rehearsal and return what came of it. Pure but for the fork: may be called in another thread."""
    rehearsal.run()
    return Answer(rehearsal.fork.begun_at, tuple(results), at, rehearsal, outcome_of(rehearsal))


def _modified_at(state: ClusterState, result: Result) -> Revision:
    if result.kind in ("Namespace", "Cluster"):
        return state.settings.modified_at(keys.settings_id(result.kind, result.name))
    if result.kind == "Config":
        return state.configs.modified_at(keys.config_id(result.namespace, result.name))
    return state.workloads.modified_at(keys.workload_id(result.namespace, result.kind, result.name))


def fork_of(state: ClusterState, standing: Standing, clock: Clock) -> Fork:
    return Fork(state, standing, clock.wall_s())


async def fork_of_past(store: Store, revision: Revision, clock: Clock) -> Fork:
    """Return the cluster as it was at that revision. Raises CompactedError if nobody knows any more."""
    page = await store.list_prefix(keys.ROOT, at=revision)
    entries = list(page.entries)
    while page.next_key is not None:
        page = await store.list_prefix(keys.ROOT, at=revision, start=page.next_key)
        entries += page.entries
    return await asyncio.to_thread(_fork_of_entries, entries, revision, clock.wall_s())


def fork_of_snapshot(snapshot: Snapshot, wall_s: float) -> Fork:
    """Return the cluster as it was saved: each record is taken for one of the snapshot's revision."""
    revision = Revision(snapshot.revision)
    entries = [Entry(key, value, revision, revision) for key, value in snapshot.entries]
    return _fork_of_entries(entries, revision, wall_s)


def _fork_of_entries(entries: Iterable[Entry], revision: Revision, wall_s: float) -> Fork:
    state = ClusterState(CacheStore(), JumpingClock(wall_s))
    state.take_in([Change(e.key, e, e.mod_revision) for e in entries], revision, is_first=True)
    if state.cluster.get("") is None:
        raise ConflictError("there is nothing to rehearse", why=f"at revision {revision} there is no cluster yet")
    return Fork(state, Standing(state), wall_s)
