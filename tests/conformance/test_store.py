"""What every Store does, asked of each implementation: a real etcd, a real SQLite file, and the simulator's etcd."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from control_plane.store.open import open_store
from control_plane.store.protocol import (
    ABSENT,
    MOST_BYTES,
    MOST_OPERATIONS,
    Change,
    Changes,
    CreatedAt,
    Delete,
    Entry,
    Exists,
    ModifiedAt,
    Page,
    Put,
    Revision,
    Store,
    Txn,
)
from foundation.clock import SystemClock
from manifests.errors import CompactedError, ConflictError, InvalidError, UnavailableError
from tests.simulation.etcd import Etcd, Link
from tests.simulation.etcd import Store as SimulatedStore
from tests.stores import KINDS, store_url

SHORT_TTL_S = 2.0  # etcd grants no less
SOON_S = 15.0

Opener = Callable[[], Awaitable[Store]]


@pytest.fixture(params=["simulated", *KINDS])
async def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opener]:
    """Open one and the same store, again and again."""
    async with AsyncExitStack() as stack:
        if request.param == "simulated":
            yield _simulated(stack)
            return
        url = await stack.enter_async_context(store_url(request.param, tmp_path))

        async def opener() -> Store:
            store = await open_store(url, clock=SystemClock(), rng=random.Random(7))
            stack.push_async_callback(store.close)
            return store

        yield opener


def _simulated(stack: AsyncExitStack) -> Opener:
    """Return the opener of the simulator's etcd, here on a real loop."""
    etcd = Etcd()

    async def opener() -> Store:
        store = SimulatedStore(etcd, Link(etcd, random.Random(7)), random.Random(7))
        stack.push_async_callback(store.close)
        return store

    return opener


@pytest.fixture
async def store(reopen: Opener) -> Store:
    return await reopen()


def put(key: str, value: str = "v") -> Txn:
    return Txn((), (Put(key, value.encode()),))


async def list_all(store: Store, prefix: str, *, at: Revision | None = None, limit: int = 500) -> list[Entry]:
    page = await store.list_prefix(prefix, at=at, limit=limit)
    entries = [*page.entries]
    while page.next_key is not None:
        page = await store.list_prefix(prefix, at=page.revision, start=page.next_key, limit=limit)
        entries += page.entries
    return entries


async def take(watch: AsyncIterator[Changes], revision: Revision) -> list[Changes]:
    """Return what the watch yields up to the revision."""
    taken: list[Changes] = []
    async with asyncio.timeout(SOON_S):
        while not taken or taken[-1].revision < revision:
            taken.append(await anext(watch))
    return taken


def keys(page: Page) -> list[str]:
    return [entry.key for entry in page.entries]


def changes_of(taken: list[Changes]) -> list[Change]:
    return [change for changes in taken for change in changes.changes]


async def test_a_key_has_the_revisions_of_its_creation_and_of_its_last_change(store: Store) -> None:
    created = await store.commit(put("/a", "one"))
    modified = await store.commit(put("/a", "two"))
    assert modified > created > ABSENT
    assert await store.get("/a") == Entry("/a", b"two", created, modified)


async def test_a_key_that_is_deleted_and_made_again_is_another_one(store: Store) -> None:
    await store.commit(put("/a"))
    await store.commit(Txn((), (Delete("/a"),)))
    assert await store.get("/a") is None
    again = await store.commit(put("/a", "new"))
    assert await store.get("/a") == Entry("/a", b"new", again, again)


async def test_all_writes_of_a_transaction_have_one_revision(store: Store) -> None:
    await store.commit(put("/c"))
    revision = await store.commit(Txn((), (Put("/a", b"1"), Put("/b", b"2"), Delete("/c"))))
    page = await store.list_prefix("/")
    assert [(entry.key, entry.mod_revision) for entry in page.entries] == [("/a", revision), ("/b", revision)]


async def test_deleting_what_is_not_there_changes_nothing_under_the_prefix(store: Store) -> None:
    before = await store.commit(put("/a"))
    revision = await store.commit(Txn((), (Delete("/none"),)))
    assert revision >= before
    later = await store.commit(put("/b"))
    watch = store.watch("/", after=before)
    assert [change.key for change in changes_of(await take(watch, later))] == ["/b"]


