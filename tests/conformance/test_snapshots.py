"""Saving and restoring a store's whole state: the same for every kind of store."""

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from control_plane import keys
from control_plane.bootstrap import ensure_cluster
from control_plane.snapshots import Snapshot, begin_generation, read, restore, save
from control_plane.store.protocol import MOST_OPERATIONS, Put, Revision, Store, Txn
from foundation.clock import SystemClock
from manifests.errors import ConflictError, InvalidError, UnavailableError
from tests.stores import KINDS, opened_store

Opener = Callable[[], Awaitable[Store]]
CLOCK = SystemClock()
COUNT = 3 * MOST_OPERATIONS  # more than one page, and than one transaction


@pytest.fixture(params=KINDS)
async def new_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opener]:
    """Open another empty store at each call."""
    async with AsyncExitStack() as stack:

        async def opener() -> Store:
            folder = tmp_path / f"{random.getrandbits(32)}"
            return await stack.enter_async_context(opened_store(request.param, folder))

        yield opener


async def filled(store: Store) -> dict[str, bytes]:
    """Make it a cluster's store with records in it, and return them."""
    await ensure_cluster(store, CLOCK, random.Random(1))
    records = {
        f"{keys.WORKLOADS}default/service/w{n:04}": f'{{"n": {n}, "text": "ü\\n"}}'.encode() for n in range(COUNT)
    }
    pairs = list(records.items())
    for start in range(0, len(pairs), MOST_OPERATIONS):
        await store.commit(Txn((), tuple(Put(k, v) for k, v in pairs[start : start + MOST_OPERATIONS])))
    return records


async def lines_of(store: Store) -> list[bytes]:
    return [line async for line in save(store, CLOCK)]


async def saved(store: Store) -> Snapshot:
    return read(await lines_of(store), "a file")


async def all_of(store: Store) -> dict[str, bytes]:
    page = await store.list_prefix(keys.ROOT)
    found = {entry.key: entry.value for entry in page.entries}
    while page.next_key is not None:
        page = await store.list_prefix(keys.ROOT, at=page.revision, start=page.next_key)
        found |= {entry.key: entry.value for entry in page.entries}
    return found


async def test_what_was_saved_is_restored_in_a_new_generation(new_store: Opener) -> None:
    old, new = await new_store(), await new_store()
    records = await filled(old)
    restored = await restore(new, await saved(old), CLOCK, replace=False)
    found = await all_of(new)
    assert found.pop(keys.CLUSTER) == restored.to_bytes()
    assert found == records
    before = await ensure_cluster(old, CLOCK, random.Random(2))
    assert (restored.id, restored.generation > before.generation) == (before.id, True)


async def test_a_store_that_holds_something_is_replaced_only_if_told_to(new_store: Opener) -> None:
    store = await new_store()
    records = await filled(store)
    snapshot = await saved(store)
    later = f"{keys.WORKLOADS}default/service/later"
    await store.commit(Txn((), (Put(later, b"{}"),)))
    with pytest.raises(ConflictError, match="not empty"):
        await restore(store, snapshot, CLOCK, replace=False)
    assert later in await all_of(store)
    await restore(store, snapshot, CLOCK, replace=True)
    assert (await all_of(store)).keys() == {*records, keys.CLUSTER}


async def test_generations_rise_with_each_restore(new_store: Opener) -> None:
    store = await new_store()
    await filled(store)
    snapshot = await saved(store)
    first = await restore(store, snapshot, CLOCK, replace=True)
    second = await restore(store, snapshot, CLOCK, replace=True)
    assert second.generation > first.generation > snapshot.cluster.generation


async def test_nothing_is_restored_while_a_server_lives(new_store: Opener) -> None:
    store = await new_store()
    await filled(store)
    snapshot = await saved(store)
    await store.commit(Txn((), (Put(f"{keys.SERVERS}s1-1", b"{}"),)))
    before = await all_of(store)
    with pytest.raises(ConflictError, match="s1-1"):
        await restore(store, snapshot, CLOCK, replace=True)
    assert await all_of(store) == before


