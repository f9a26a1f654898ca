"""Writes settings of namespaces and of the cluster. To delete them is to go back to the defaults."""

from dataclasses import replace

from pydantic import ValidationError

from control_plane import keys
from control_plane.desired.actor import current_actor
from control_plane.desired.committer import Committer
from control_plane.desired.draft import Draft
from control_plane.desired.versions import Result, field_changes
from control_plane.store.protocol import Entry, Revision
from foundation.clock import Clock
from manifests.errors import NotFoundError
from manifests.settings import NOWHERE, Settings, SettingsRecord


async def draft_settings(draft: Draft, settings: Settings, clock: Clock) -> Result:
    """Draft them, if they are new or say something else."""
    key = keys.key_of(settings)
    entry = await draft.read(key)
    old = _readable(entry) if entry else None
    if old is not None and old.settings == settings:
        return _result(settings, "unchanged")
    created_s = old.created_s if old else clock.wall_s()
    record = SettingsRecord(created_s=created_s, settings=settings, changed_by=current_actor())
    await draft.put(key, record.to_bytes())
    result = _result(settings, "changed" if old else "created")
    return replace(result, changes=field_changes(old.settings, settings)) if old else result


def _readable(entry: Entry) -> SettingsRecord | None:
    """Return the record; None if it can't be read, and so is to be overwritten."""
    try:
        return SettingsRecord.read(entry.value)
    except ValidationError:
        return None


def _result(settings: Settings, action: str) -> Result:
    return Result(NOWHERE, settings.kind, settings.metadata.name, action, 0, makes_version=False, changes=())


class SettingsWriter:
    def __init__(self, committer: Committer) -> None:
        self._committer, self._store = committer, committer.store

    async def delete(self, kind: str, name: str) -> Revision:
        """Go back to the defaults. Raises NotFoundError if these hold already."""
        id_ = keys.settings_id(kind, name)

        async def delete_once() -> Revision:
            draft = Draft(self._store)
            if await draft.read(keys.SETTINGS + id_) is None:
                what = "the cluster" if kind == "Cluster" else f"namespace {name}"
                raise NotFoundError(f"{what} has no settings of its own", why="the defaults hold already")
            await draft.delete(keys.SETTINGS + id_)
            told = self._committer.deletion(keys.settings_place(id_))
            return await self._committer.commit(draft.compares, (*draft.writes, told))

        return await self._committer.retried(delete_once)
