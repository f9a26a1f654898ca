"""Writes workloads with their versions: all of one call, or nothing."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from control_plane import keys
from control_plane.dependencies import refuse_cycles
from control_plane.desired.actor import current_actor
from control_plane.desired.committer import Committer, StaleError
from control_plane.store.protocol import ABSENT, Compare, Delete, Entry, ModifiedAt, Put, Revision
from foundation.clock import Clock
from manifests.errors import InvalidError, NotFoundError
from manifests.workloads import (
    Job,
    JobSpec,
    Service,
    VersionRecord,
    Workload,
    WorkloadRecord,
    makes_new_version,
)

MOST_DOCUMENTS = 60  # of one call: each takes two writes and two compares of the transaction


@dataclass(frozen=True, slots=True)
class FieldChange:
    path: str
    old: object
    new: object


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one document."""

    namespace: str
    kind: str
    name: str
    action: str  # created, changed or unchanged
    version: int
    makes_version: bool
    changes: tuple[FieldChange, ...]


class WorkloadWriter:
    def __init__(self, committer: Committer, clock: Clock, rng: random.Random) -> None:
        self._committer, self._store, self._state = committer, committer.store, committer.state
        self._clock, self._rng = clock, rng

    async def apply(
        self, workloads: Sequence[Workload], *, dry_run: bool = False, expected: Revision | None = None
    ) -> tuple[Revision, list[Result]]:
        """Store all the workloads, or say what that would do. Raises ConflictError if they aren't at `expected`."""
        refuse_cycles(self._state, workloads)
        if len(workloads) > MOST_DOCUMENTS:
            raise InvalidError(
                f"{len(workloads)} documents are too many for one apply",
                why=f"they are stored all at once, and at most {MOST_DOCUMENTS} can be",
                fix="Apply them in several calls.",
            )
        return await self._committer.retried(lambda: self._apply(workloads, dry_run=dry_run, expected=expected))

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
            return await self._apply([scaled], dry_run=False, expected=None)

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
        self, workloads: Sequence[Workload], *, dry_run: bool, expected: Revision | None
    ) -> tuple[Revision, list[Result]]:
        compares: list[Compare] = []
        writes: list[Put | Delete] = []
        results = []
        for workload in workloads:
            workload_id = keys.id_of_metadata(workload.kind, workload.metadata)
            entry = await self._store.get(keys.WORKLOADS + workload_id)
            _check_expected(workload_id, entry, expected)
            record, result = self._next_record(workload_id, workload, entry)
            results.append(result)
            if result.action != "unchanged":
                compares.append(ModifiedAt(keys.WORKLOADS + workload_id, entry.mod_revision if entry else ABSENT))
                writes.append(Put(keys.WORKLOADS + workload_id, record.to_bytes()))
            if result.makes_version:
                key = keys.VERSIONS + keys.version_id(workload_id, record.version)
                version = VersionRecord(
                    uid=record.uid,
                    version=record.version,
                    created_s=self._clock.wall_s(),
                    workload=workload,
                    changed_by=record.changed_by,
                )
                compares.append(ModifiedAt(key, ABSENT))
                writes.append(Put(key, version.to_bytes()))
        if dry_run or not writes:
            return self._state.revision, results
        return await self._committer.commit(compares, writes), results

    def _next_record(self, workload_id: str, workload: Workload, entry: Entry | None) -> tuple[WorkloadRecord, Result]:
        old = read_record(workload_id, entry) if entry else None
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
            return record, _result(record, "created", makes_version=True)
        _check_job(old.workload, workload)
        changes = _field_changes(old.workload, workload)
        if not changes:
            return old, _result(old, "unchanged", makes_version=False)
        is_new = makes_new_version(old.workload, workload)
        update = {"workload": workload, "generation": old.generation + 1, "version": old.version + is_new}
        record = old.model_copy(update={**update, "changed_by": current_actor()})
        return record, _result(record, "changed", makes_version=is_new, changes=changes)

    def _versions_of(self, workload_id: str) -> list[int]:
        return list(self._state.versions_of(workload_id))


def read_record(workload: str, entry: Entry) -> WorkloadRecord:
    """Return the record. Raises ConflictError if it can't be read: it must not be overwritten unread."""
    try:
        return WorkloadRecord.read(entry.value)
    except ValidationError as error:
        raise StaleError(
            f"the record of {workload} can't be read",
            why=f"{error.error_count()} of its fields are damaged, or written by a newer version",
            fix="Run the newest version of Wherry on all servers, or delete the workload and apply it anew.",
        ) from error


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
        paths = ", ".join(c.path for c in _field_changes(old, new))
        raise StaleError(
            f"job {new.metadata.name} can't be changed once it is applied",
            why=f"{paths} would change, and what has run already doesn't run again",
            fix=f"Run `wherry delete job {new.metadata.name}` first, or give the new one another name. "
            "Of an applied job only parallelism and retries may change.",
        )


def _result(
    record: WorkloadRecord, action: str, *, makes_version: bool, changes: tuple[FieldChange, ...] = ()
) -> Result:
    ref = record.ref
    return Result(ref.namespace, record.workload.kind, ref.name, action, record.version, makes_version, changes)


def _field_changes(old: Workload, new: Workload) -> tuple[FieldChange, ...]:
    before, after = (_flat(w.model_dump(mode="json", exclude_none=True)) for w in (old, new))
    paths = sorted(before.keys() | after.keys())
    return tuple(FieldChange(p, before.get(p), after.get(p)) for p in paths if before.get(p) != after.get(p))


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Return the leaves by dotted path; lists count as leaves."""
    if not isinstance(value, dict):
        return {path: value}
    return {p: v for key, inner in value.items() for p, v in _flat(inner, f"{path}.{key}".lstrip(".")).items()}