async def test_a_store_of_another_cluster_is_left_alone(new_store: Opener) -> None:
    one, other = await new_store(), await new_store()
    await filled(one)
    await ensure_cluster(other, CLOCK, random.Random(99))
    with pytest.raises(ConflictError, match="another cluster"):
        await restore(other, await saved(one), CLOCK, replace=True)


class Breaking:
    """A store that goes away in the middle: after so many commits."""

    def __init__(self, store: Store, commits: int) -> None:
        self._store, self._left = store, commits

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def commit(self, txn: Txn) -> Revision:
        self._left -= 1
        if self._left < 0:
            raise UnavailableError("the store is gone")
        return await self._store.commit(txn)


async def test_no_server_starts_on_a_half_restored_store_and_restoring_again_mends_it(new_store: Opener) -> None:
    old, new = await new_store(), await new_store()
    records = await filled(old)
    snapshot = await saved(old)
    with pytest.raises(UnavailableError):
        await restore(Breaking(new, commits=2), snapshot, CLOCK, replace=False)  # type: ignore[arg-type]  # by __getattr__
    with pytest.raises(ConflictError, match="can't be used yet"):
        await ensure_cluster(new, CLOCK, random.Random(1))
    await restore(new, snapshot, CLOCK, replace=False)
    await ensure_cluster(new, CLOCK, random.Random(1))
    assert (await all_of(new)).keys() == {*records, keys.CLUSTER}


async def test_a_store_that_went_back_gets_a_new_generation_and_one_that_didn_t_keeps_its_own(
    new_store: Opener,
) -> None:
    store = await new_store()
    cluster = await ensure_cluster(store, CLOCK, random.Random(1))
    revision = (await store.list_prefix(keys.ROOT)).revision
    assert await begin_generation(store, revision, of=cluster.generation) is None
    seen = Revision(revision + 1)
    renewed = await begin_generation(store, seen, of=cluster.generation)
    assert renewed is not None
    assert renewed.generation == cluster.generation + 1


async def test_a_store_that_went_back_gets_one_new_generation_whoever_notices(new_store: Opener) -> None:
    store = await new_store()
    cluster = await ensure_cluster(store, CLOCK, random.Random(1))
    assert await begin_generation(store, Revision(10**9), of=cluster.generation) is not None
    assert await begin_generation(store, Revision(10**9), of=cluster.generation) is None


async def test_the_new_generation_is_newer_than_any_that_was_seen_before_the_store_went_back(new_store: Opener) -> None:
    store = await new_store()
    cluster = await ensure_cluster(store, CLOCK, random.Random(1))
    renewed = await begin_generation(store, Revision(1), of=cluster.generation + 4)
    assert renewed is not None
    assert renewed.generation == cluster.generation + 5


@pytest.mark.parametrize(
    "spoil",
    [
        lambda lines: lines[:-1],
        lambda lines: lines[:3] + lines[4:],
        lambda lines: [*lines[:2], lines[2].replace(b"service", b"daemons"), *lines[3:]],
        lambda lines: lines[1:],
        lambda lines: [],
        lambda lines: [b"[]\n"],
        lambda lines: [b"\xff\xfe\n", *lines[1:]],
        lambda lines: [b"[" * 100_000, *lines[1:]],
        lambda lines: [lines[0].replace(b'"wherrySnapshot":1', b'"wherrySnapshot":2'), *lines[1:]],
    ],
)
async def test_what_is_not_whole_is_refused(spoil: Callable[[list[bytes]], list[bytes]], store: Store) -> None:
    await filled(store)
    lines = await lines_of(store)
    with pytest.raises(InvalidError, match=r"x\.snapshot"):
        read(spoil(lines), "x.snapshot")
