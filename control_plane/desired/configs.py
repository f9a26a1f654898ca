"""Writes configs: each change of content makes an immutable version, and renews what uses it in the same transaction.

A workload that begins to use a config touches its record, so that a change of the config can't miss it: both compare
that record. Secrets would go the same way.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from control_plane import keys
from control_plane.desired.actor import current_actor
from control_plane.desired.committer import Committer
from control_plane.desired.draft import Draft
from control_plane.desired.versions import (
    FieldChange,
    Result,
    config_changes,
    present_version,
    put_next,
    read_record,
    result_of,
)
from control_plane.state import ClusterState
from control_plane.store.protocol import Revision
from foundation.clock import Clock
from manifests.configs import Config, ConfigRecord, ConfigVersionRecord
from manifests.documents import invalid
from manifests.errors import ConflictError, NotFoundError
from manifests.problems import Problem
from manifests.workloads import Job, Workload, WorkloadRecord

MOST_USERS_NAMED = 10


def users_of(state: ClusterState, config: str) -> list[WorkloadRecord]:
    """Return the workloads that use the config of that id, `default/site`."""
    namespace, _, name = config.partition("/")
    found = (r for r in state.workloads.values() if name in r.workload.spec.all_configs())
    return sorted((r for r in found if r.ref.namespace == namespace), key=lambda r: str(r.ref))


def all_users(state: ClusterState) -> dict[str, list[WorkloadRecord]]:
    """Return who uses each config that is used, in one look at all workloads."""
    users: defaultdict[str, list[WorkloadRecord]] = defaultdict(list)
    for record in sorted(state.workloads.values(), key=lambda r: str(r.ref)):
        for name in record.workload.spec.all_configs():
            users[keys.config_id(record.ref.namespace, name)].append(record)
    return users


class ConfigWriter:
    def __init__(self, committer: Committer, clock: Clock, rng: random.Random) -> None:
        self._committer, self._store, self._state = committer, committer.store, committer.state
        self._clock, self._rng = clock, rng
        # Those who touch configs at this server take turns: else many at once would overtake each other over and over.
        self.turn = asyncio.Lock()

    async def delete(self, config: str) -> Revision:
        """Delete the config of that id. Raises ConflictError, with their names, if workloads use it."""

        async def delete_once() -> Revision:
            draft = Draft(self._store)
            entry = await draft.read(keys.CONFIGS + config)
            namespace, _, name = config.partition("/")
            if entry is None:
                raise NotFoundError(f"there is no config {name} in namespace {namespace}")
            await self._state.wait_for(entry.mod_revision)
            users = [str(user.ref) for user in users_of(self._state, config)]
            if users:
                more = f" and {len(users) - MOST_USERS_NAMED} more" if len(users) > MOST_USERS_NAMED else ""
                raise ConflictError(
                    f"config {name} can't be deleted",
                    why=f"it is used by {', '.join(users[:MOST_USERS_NAMED])}{more}",
                    fix="Delete them first, or apply them without it.",
                )
            await draft.delete(keys.CONFIGS + config)
            told = self._committer.deletion(keys.config_place(config))
            return await self._committer.commit(draft.compares, (*draft.writes, told))

        async with self.turn:
            return await self._committer.retried(delete_once)

    async def draft_config(self, draft: Draft, config: Config) -> tuple[Result, ConfigRecord]:
        """Draft the config's next version, if its content changed."""
        id_ = keys.config_id(config.metadata.namespace, config.metadata.name)
        entry = await draft.hold(keys.CONFIGS + id_)
        old = ConfigRecord.read(entry.value) if entry else None
        if old is not None and old.config == config:
            return _result(old, "unchanged"), old
        is_new = old is None or old.config.spec.data != config.spec.data
        uid = old.uid if old else f"{self._rng.getrandbits(64):016x}"
        number = old.version + is_new if old else 1 + max(self._kept_versions(id_), default=0)
        created_s = old.created_s if old else self._clock.wall_s()
        record = ConfigRecord(uid=uid, version=number, created_s=created_s, config=config, changed_by=current_actor())
        await draft.put(keys.CONFIGS + id_, record.to_bytes())
        if is_new:
            content = ConfigVersionRecord(
                uid=uid, version=number, created_s=self._clock.wall_s(), data=config.spec.data
            )
            draft.create(keys.CONFIG_VERSIONS + keys.config_version_id(id_, number), content.to_bytes())
        change = FieldChange("version", old.version if old else None, number)
        return _result(record, "changed" if old else "created", (change,) if is_new and old else ()), record

    async def versions_for(
        self, draft: Draft, workload: Workload, drafted: Mapping[str, ConfigRecord], number: int, old: Mapping[str, int]
    ) -> dict[str, int]:
        """Return the present version of each config that the workload uses. Raises InvalidError if one isn't there.

        `drafted` are those of the same apply, `old` what the workload's present version uses, `number` which document
        it is.
        """
        versions: dict[str, int] = {}
        problems = []
        for name in sorted(workload.spec.all_configs()):
            id_ = keys.config_id(workload.metadata.namespace, name)
            record = drafted.get(id_)
            if record is None:
                entry = await draft.hold(keys.CONFIGS + id_)
                record = ConfigRecord.read(entry.value) if entry else None
            if record is None:
                where = f"in namespace {workload.metadata.namespace}"
                said = f"there is no config '{name}' {where}: apply it before, or with it"
                problems.append(Problem(number, path_of_config(workload, name), said))
                continue
            versions[name] = record.version
            if name not in old:
                await draft.touch(keys.CONFIGS + id_)
        if problems:
            raise invalid(problems, f"{workload.kind.lower()}/{workload.metadata.name}")
        return versions

    async def draft_users(
        self, draft: Draft, changed: Sequence[ConfigRecord], apart_from: frozenset[str]
    ) -> list[Result]:
        """Draft a version of every workload that uses a changed config, but those that are applied themselves."""
        by_user: dict[str, dict[str, int]] = {}
        for config in changed:
            meta = config.config.metadata
            id_ = keys.config_id(meta.namespace, meta.name)
            entry = await draft.read(keys.CONFIGS + id_)
            await self._state.wait_for(entry.mod_revision if entry else 0)
            users = [keys.id_of_ref(u.ref) for u in users_of(self._state, id_) if not isinstance(u.workload, Job)]
            if users:
                draft.reasons.append(f"{len(users)} workloads use config {meta.name}")
            for user in users:
                by_user.setdefault(user, {})[meta.name] = config.version
        results = [await self._draft_user(draft, u, c) for u, c in sorted(by_user.items()) if u not in apart_from]
        return [result for result in results if result]

    async def _draft_user(self, draft: Draft, workload: str, configs: Mapping[str, int]) -> Result | None:
        entry = await draft.hold(keys.WORKLOADS + workload)
        if entry is None:
            return None
        old = read_record(workload, entry)
        present = await present_version(draft, workload, old)
        before = present.configs if present else {}
        record = await put_next(draft, self._clock, old, old.workload, {**before, **configs}, cause_of(configs))
        return result_of(record, "changed", makes_version=True, changes=config_changes(before, {**before, **configs}))

    def _kept_versions(self, config: str) -> Iterator[int]:
        prefix = config + "/"
        return (int(v.removeprefix(prefix)) for v in self._state.config_versions.ids() if v.startswith(prefix))


def cause_of(configs: Mapping[str, int]) -> str:
    """Return why a change of configs makes a version.

    >>> cause_of({"site": 4})
    'config site changed to version 4'
    """
    return ", ".join(f"config {name} changed to version {version}" for name, version in sorted(configs.items()))


def path_of_config(workload: Workload, name: str) -> str:
    """Return where a workload first names a config, dotted."""
    spec = workload.spec
    places = [("spec", spec.configs)]
    places += [(f"spec.containers[{i}]", member.configs) for i, member in enumerate(spec.containers)]
    places += [(f"spec.initContainers[{i}]", init.configs) for i, init in enumerate(spec.init_containers)]
    found = (f"{at}.configs[{i}].name" for at, mounts in places for i, m in enumerate(mounts) if m.name == name)
    return next(found, "spec.configs")


def _result(record: ConfigRecord, action: str, changes: tuple[FieldChange, ...] = ()) -> Result:
    meta = record.config.metadata
    return Result(meta.namespace, "Config", meta.name, action, record.version, action != "unchanged", changes)
