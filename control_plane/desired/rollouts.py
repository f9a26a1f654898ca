"""Writes what users say about rollouts: pause, resume, promote, undo, restart. The leader acts on it."""

from collections.abc import Awaitable, Callable

from control_plane import keys
from control_plane.desired.actor import current_actor
from control_plane.desired.committer import Committer
from control_plane.desired.draft import Draft
from control_plane.desired.isolation import check_isolation
from control_plane.desired.versions import (
    Result,
    config_changes,
    field_changes,
    present_version,
    put_next,
    read_record,
    result_of,
)
from control_plane.store.protocol import Revision
from foundation.clock import Clock
from manifests.errors import ConflictError, InvalidError, NotFoundError
from manifests.rollouts import Rollout
from manifests.workloads import Daemon, Service, VersionRecord, WorkloadRecord, with_template_of

Step = Callable[[Draft, WorkloadRecord], Awaitable[Result]]


class RolloutWriter:
    def __init__(self, committer: Committer, clock: Clock) -> None:
        self._committer, self._store, self._state, self._clock = committer, committer.store, committer.state, clock

    async def pause(self, workload: str) -> tuple[Revision, Result]:
        return await self._changed(workload, lambda record: {"paused": True})

    async def resume(self, workload: str) -> tuple[Revision, Result]:
        return await self._changed(workload, lambda record: {"paused": False})

    async def promote(self, workload: str) -> tuple[Revision, Result]:
        """Let the rollout of the present version go past its canaries."""

        def promoted(record: WorkloadRecord) -> dict[str, object]:
            canaries = record.workload.spec.update.canary if isinstance(record.workload, Service) else 0
            if not canaries:
                raise ConflictError(
                    f"{record.ref} has no canaries to promote",
                    why="its update.canary is 0",
                    fix="A rollout without canaries goes on by itself.",
                )
            return {"promoted": record.version}

        return await self._changed(workload, promoted)

    async def restart(self, workload: str) -> tuple[Revision, Result]:
        """Make a version that is the same: every allocation is replaced, within the limits of an update."""

        async def step(draft: Draft, old: WorkloadRecord) -> Result:
            present = await present_version(draft, workload, old)
            configs = present.configs if present else {}
            await self._hold_configs(draft, old, configs)
            record = await put_next(draft, self._clock, old, old.workload, configs, "restart")
            return result_of(record, "changed", makes_version=True)

        return await self._written(workload, step)

    async def undo(self, workload: str, to: int | None) -> tuple[Revision, Result]:
        """Make a version that copies a kept one (None: the last one that was healthy). Replicas stay as they are."""

        async def step(draft: Draft, old: WorkloadRecord) -> Result:
            kept = await self._kept(draft, workload, old, to or self._last_good(workload, old))
            await self._hold_configs(draft, old, kept.configs)
            present = await present_version(draft, workload, old)
            copied = with_template_of(old.workload, kept.workload.spec)
            check_isolation(self._state, [copied])
            cause = f"undo to version {kept.version}"
            record = await put_next(draft, self._clock, old, copied, kept.configs, cause, copies=kept.version)
            changes = [*field_changes(old.workload, copied)]
            changes += config_changes(present.configs if present else {}, kept.configs)
            return result_of(record, "changed", makes_version=True, changes=changes)

        return await self._written(workload, step)

    def _last_good(self, workload: str, record: WorkloadRecord) -> int:
        """Return the newest kept version before the present one that was healthy, or else the newest before it."""
        kept = {v for v, r in self._state.versions_of(workload).items() if r.uid == record.uid and v < record.version}
        said = self._state.workload_statuses.get(workload)
        rollout: Rollout | None = said.rollout if said and said.ref.uid == record.uid else None
        good = kept & set(rollout.healthy) if rollout else set()
        if not kept:
            raise NotFoundError(f"there is no earlier version of {record.ref} to go back to")
        return max(good or kept)

    async def _kept(self, draft: Draft, workload: str, record: WorkloadRecord, to: int) -> VersionRecord:
        if to == record.version:
            raise ConflictError(
                f"{record.ref} can't go back to version {to}",
                why="that is the version it should run now",
                fix=f"Run `wherry rollout history {record.ref}` for the others.",
            )
        entry = await draft.hold(keys.VERSIONS + keys.version_id(workload, to))
        kept = VersionRecord.read(entry.value) if entry else None
        if kept is None or kept.uid != record.uid:
            known = sorted(v for v, r in self._state.versions_of(workload).items() if r.uid == record.uid)
            raise NotFoundError(
                f"version {to} of {record.ref} isn't kept",
                why=f"the kept ones are {', '.join(map(str, known))}",
                fix=f"Run `wherry rollout history {record.ref}`.",
            )
        return kept

    async def _hold_configs(self, draft: Draft, record: WorkloadRecord, configs: dict[str, int]) -> None:
        """Touch the contents that the version will name, so that they aren't collected as unused meanwhile."""
        for name, number in configs.items():
            id_ = keys.config_version_id(keys.config_id(record.ref.namespace, name), number)
            if await draft.read(keys.CONFIG_VERSIONS + id_) is None:
                raise NotFoundError(f"version {number} of config {name} isn't kept, which it would use")
            await draft.touch(keys.CONFIG_VERSIONS + id_)

    async def _changed(
        self, workload: str, changes: Callable[[WorkloadRecord], dict[str, object]]
    ) -> tuple[Revision, Result]:
        async def step(draft: Draft, old: WorkloadRecord) -> Result:
            record = old.model_copy(update=changes(old))
            if record == old:
                return result_of(old, "unchanged", makes_version=False)
            update = {"generation": old.generation + 1, "changed_by": current_actor()}
            await draft.put(keys.WORKLOADS + workload, record.model_copy(update=update).to_bytes())
            return result_of(record, "changed", makes_version=False)

        return await self._written(workload, step)

    async def _written(self, workload: str, step: Step) -> tuple[Revision, Result]:
        async def write_once() -> tuple[Revision, Result]:
            draft = Draft(self._store)
            entry = await draft.hold(keys.WORKLOADS + workload)
            namespace, kind, name = workload.split("/")
            if entry is None:
                raise NotFoundError(f"there is no {kind} {name} in namespace {namespace}")
            record = read_record(workload, entry)
            if not isinstance(record.workload, Service | Daemon):
                raise InvalidError(
                    f"a {kind} has no rollouts",
                    why="what has run of it doesn't run again",
                    fix="Only services and daemons are renewed.",
                )
            result = await step(draft, record)
            if not draft.writes:
                return self._state.revision, result
            return await self._committer.commit(draft.compares, draft.writes), result

        return await self._committer.retried(write_once)