async def test_pages_come_in_key_order_and_from_one_revision(store: Store) -> None:
    names = [f"/p/{index:02}" for index in range(7)]
    await store.commit(Txn((), tuple(Put(name, b"old") for name in reversed(names))))
    first = await store.list_prefix("/p/", limit=3)
    await store.commit(Txn((), (Put(names[4], b"new"), Delete(names[5]), Put("/p/99", b"late"))))
    entries = [*first.entries]
    start = first.next_key
    while start is not None:
        page = await store.list_prefix("/p/", at=first.revision, start=start, limit=3)
        assert page.revision == first.revision
        entries += page.entries
        start = page.next_key
    assert [(entry.key, entry.value) for entry in entries] == [(name, b"old") for name in names]
    assert keys(await store.list_prefix("/p/")) == [*names[:5], names[6], "/p/99"]


async def test_a_list_takes_only_what_is_under_the_prefix(store: Store) -> None:
    await store.commit(Txn((), tuple(Put(key, b"") for key in ("/a", "/a/1", "/a/ü", "/a0", "/b"))))
    assert keys(await store.list_prefix("/a/")) == ["/a/1", "/a/ü"]
    assert keys(await store.list_prefix("/a/", start="/b")) == []
    assert keys(await store.list_prefix("/none/")) == []


async def test_a_list_at_an_old_revision_shows_deleted_keys_and_old_values(store: Store) -> None:
    first = await store.commit(Txn((), (Put("/a", b"1"), Put("/b", b"1"))))
    second = await store.commit(Txn((), (Put("/a", b"2"), Delete("/b"))))
    await store.commit(put("/c"))
    assert [(e.key, e.value) for e in await list_all(store, "/", at=first)] == [("/a", b"1"), ("/b", b"1")]
    assert [(e.key, e.value) for e in await list_all(store, "/", at=second)] == [("/a", b"2")]


async def test_compares_that_hold_let_a_transaction_pass(store: Store) -> None:
    created = await store.commit(Txn((CreatedAt("/a", ABSENT), ModifiedAt("/a", ABSENT)), (Put("/a", b"1"),)))
    modified = await store.commit(Txn((CreatedAt("/a", created), ModifiedAt("/a", created)), (Put("/a", b"2"),)))
    await store.commit(Txn((CreatedAt("/a", created), ModifiedAt("/a", modified), Exists("/a")), (Delete("/a"),)))
    assert await store.get("/a") is None


@pytest.mark.parametrize(
    "compare",
    [
        CreatedAt("/a", ABSENT),
        ModifiedAt("/a", ABSENT),
        CreatedAt("/a", Revision(999_999)),
        ModifiedAt("/a", Revision(999_999)),
        CreatedAt("/none", Revision(1)),
        ModifiedAt("/none", Revision(1)),
        Exists("/none"),
    ],
    ids=str,
)
async def test_a_compare_that_fails_leaves_everything_as_it_was(
    store: Store, compare: CreatedAt | ModifiedAt | Exists
) -> None:
    before = await store.commit(put("/a"))
    with pytest.raises(ConflictError, match=compare.key):
        await store.commit(Txn((Exists("/a"), compare), (Put("/a", b"2"), Put("/b", b"2"))))
    assert [(entry.key, entry.mod_revision) for entry in await list_all(store, "/")] == [("/a", before)]


async def test_a_transaction_without_writes_only_compares(store: Store) -> None:
    revision = await store.commit(put("/a"))
    assert await store.commit(Txn((ModifiedAt("/a", revision),), ())) == revision
    with pytest.raises(ConflictError):
        await store.commit(Txn((CreatedAt("/a", ABSENT),), ()))


async def test_as_many_operations_as_allowed_are_one_revision(store: Store) -> None:
    names = [f"/m/{index:03}" for index in range(MOST_OPERATIONS)]
    revision = await store.commit(
        Txn(tuple(CreatedAt(name, ABSENT) for name in names), tuple(Put(name, b"x" * 1_000) for name in names))
    )
    changes = await take(store.watch("/m/", after=Revision(revision - 1)), revision)
    assert [change.key for change in changes_of(changes)] == names
    assert len(changes) == 1
    with pytest.raises(ValueError, match="at most"):
        await store.commit(Txn((), tuple(Put(f"/{index}", b"") for index in range(MOST_OPERATIONS + 1))))


async def test_large_values_come_back_whole_and_too_large_ones_are_refused(store: Store) -> None:
    value = random.Random(1).randbytes(MOST_BYTES - 100)
    names = [f"/large/{index:02}" for index in range(14)]
    for name in names:
        await store.commit(Txn((), (Put(name, value),)))
    assert [entry.value == value for entry in await list_all(store, "/large/")] == [True] * len(names)
    watch = store.watch("/large/", after=Revision(1))
    last = (await store.list_prefix("/large/")).revision
    changes = changes_of(await take(watch, last))
    assert [change.entry is not None and change.entry.value == value for change in changes] == [True] * len(names)
    with pytest.raises(InvalidError, match="/large/more"):
        await store.commit(Txn((), (Put("/large/more", bytes(MOST_BYTES)),)))


