"""Writes workloads with their versions: all of one call, or nothing."""

import contextlib
import random
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from types import MappingProxyType
from typing import TypeAlias

from control_plane import keys
from control_plane.dependencies import refuse_cycles
from control_plane.desired.actor import current_actor
from control_plane.desired.committer import Committer, StaleError
from control_plane.desired.configs import ConfigWriter, cause_of
from control_plane.desired.draft import Draft
from control_plane.desired.isolation import check_isolation
from control_plane.desired.settings import draft_settings
from control_plane.desired.versions import (
    Result,
    config_changes,
    field_changes,
    present_version,
    put_version,
    read_record,
    result_of,
)
from control_plane.store.protocol import ABSENT, Delete, Entry, ModifiedAt, Put, Revision
from foundation.clock import Clock
from manifests.configs import Config, ConfigRecord
from manifests.errors import InvalidError, NotFoundError
from manifests.workloads import Document, Job, JobSpec, Service, Workload, WorkloadRecord, makes_new_version

MOST_DOCUMENTS = 60  # of one call: each takes two writes and two compares of the transaction

Expected: TypeAlias = Mapping[str, Revision]  # what must be as it was read, by id; a config's: `default/config/site`


class WorkloadWriter:
    def __init__(self, committer: Committer, configs: ConfigWriter, clock: Clock, rng: random.Random) -> None:
        self._committer, self._store, self._state = committer, committer.store, committer.state
        self._configs, self._clock, self._rng = configs, clock, rng

    async def apply(
        self, documents: Sequence[Document], *, dry_run: bool = False, expected: Expected = MappingProxyType({})
    ) -> tuple[Revision, list[Result]]:
        """Store all the documents, or say what that would do. Raises ConflictError if one isn't at its `expected`.

        A changed config makes a new version of every workload that uses it; these have results of their own, last.
        """
        self._check(documents)
        workloads = [d for d in documents if isinstance(d, Workload)]
        has_configs = any(isinstance(d, Config) for d in documents) or any(w.spec.all_configs() for w in workloads)
        async with self._configs.turn if has_configs else contextlib.nullcontext():
            return await self._committer.retried(lambda: self._apply(documents, dry_run=dry_run, expected=expected))

    def _check(self, documents: Sequence[Document]) -> None:
        check_isolation(self._state, documents)
        refuse_cycles(self._state, [d for d in documents if isinstance(d, Workload)])
        if len(documents) > MOST_DOCUMENTS:
            raise InvalidError(
                f"{len(documents)} documents are too many for one apply",
                why=f"they are stored all at once, and at most {MOST_DOCUMENTS} can be",
                fix="Apply them in several calls.",
            )

    async def draft(self, documents: Sequence[Document]) -> tuple[tuple[Put | Delete, ...], list[Result]]:
        """Return what applying all the documents would write, and what it would say."""
        self._check(documents)
        draft, results = await self._draft(documents, {})
        return draft.writes, results

    async def scale(self, workload: str, replicas: int) -> tuple[Revision, Result]:
        async def scale_once() -> tuple[Revision, list[Result]]:
            entry = await self._existing(workload)
            old = read_record(workload, entry).workload
            if not isinstance(old, Service):
                raise InvalidError(
                    f"{old.kind} {old.metadata.name} can't be scaled",
                    why="only a Service has replicas",
                    fix="A Daemon follows the nodes; for a Job apply another parallelism.",
                )
            scaled = old.model_copy(update={"spec": old.spec.model_copy(update={"replicas": replicas})})
            return await self._apply([scaled], dry_run=False, expected={})

        revision, results = await self._committer.retried(scale_once)
        return revision, results[0]

    async def delete(self, workload: str, *, expected: Revision | None = None) -> Revision:
        """Delete the workload; the leader stops what runs of it."""

        async def delete_once() -> Revision:
            entry = await self._existing(workload)
            _check_expected(workload, entry, expected)
            key = keys.WORKLOADS + workload
            return await self._committer.commit(
                (ModifiedAt(key, entry.mod_revision),), (Delete(key), self._committer.deletion(workload))
            )

        return await self._committer.retried(delete_once)

    async def _existing(self, workload: str) -> Entry:
        entry = await self._store.get(keys.WORKLOADS + workload)
        if entry is None:
            namespace, kind, name = workload.split("/")
            raise NotFoundError(f"there is no {kind} {name} in namespace {namespace}")
        return entry

    async def _apply(
        self, documents: Sequence[Document], *, dry_run: bool, expected: Expected
    ) -> tuple[Revision, list[Result]]:
        draft, results = await self._draft(documents, expected)
        if dry_run or not draft.writes:
            return self._state.revision, results
        return await self._committer.commit(draft.compares, draft.writes), results

    async def _draft(self, documents: Sequence[Document], expected: Expected) -> tuple[Draft, list[Result]]:
        draft = Draft(self._store)
        results: dict[int, Result] = {}
        drafted: dict[str, ConfigRecord] = {}
        for number, document in enumerate(documents):
            if isinstance(document, Workload):
                continue
            id_ = keys.id_of_metadata(document.kind, document.metadata)
            _check_expected(id_, await draft.read(keys.key_of(document)), expected.get(id_))
            if isinstance(document, Config):
                results[number], record = await self._configs.draft_config(draft, document)
                drafted[keys.config_id(document.metadata.namespace, document.metadata.name)] = record
            else:
                results[number] = await draft_settings(draft, document, self._clock)
        changed = {id_ for id_ in drafted if await self._makes_version(draft, drafted[id_])}
        for number, workload in enumerate(documents):
            if isinstance(workload, Workload):
                results[number] = await self._draft_workload(draft, workload, number, expected, drafted, changed)
        applied = frozenset(keys.id_of_metadata(d.kind, d.metadata) for d in documents)
        others = await self._configs.draft_users(draft, [drafted[id_] for id_ in sorted(changed)], applied)
        ordered = [results[number] for number in sorted(results)] + others
        draft.check_size()
        return draft, ordered

    async def _makes_version(self, draft: Draft, config: ConfigRecord) -> bool:
        """Say whether the drafted config has other content than the stored one; a new one has."""
        meta = config.config.metadata
        entry = await draft.read(keys.CONFIGS + keys.config_id(meta.namespace, meta.name))
        return entry is None or ConfigRecord.read(entry.value).version != config.version

    async def _draft_workload(
        self,
        draft: Draft,
        workload: Workload,
        number: int,
        expected: Expected,
        drafted: Mapping[str, ConfigRecord],
        changed: Set[str],
    ) -> Result:
        workload_id = keys.id_of_metadata(workload.kind, workload.metadata)
        entry = await draft.read(keys.WORKLOADS + workload_id)
        _check_expected(workload_id, entry, expected.get(workload_id))
        old = read_record(workload_id, entry) if entry else None
        present = await present_version(draft, workload_id, old) if old else None
        before = present.configs if present else {}
        renewed = self._renewed(workload, changed)
        record, result = self._next_record(workload_id, workload, old, is_renewed=bool(renewed) and old is not None)
        if result.action == "unchanged":
            return result
        await draft.put(keys.WORKLOADS + workload_id, record.to_bytes())
        if not result.makes_version:
            return result
        configs = await self._configs.versions_for(draft, workload, drafted, number, before)
        is_same = old is not None and not makes_new_version(old.workload, workload)
        put_version(draft, self._clock, record, configs, cause_of({n: configs[n] for n in renewed}) if is_same else "")
        return replace(result, changes=(*result.changes, *(config_changes(before, configs) if old else ())))

    @staticmethod
    def _renewed(workload: Workload, changed: Set[str]) -> list[str]:
        """Return the configs whose change renews the workload. A job keeps the content that it began with."""
        if isinstance(workload, Job):
            return []
        names = sorted(workload.spec.all_configs())
        return [name for name in names if keys.config_id(workload.metadata.namespace, name) in changed]

    def _next_record(
        self, workload_id: str, workload: Workload, old: WorkloadRecord | None, *, is_renewed: bool
    ) -> tuple[WorkloadRecord, Result]:
        if old is None:
            version = 1 + max(self._versions_of(workload_id), default=0)
            uid = f"{self._rng.getrandbits(64):016x}"
            record = WorkloadRecord(
                uid=uid,
                version=version,
                generation=1,
                created_s=self._clock.wall_s(),
                workload=workload,
                changed_by=current_actor(),
            )
            return record, result_of(record, "created", makes_version=True)
        _check_job(old.workload, workload)
        changes = field_changes(old.workload, workload)
        if not changes and not is_renewed:
            return old, result_of(old, "unchanged", makes_version=False)
        is_new = is_renewed or makes_new_version(old.workload, workload)
        update = {"workload": workload, "generation": old.generation + 1, "version": old.version + is_new}
        record = old.model_copy(update={**update, "changed_by": current_actor()})
        return record, result_of(record, "changed", makes_version=is_new, changes=changes)

    def _versions_of(self, workload_id: str) -> list[int]:
        return list(self._state.versions_of(workload_id))


def _check_expected(workload: str, entry: Entry | None, expected: Revision | None) -> None:
    found = entry.mod_revision if entry else ABSENT
    if expected is not None and found != expected:
        raise StaleError(
            f"cannot update {workload}",
            why=f"it is at revision {found} and your edit started from revision {expected}",
            fix="Get it again, redo the edit, and apply again.",
        )


def _check_job(old: Workload, new: Workload) -> None:
    """Refuse to change what a Job runs: some of its indexes may have run already, and never run again.

    How many run at once, and how often an index is tried again, may change at any time.
    """
    if not (isinstance(old, Job) and isinstance(new, Job)):
        return

    def fixed(spec: JobSpec) -> JobSpec:
        return spec.model_copy(update={"parallelism": 1, "retries": 0})

    if fixed(old.spec) != fixed(new.spec):
        paths = ", ".join(c.path for c in field_changes(old, new))
        raise StaleError(
            f"job {new.metadata.name} can't be changed once it is applied",
            why=f"{paths} would change, and what has run already doesn't run again",
            fix=f"Run `wherry delete job {new.metadata.name}` first, or give the new one another name. "
            "Of an applied job only parallelism and retries may change.",
        )
