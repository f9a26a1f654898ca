"""Writes to etcd whose outcome is unknown: the reply gets lost, or the request comes late. Each is applied once."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest

from control_plane.store.etcd import EtcdStore
from control_plane.store.protocol import ABSENT, CreatedAt, Delete, ModifiedAt, Put, Revision, Txn
from foundation.clock import SystemClock
from manifests.errors import ConflictError
from tests.etcd import etcd_cluster
from tests.tcp_proxy import TcpProxy, tcp_proxy

pytestmark = pytest.mark.etcd

SOON_S = 20.0
ASKS_FIRST = next(seed for seed in range(100) if random.Random(seed).randrange(2) == 0)


@asynccontextmanager
async def proxied() -> AsyncIterator[tuple[EtcdStore, TcpProxy, EtcdStore]]:
    """Yield a store that asks etcd through a proxy first and straight next, the proxy, and a straight store."""
    async with etcd_cluster() as cluster, tcp_proxy(urlsplit(cluster.endpoints[0]).port or 0) as proxy:
        clock = SystemClock()
        straight = await EtcdStore.open(cluster.endpoints, clock=clock, rng=random.Random(0))
        store = await EtcdStore.open((proxy.endpoint, *cluster.endpoints), clock=clock, rng=random.Random(ASKS_FIRST))
        try:
            yield store, proxy, straight
        finally:
            await store.close()
            await straight.close()


async def revisions_of(store: EtcdStore, key: str) -> list[Revision]:
    """Return when the key was changed, over the whole history."""
    last = await store.commit(Txn((), (Put(f"{key}/end", b""),)))
    revisions: list[Revision] = []
    async with asyncio.timeout(SOON_S):
        async for item in store.watch(key, after=Revision(1)):
            revisions += [change.revision for change in item.changes if change.key == key]
            if item.revision >= last:
                break
    return revisions


async def wait_applied(store: EtcdStore, key: str, value: bytes) -> None:
    async with asyncio.timeout(SOON_S):
        while (entry := await store.get(key)) is None or entry.value != value:  # noqa: ASYNC110  the store is polled
            await asyncio.sleep(0.01)


async def commit_without_reply(store: EtcdStore, proxy: TcpProxy, straight: EtcdStore, txn: Txn) -> Revision:
    """Commit while the reply to the first try is held back, and then lost, after the write was applied."""
    put = next(write for write in txn.writes if isinstance(write, Put))
    proxy.replies.clear()
    async with asyncio.TaskGroup() as tasks:
        committing = tasks.create_task(store.commit(txn), name="commit")
        await wait_applied(straight, put.key, put.value)
        proxy.cut()
        proxy.replies.set()
    return committing.result()


async def test_a_lost_reply_is_a_success_with_its_own_revision() -> None:
    async with proxied() as (store, proxy, straight):
        await store.commit(Txn((), (Put("/other", b""),)))
        created = await commit_without_reply(
            store, proxy, straight, Txn((CreatedAt("/a", ABSENT),), (Put("/a", b"1"), Put("/b", b"1")))
        )
        entry = await straight.get("/a")
        assert entry is not None
        assert entry.mod_revision == created
        assert await revisions_of(straight, "/a") == [created]


async def test_a_blind_write_whose_reply_was_lost_does_not_undo_a_later_write() -> None:
    async with proxied() as (store, proxy, straight):
        proxy.replies.clear()
        async with asyncio.TaskGroup() as tasks:
            committing = tasks.create_task(store.commit(Txn((), (Put("/a", b"ours"),))), name="commit")
            await wait_applied(straight, "/a", b"ours")
            theirs = await straight.commit(Txn((), (Put("/a", b"theirs"),)))
            proxy.cut()
            proxy.replies.set()
        assert committing.result() < theirs
        assert await revisions_of(straight, "/a") == [committing.result(), theirs]


async def test_increments_with_lost_replies_and_a_rival_lose_and_double_nothing() -> None:
    async with proxied() as (store, proxy, straight):
        await straight.commit(Txn((), (Put("/n", b"0"),)))

        async def increment(through: EtcdStore) -> None:
            while True:
                entry = await through.get("/n")
                assert entry is not None
                value = str(int(entry.value) + 1).encode()
                try:
                    await through.commit(Txn((ModifiedAt("/n", entry.mod_revision),), (Put("/n", value),)))
                except ConflictError:
                    continue
                return

        async def increment_often(through: EtcdStore) -> None:
            for _ in range(60):
                await increment(through)

        async def disturb() -> None:
            for _ in range(12):
                proxy.replies.clear()
                await asyncio.sleep(0.05)
                proxy.cut()
                proxy.replies.set()
                await asyncio.sleep(0.15)

        async with asyncio.TaskGroup() as tasks:
            for number, through in enumerate((store, store, straight, straight)):
                tasks.create_task(increment_often(through), name=f"increment-{number}")
            tasks.create_task(disturb(), name="disturb")
        entry = await straight.get("/n")
        assert entry is not None
        assert entry.value == b"240"
        assert len(await revisions_of(straight, "/n")) == 241


async def let_late_request_in(proxy: TcpProxy) -> None:
    """Let the held request reach etcd, without the word that its client gave it up, and wait for the answer."""
    replied = proxy.replied
    proxy.requests.set()
    proxy.requests.clear()
    async with asyncio.timeout(SOON_S):
        while proxy.replied == replied:  # noqa: ASYNC110  the proxy is polled
            await asyncio.sleep(0.01)


async def test_a_request_that_comes_late_is_not_applied_again() -> None:
    async with proxied() as (store, proxy, straight):
        await store.commit(Txn((), (Put("/other", b""),)))
        proxy.requests.clear()
        committed = await store.commit(
            Txn((), (Put("/a", b"1"),))
        )  # by the straight way, once the proxied try timed out
        await let_late_request_in(proxy)
        assert await revisions_of(straight, "/a") == [committed]
        again = await store.commit(Txn((), (Put("/a", b"2"),)))
        assert await revisions_of(straight, "/a") == [committed, again]


async def test_a_request_that_comes_after_its_conflict_was_reported_is_not_applied() -> None:
    async with proxied() as (store, proxy, straight):
        await store.commit(Txn((), (Put("/a", b"theirs"), Put("/other", b""))))
        proxy.requests.clear()
        with pytest.raises(ConflictError, match="/a"):
            await store.commit(Txn((CreatedAt("/a", ABSENT),), (Put("/a", b"ours"),)))
        await straight.commit(Txn((), (Delete("/a"),)))
        await let_late_request_in(proxy)
        await straight.commit(Txn((), (Put("/other", b"2"),)))
        assert len(await revisions_of(straight, "/a")) == 2
        assert await straight.get("/a") is None


async def test_marks_of_commits_go_when_their_client_closes_or_history_does() -> None:
    async with proxied() as (store, _, straight):
        async with asyncio.TaskGroup() as tasks:
            for number in range(20):
                tasks.create_task(store.commit(Txn((), (Put(f"/{number}", b""),))), name="commit")
        assert len((await straight.list_prefix("wherry-commits/")).entries) > 1
        revision = await straight.commit(Txn((), (Put("/last", b""),)))
        await straight.compact(revision)
        assert len((await straight.list_prefix("wherry-commits/")).entries) == 1  # that of the one who compacted
        await store.commit(Txn((), (Put("/0", b"goes on"),)))
        await store.close()
        await straight.close()
