"""How a workload's next version is drafted, whatever the reason. The writers of workloads and rollouts call it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import ValidationError

from control_plane import keys
from control_plane.desired.actor import current_actor
from control_plane.desired.committer import StaleError
from control_plane.desired.draft import Draft
from control_plane.store.protocol import Entry
from foundation.clock import Clock
from manifests.workloads import Document, VersionRecord, Workload, WorkloadRecord


@dataclass(frozen=True, slots=True)
class FieldChange:
    path: str
    old: object
    new: object


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one document, or of a workload that one concerns."""

    namespace: str
    kind: str
    name: str
    action: str  # created, changed or unchanged
    version: int
    makes_version: bool
    changes: tuple[FieldChange, ...]


def result_of(
    record: WorkloadRecord, action: str, *, makes_version: bool, changes: Sequence[FieldChange] = ()
) -> Result:
    ref = record.ref
    return Result(ref.namespace, record.workload.kind, ref.name, action, record.version, makes_version, tuple(changes))


def shown(result: Result) -> dict[str, Any]:
    """Return the result as the API shows it."""
    return {
        "namespace": result.namespace,
        "kind": result.kind,
        "name": result.name,
        "action": result.action,
        "version": result.version,
        "makesVersion": result.makes_version,
        "changes": [asdict(change) for change in result.changes],
    }


def read_record(workload: str, entry: Entry) -> WorkloadRecord:
    try:
        return WorkloadRecord.read(entry.value)
    except ValidationError as error:
        raise StaleError(
            f"the record of {workload} can't be read",
            why=f"{error.error_count()} of its fields are damaged, or written by a newer version",
            fix="Run the newest version of Wherry on all servers, or delete the workload and apply it anew.",
        ) from error


async def present_version(draft: Draft, workload: str, record: WorkloadRecord) -> VersionRecord | None:
    """Return the record of the workload's present version; None if there is none that can be read."""
    entry = await draft.read(keys.VERSIONS + keys.version_id(workload, record.version))
    try:
        return VersionRecord.read(entry.value) if entry else None
    except ValidationError:
        return None


async def put_next(
    draft: Draft,
    clock: Clock,
    old: WorkloadRecord,
    workload: Workload,
    configs: Mapping[str, int],
    cause: str,
    *,
    copies: int = 0,
) -> WorkloadRecord:
    """Draft the workload's next version, and return its record. `copies` names the version that it is to equal."""
    id_ = keys.id_of_ref(old.ref)
    update = {"workload": workload, "version": old.version + 1, "generation": old.generation + 1}
    record = old.model_copy(update={**update, "changed_by": current_actor()})
    await draft.put(keys.WORKLOADS + id_, record.to_bytes())
    put_version(draft, clock, record, configs, cause, copies=copies)
    return record


def put_version(
    draft: Draft, clock: Clock, record: WorkloadRecord, configs: Mapping[str, int], cause: str, *, copies: int = 0
) -> None:
    """Draft the immutable copy of the record's version."""
    version = VersionRecord(
        uid=record.uid,
        version=record.version,
        created_s=clock.wall_s(),
        workload=record.workload,
        configs=dict(configs),
        cause=cause,
        changed_by=record.changed_by,
        copies=copies,
    )
    key = keys.VERSIONS + keys.version_id(keys.id_of_ref(record.ref), record.version)
    draft.create(key, version.to_bytes())


def config_changes(old: Mapping[str, int], new: Mapping[str, int]) -> list[FieldChange]:
    """Return which configs are at another version, as changes of fields."""
    names = sorted(old.keys() | new.keys())
    return [FieldChange(f"configs.{n}", old.get(n), new.get(n)) for n in names if old.get(n) != new.get(n)]


def field_changes(old: Document, new: Document) -> tuple[FieldChange, ...]:
    before, after = (_flat(w.model_dump(mode="json", exclude_none=True)) for w in (old, new))
    paths = sorted(before.keys() | after.keys())
    return tuple(FieldChange(p, before.get(p), after.get(p)) for p in paths if before.get(p) != after.get(p))


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Return the leaves by dotted path; lists count as leaves."""
    if not isinstance(value, dict):
        return {path: value}
    return {p: v for key, inner in value.items() for p, v in _flat(inner, f"{path}.{key}".lstrip(".")).items()}