async def test_a_watch_replays_history_and_then_follows(store: Store) -> None:
    begin = await store.commit(put("/w/0"))
    await store.commit(Txn((), (Put("/w/1", b"a"), Put("/w/2", b"a"), Put("/other", b"a"))))
    second = await store.commit(Txn((), (Put("/w/1", b"b"), Delete("/w/2"))))
    watch = store.watch("/w/", after=begin)
    replayed = changes_of(await take(watch, second))
    assert [(c.key, c.entry and c.entry.value) for c in replayed] == [
        ("/w/1", b"a"),
        ("/w/2", b"a"),
        ("/w/1", b"b"),
        ("/w/2", None),
    ]
    third = await store.commit(Txn((), (Put("/w/3", b"live"), Put("/w/4", b"live"))))
    (live,) = await take(watch, third)
    assert live == Changes(tuple(Change(k, Entry(k, b"live", third, third), third) for k in ("/w/3", "/w/4")), third)
    fourth = await store.commit(Txn((), (Delete("/w/3"),)))
    assert await take(watch, fourth) == [Changes((Change("/w/3", None, fourth),), fourth)]


async def test_a_watch_gives_whole_revisions_in_order_while_many_write(store: Store) -> None:
    begin = await store.commit(put("/start"))
    watch = store.watch("/w/", after=begin)

    async def write(worker: int) -> None:
        for number in range(40):
            await store.commit(Txn((), tuple(Put(f"/w/{worker}/{k}", str(number).encode()) for k in range(3))))

    async with asyncio.TaskGroup() as writers:
        for worker in range(8):
            writers.create_task(write(worker), name=f"write-{worker}")
    taken = await take(watch, (await store.list_prefix("/w/")).entries[-1].mod_revision)
    last = max(entry.mod_revision for entry in await list_all(store, "/w/"))
    taken += await take(watch, last) if taken[-1].revision < last else []
    revisions = [change.revision for change in changes_of(taken)]
    assert revisions == sorted(revisions)
    assert len(revisions) == 8 * 40 * 3
    assert all(revisions.count(revision) == 3 for revision in set(revisions))
    assert [item.revision for item in taken] == sorted({item.revision for item in taken})


async def test_a_slow_watch_misses_nothing(store: Store) -> None:
    begin = await store.commit(put("/start"))
    watch = store.watch("/w/", after=begin)
    first = await store.commit(put("/w/first"))
    seen = changes_of(await take(watch, first))
    last = first
    async with asyncio.TaskGroup() as writers:
        commits = [writers.create_task(store.commit(put(f"/w/{n}")), name=f"write-{n}") for n in range(2_500)]
    last = max(commit.result() for commit in commits)
    seen += changes_of(await take(watch, last))
    assert {change.key for change in seen} == {"/w/first", *(f"/w/{n}" for n in range(2_500))}
    assert len(seen) == 2_501


async def test_two_watches_of_different_prefixes_see_their_own(store: Store) -> None:
    begin = await store.commit(put("/start"))
    one, two = store.watch("/one/", after=begin), store.watch("/two/", after=begin)
    first, second = await store.commit(put("/one/x")), await store.commit(put("/two/x"))
    assert [change.key for change in changes_of(await take(one, first))] == ["/one/x"]
    assert [change.key for change in changes_of(await take(two, second))] == ["/two/x"]


