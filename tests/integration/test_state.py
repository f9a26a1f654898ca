"""The watch cache over a real store: always what the store has, also after history is gone, and despite garbage."""

from collections.abc import AsyncIterator

import pytest

from control_plane import keys
from control_plane.state import Batch, ClusterState
from control_plane.store.protocol import Delete, Put, Store, Txn
from foundation.clock import SystemClock
from manifests.errors import UnavailableError
from manifests.nodes import NodeIntent
from tests.builders import record, version_record
from tests.cache import following


def put(name: str, **fields: object) -> Put:
    return Put(keys.NODE_INTENTS + name, NodeIntent(name=name, **fields).to_bytes())


@pytest.fixture
async def state(store: Store) -> AsyncIterator[ClusterState]:
    await store.commit(Txn((), (put("n0"),)))
    cache = ClusterState(store, SystemClock())
    await cache.load()
    async with following(cache):
        yield cache


async def test_it_begins_with_all_there_is_and_keeps_up(store: Store, state: ClusterState) -> None:
    assert set(state.intents.ids()) == {"n0"}
    revision = await store.commit(Txn((), (put("n1"), Delete(keys.NODE_INTENTS + "n0"))))
    await state.wait_for(revision)
    assert set(state.intents.ids()) == {"n1"}
    assert state.intents.modified_at("n1") == revision
    assert state.intents.modified_at("n0") == 0


async def test_subscribers_hear_each_change_with_what_was_before(store: Store, state: ClusterState) -> None:
    batches: list[Batch] = []
    unsubscribe = state.subscribe(batches.append)
    await state.wait_for(await store.commit(Txn((), (put("n0", is_cordoned=True),))))
    unsubscribe()
    await state.wait_for(await store.commit(Txn((), (put("n2"),))))
    (change,) = [c for b in batches for c in b.changes]
    assert isinstance(change.old, NodeIntent)
    assert isinstance(change.new, NodeIntent)
    assert (change.old.is_cordoned, change.new.is_cordoned) == (False, True)


async def test_a_cache_that_slept_through_a_compaction_lists_again_and_tells_what_differs(store: Store) -> None:
    await store.commit(Txn((), (put("stays"), put("goes"), put("changes"))))
    cache = ClusterState(store, SystemClock())
    await cache.load()
    batches: list[Batch] = []
    cache.subscribe(batches.append)
    await store.commit(Txn((), (Delete(keys.NODE_INTENTS + "goes"), put("comes"), put("changes", is_cordoned=True))))
    revision = await store.commit(Txn((), (put("last"),)))
    await store.compact(revision)
    async with following(cache):
        await cache.wait_for(revision)
    assert {c.id for b in batches for c in b.changes} == {"goes", "comes", "changes", "last"}
    assert set(cache.intents.ids()) == {"stays", "changes", "comes", "last"}


async def test_garbage_is_left_out_and_named_until_it_is_mended(store: Store, state: ClusterState) -> None:
    key = keys.NODE_INTENTS + "bad"
    await state.wait_for(await store.commit(Txn((), (Put(key, b"{nonsense"), put("good")))))
    assert key in state.quarantined
    assert "good" in state.intents
    assert "bad" not in state.intents
    await state.wait_for(await store.commit(Txn((), (put("bad"),))))
    assert "bad" in state.intents
    assert not state.quarantined


async def test_garbage_that_went_while_nobody_looked_is_forgotten(store: Store) -> None:
    key = keys.NODE_INTENTS + "bad"
    await store.commit(Txn((), (Put(key, b"{nonsense"),)))
    state = ClusterState(store, SystemClock())
    await state.load()
    assert key in state.quarantined
    await store.commit(Txn((), (Delete(key),)))
    await state.load()  # as after a compaction, which swallowed the word of it
    assert not state.quarantined


@pytest.mark.parametrize("key", [keys.WORKLOADS + "stray", keys.VERSIONS + "default/service/web/latest"])
async def test_a_record_at_a_key_that_none_can_have_is_left_out_until_it_is_gone(
    store: Store, state: ClusterState, key: str
) -> None:
    web = record()
    stray = web if key.startswith(keys.WORKLOADS) else version_record(web, 1)
    await state.wait_for(await store.commit(Txn((), (Put(key, stray.to_bytes()), put("good")))))
    assert key in state.quarantined
    assert "good" in state.intents
    assert (len(state.workloads), len(state.versions)) == (0, 0)
    await state.wait_for(await store.commit(Txn((), (Delete(key),))))
    assert not state.quarantined


async def test_waiting_for_a_revision_that_does_not_come_says_how_far_it_is(state: ClusterState) -> None:
    with pytest.raises(UnavailableError, match=str(state.revision)):
        await state.wait_for(state.revision + 1, timeout_s=0.05)
