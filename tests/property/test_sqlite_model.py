"""The embedded store against a model in a dozen lines: every answer, every old revision, every replay."""

import asyncio
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.store.protocol import (
    ABSENT,
    Change,
    Compare,
    CreatedAt,
    Delete,
    Entry,
    Exists,
    ModifiedAt,
    Put,
    Revision,
    Txn,
)
from control_plane.store.sqlite import SqliteStore
from control_plane.store.sqlite_file import open_reader
from control_plane.store.sqlite_log import read_changes
from control_plane.store.transactions import holds
from foundation.clock import SystemClock
from manifests.errors import CompactedError, ConflictError

KEYS = ("/a", "/a/1", "/a/é", "/b")


@dataclass(frozen=True)
class Compact:
    back: int  # revisions before the current one


@dataclass(frozen=True)
class Reopen:
    pass


Step: TypeAlias = Txn | Compact | Reopen


@dataclass
class Model:
    """The state at each revision, and each revision's changes."""

    states: list[dict[str, Entry]] = field(default_factory=lambda: [{}, {}])
    changes: list[tuple[Change, ...]] = field(default_factory=lambda: [(), ()])
    compacted: Revision = ABSENT

    @property
    def revision(self) -> Revision:
        return Revision(len(self.states) - 1)

    def commit(self, txn: Txn) -> bool:
        now = self.states[-1]
        for compare in txn.compares:
            entry = now.get(compare.key)
            if not holds(compare, entry.create_revision if entry else ABSENT, entry.mod_revision if entry else ABSENT):
                return False
        then, made, revision = dict(now), [], Revision(self.revision + 1)
        for write in txn.writes:
            if isinstance(write, Put):
                old = now.get(write.key)
                then[write.key] = Entry(write.key, write.value, old.create_revision if old else revision, revision)
                made.append(Change(write.key, then[write.key], revision))
            elif then.pop(write.key, None):
                made.append(Change(write.key, None, revision))
        if made:
            self.states.append(then)
            self.changes.append(tuple(made))
        return True


keys = st.sampled_from(KEYS)
revisions = st.integers(0, 12).map(Revision)
compares: st.SearchStrategy[Compare] = st.one_of(
    st.builds(CreatedAt, keys, revisions), st.builds(ModifiedAt, keys, revisions), st.builds(Exists, keys)
)
writes = st.lists(
    st.one_of(st.builds(Put, keys, st.binary(max_size=3)), st.builds(Delete, keys)),
    min_size=1,
    max_size=3,
    unique_by=lambda write: write.key,
)
blind = st.builds(Txn, st.just(()), writes)
guarded = st.builds(Txn, st.lists(compares, min_size=1, max_size=2), writes)
steps: st.SearchStrategy[Step] = st.one_of(
    blind, blind, guarded, guarded, st.builds(Compact, st.integers(0, 8)), st.builds(Reopen)
)


@settings(max_examples=100, deadline=None)
@given(st.lists(steps, min_size=8, max_size=25))
def test_the_embedded_store_does_as_the_model(sequence: Sequence[Step]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run_both(Path(folder) / "store.db", sequence))


async def run_both(path: Path, sequence: Sequence[Step]) -> None:
    model = Model()
    store = await SqliteStore.open(path, clock=SystemClock())
    try:
        for step in sequence:
            match step:
                case Txn():
                    assert await commits(store, step) == model.commit(step)
                case Compact(back):
                    revision = Revision(max(1, model.revision - back))
                    await store.compact(revision)
                    model.compacted = max(model.compacted, revision)
                case Reopen():
                    await store.close()
                    store = await SqliteStore.open(path, clock=SystemClock())
        await assert_same(store, model, path)
    finally:
        await store.close()


async def commits(store: SqliteStore, txn: Txn) -> bool:
    try:
        await store.commit(txn)
    except ConflictError:
        return False
    return True


async def assert_same(store: SqliteStore, model: Model, path: Path) -> None:
    for prefix in ("/", "/a", "/a/"):
        for number in range(1, model.revision + 1):
            revision = Revision(number)
            if revision < model.compacted:
                assert await is_gone(store, prefix, revision)
                continue
            state = model.states[revision]
            expected = [state[key] for key in sorted(state, key=str.encode) if key.startswith(prefix)]
            assert await paged(store, prefix, revision) == expected
            later = [change for made in model.changes[revision + 1 :] for change in made]
            assert replay(path, prefix, revision) == [change for change in later if change.key.startswith(prefix)]
    for key in KEYS:
        assert await store.get(key) == model.states[-1].get(key)


async def paged(store: SqliteStore, prefix: str, at: Revision) -> list[Entry]:
    page = await store.list_prefix(prefix, at=at, limit=2)
    entries = [*page.entries]
    while page.next_key is not None:
        page = await store.list_prefix(prefix, at=at, start=page.next_key, limit=2)
        entries += page.entries
    return entries


async def is_gone(store: SqliteStore, prefix: str, revision: Revision) -> bool:
    try:
        await store.list_prefix(prefix, at=revision)
    except CompactedError:
        try:
            await anext(store.watch(prefix, after=revision))
        except CompactedError:
            return True
    return False


def replay(path: Path, prefix: str, after: Revision) -> list[Change]:
    """Return the changes after a revision, as a watch reads them from the log."""
    with closing(open_reader(path)) as connection:
        read = read_changes(connection, prefix, after)
    assert not read.more
    return [*read.changes.changes]