async def test_a_watch_ends_when_the_store_closes(store: Store) -> None:
    watch = store.watch("/", after=await store.commit(put("/a")))

    async def follow() -> None:
        async for _ in watch:
            pass

    async with asyncio.timeout(SOON_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(follow(), name="follow")
        await take(store.watch("/", after=Revision(1)), Revision(2))
        await store.close()


async def test_compacted_history_is_refused_and_a_new_list_goes_on(store: Store) -> None:
    old = await store.commit(Txn((), (Put("/a", b"1"), Put("/b", b"1"))))
    gone = await store.commit(Txn((), (Put("/a", b"2"), Delete("/b"))))
    await store.commit(put("/c", "3"))
    await store.compact(gone)
    with pytest.raises(CompactedError):
        await store.list_prefix("/", at=old)
    with pytest.raises(CompactedError):
        await take(store.watch("/", after=old), gone)
    assert [(e.key, e.value) for e in await list_all(store, "/", at=gone)] == [("/a", b"2")]
    assert [change.key for change in changes_of(await take(store.watch("/", after=gone), Revision(gone + 1)))] == ["/c"]
    page = await store.list_prefix("/")
    watch = store.watch("/", after=page.revision)
    assert [(e.key, e.value) for e in page.entries] == [("/a", b"2"), ("/c", b"3")]
    last = await store.commit(put("/d"))
    assert [change.key for change in changes_of(await take(watch, last))] == ["/d"]


async def test_compacting_again_or_further_back_does_nothing(store: Store) -> None:
    await store.commit(put("/a", "1"))
    revision = await store.commit(put("/a", "2"))
    await store.compact(revision)
    await store.compact(revision)
    await store.compact(Revision(revision - 1))
    assert [entry.value for entry in await list_all(store, "/", at=revision)] == [b"2"]


async def test_a_compaction_keeps_the_revision_when_the_last_change_was_a_deletion(reopen: Opener) -> None:
    store = await reopen()
    await store.commit(put("/a"))
    last = await store.commit(Txn((), (Delete("/a"),)))
    await store.compact(last)
    await store.close()
    assert (await (await reopen()).list_prefix("/")).revision >= last


async def test_a_revision_that_the_store_never_had_is_refused(store: Store) -> None:
    """As after a restore of an older snapshot: what the caller knows is of no use, so it must list again."""
    far = Revision(1_000_000)
    with pytest.raises(CompactedError):
        await store.list_prefix("/", at=far)
    with pytest.raises(CompactedError):
        await take(store.watch("/", after=far), far)


async def test_concurrent_increments_lose_nothing(store: Store) -> None:
    await store.commit(put("/n", "0"))

    async def increment() -> None:
        while True:
            entry = await store.get("/n")
            assert entry is not None
            value = str(int(entry.value) + 1).encode()
            try:
                await store.commit(Txn((ModifiedAt("/n", entry.mod_revision),), (Put("/n", value),)))
            except ConflictError:
                continue
            return

    async with asyncio.TaskGroup() as workers:
        for number in range(40):
            workers.create_task(increment(), name=f"increment-{number}")
    entry = await store.get("/n")
    assert entry is not None
    assert entry.value == b"40"


async def test_a_lease_keeps_its_keys_while_its_holder_lives(store: Store) -> None:
    lease = await store.lease(ttl_s=SHORT_TTL_S)
    begin = await store.commit(Txn((), (Put("/l", b"", lease.id),)))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3 * SHORT_TTL_S):
            await lease.wait_lost()
    assert await store.get("/l") is not None
    await lease.revoke()
    await lease.revoke()
    await lease.wait_lost()
    (taken,) = await take(store.watch("/l", after=begin), Revision(begin + 1))
    assert taken.changes == (Change("/l", None, taken.revision),)
    assert await store.get("/l") is None


async def test_a_lease_whose_holder_is_gone_expires_and_a_watch_sees_it(reopen: Opener) -> None:
    first = await reopen()
    lease = await first.lease(ttl_s=SHORT_TTL_S)
    revision = await first.commit(
        Txn((), (Put("/l/1", b"", lease.id), Put("/l/2", b"", lease.id), Put("/l/3", b"", lease.id)))
    )
    revision = await first.commit(put("/l/3", "kept: put again without the lease"))
    await first.close()
    second = await reopen()
    assert keys(await second.list_prefix("/l/")) == ["/l/1", "/l/2", "/l/3"]
    async with asyncio.timeout(SOON_S):
        expired = await anext(second.watch("/l/", after=revision))
    assert sorted((c.key, c.entry) for c in expired.changes) == [("/l/1", None), ("/l/2", None)]
    assert keys(await second.list_prefix("/l/")) == ["/l/3"]


async def test_a_write_under_a_lost_lease_conflicts(store: Store) -> None:
    lease = await store.lease(ttl_s=SHORT_TTL_S)
    await lease.revoke()
    with pytest.raises(ConflictError, match="lease"):
        await store.commit(Txn((), (Put("/l", b"", lease.id),)))
    assert await store.get("/l") is None


async def test_a_closed_store_is_unavailable(store: Store) -> None:
    await store.close()
    with pytest.raises(UnavailableError, match="closed"):
        await store.get("/a")
    with pytest.raises(UnavailableError, match="closed"):
        await store.commit(put("/a"))
    with pytest.raises(UnavailableError, match="closed"):
        await store.lease(ttl_s=SHORT_TTL_S)
    await store.close()


async def test_what_was_written_is_there_after_reopening(reopen: Opener) -> None:
    first = await reopen()
    name = f"/{uuid.uuid4()}"
    revision = await first.commit(put(name))
    await first.close()
    second = await reopen()
    assert await second.get(name) == Entry(name, b"v", revision, revision)
    assert await second.commit(put(name)) > revision
