"""What the API shows of rollouts, versions and configs: JSON made of records, with counts."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypeAlias

from control_plane import keys
from control_plane.desired.configs import all_users, users_of
from control_plane.desired.versions import FieldChange, config_changes, field_changes
from control_plane.state import ClusterState, Stored
from manifests.allocations import Desired
from manifests.base import render_timestamp
from manifests.configs import ConfigRecord
from manifests.rollouts import Rollout, RolloutState
from manifests.status import WorkloadStatus
from manifests.workloads import Daemon, Service, VersionRecord, WorkloadRecord

View: TypeAlias = dict[str, Any]


def rollout_of(record: WorkloadRecord, said: WorkloadStatus | None) -> Rollout | None:
    """Return where the rollout of the record's version stands, as far as the leader has said; None: it has none."""
    if not isinstance(record.workload, Service | Daemon):
        return None
    if said and said.rollout and said.rollout.version == record.version:
        return said.rollout
    healthy = said.rollout.healthy if said and said.rollout else ()
    state = RolloutState.PROGRESSING
    return Rollout(version=record.version, target=record.version, state=state, healthy=healthy)


def rollout(state: ClusterState, workload_id: str, record: WorkloadRecord, said: WorkloadStatus | None) -> View | None:
    known = rollout_of(record, said)
    if known is None:
        return None
    wanted = [a for a in state.allocations_of(workload_id) if a.desired is Desired.RUN and a.workload.uid == record.uid]
    updated = [a for a in wanted if a.version == known.target]
    return {
        "state": known.state,
        "version": known.version,
        "target": known.target,
        "message": known.message,
        "healthyVersion": known.last_healthy or None,
        "paused": record.paused,
        "promoted": known.promoted or record.promoted == record.version,
        "stopFirst": known.stop_first,
        "updated": len(updated),
        "ready": sum(bool((s := state.statuses.get(a.id)) and s.is_ready) for a in updated),
        "old": len(wanted) - len(updated),
    }


def state_word(known: Rollout | None) -> str:
    """Return what a rollout makes of its workload's state, if it has a say in it: failed or progressing."""
    if known is None:
        return ""
    if known.state is RolloutState.FAILED:
        return "failed"
    # A first version has nothing to go back to: it is healthy as soon as it serves.
    return "progressing" if known.state is RolloutState.PROGRESSING and known.healthy else ""


def messages(known: Rollout | None) -> tuple[str, ...]:
    return (known.message,) if known and known.message else ()


def versions(state: ClusterState, workload_id: str) -> list[View]:
    """Return the kept versions of a workload, newest first, each with what it changed."""
    record = state.workloads.get(workload_id)
    if record is None:
        return []
    said = state.workload_statuses.get(workload_id)
    known = rollout_of(record, said if said and said.ref.uid == record.uid else None)
    kept = [v for _, v in sorted(state.versions_of(workload_id).items()) if v.uid == record.uid]
    shown = [_version(record, known, old, new) for old, new in pairwise([None, *kept]) if new]
    for view in shown:
        view["allocations"] = sum(a.version == view["version"] for a in state.allocations_of(workload_id))
    return shown[::-1]


def _version(record: WorkloadRecord, known: Rollout | None, old: VersionRecord | None, new: VersionRecord) -> View:
    first = "created" if new.version == 1 else "the one before isn't kept"
    changes = _changes(old, new)
    return {
        "version": new.version,
        "createdAt": render_timestamp(new.created_s),
        "cause": new.cause or ("its spec changed" if old else first),
        "changedBy": new.changed_by,
        "isPresent": new.version == record.version,
        "isTarget": known is not None and new.version == known.target,
        "wasHealthy": known is not None and new.version in known.healthy,
        "configs": new.configs,
        "changes": [{"path": c.path, "old": c.old, "new": c.new} for c in changes],
    }


def _changes(old: VersionRecord | None, new: VersionRecord) -> list[FieldChange]:
    if old is None:
        return []
    return [*field_changes(old.workload, new.workload), *config_changes(old.configs, new.configs)]


def configs(state: ClusterState, namespace: str | None) -> list[View]:
    """Return the configs of a namespace (None: of all), by name."""
    ids = sorted(c for c in state.configs.ids() if namespace in (None, c.partition("/")[0]))
    users = all_users(state)
    return [_config(state, stored, users.get(id_, ())) for id_ in ids if (stored := state.configs.stored(id_))]


def config(state: ClusterState, config_id: str) -> View | None:
    stored = state.configs.stored(config_id)
    return _config(state, stored, users_of(state, config_id)) if stored else None


def _config(state: ClusterState, stored: Stored[ConfigRecord], users: Sequence[WorkloadRecord]) -> View:
    record = stored.value
    meta = record.config.metadata
    return {
        "namespace": meta.namespace,
        "kind": "Config",
        "name": meta.name,
        "uid": record.uid,
        "version": record.version,
        "createdAt": render_timestamp(record.created_s),
        "revision": stored.modified_at,
        "manifest": record.config.model_dump(mode="json", exclude_none=True),
        "bytes": len(record.config.spec.data.encode()),
        "users": [str(user.ref) for user in users],
        "keptVersions": _kept_versions(state, keys.config_id(meta.namespace, meta.name)),
    }


def _kept_versions(state: ClusterState, config_id: str) -> list[int]:
    return sorted(int(v.rpartition("/")[2]) for v in state.config_versions.ids() if keys.place_of(v) == config_id)
