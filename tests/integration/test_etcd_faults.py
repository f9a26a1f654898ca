"""What the etcd store does when members die, freeze and come back: nothing lost, nothing doubled, nothing skipped."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest

from control_plane.store.etcd import EtcdStore
from control_plane.store.protocol import ABSENT, Change, CreatedAt, ModifiedAt, Put, Revision, Store, Txn
from foundation.clock import SystemClock
from manifests.errors import ConflictError, StoreFullError, UnavailableError
from tests.etcd import EtcdCluster, etcd_cluster

pytestmark = pytest.mark.etcd

WRITERS = 8
LONGEST_GAP_S = 10.0  # a try of 1.5 s, the election of 1.2 s; both twice if votes split, and twice as long under load
SOON_S = 40.0


@asynccontextmanager
async def opened(endpoints: tuple[str, ...], first: int = 0) -> AsyncIterator[EtcdStore]:
    """Open a store which asks the member with that index first."""
    seed = next(s for s in range(100) if random.Random(s).randrange(len(endpoints)) == first)
    store = await EtcdStore.open(endpoints, clock=SystemClock(), rng=random.Random(seed))
    try:
        yield store
    finally:
        await store.close()


class Writers:
    """Several clients which each create numbered keys and increment one common counter, until told to stop."""

    def __init__(self) -> None:
        self.created: dict[str, Revision] = {}
        self.increments = 0
        self.done_s: list[list[float]] = [[] for _ in range(WRITERS)]
        self._stop = asyncio.Event()

    def stop(self) -> None:
        self._stop.set()

    async def write(self, store: Store, writer: int) -> None:
        number = 0
        while not self._stop.is_set():
            key = f"/w/{writer}/{number}"
            self.created[key] = await store.commit(Txn((CreatedAt(key, ABSENT),), (Put(key, b"same"),)))
            self.done_s[writer].append(time.monotonic())
            await self._increment(store)
            number += 1

    @property
    def least_done(self) -> int:
        """How many keys the slowest writer created."""
        return min(map(len, self.done_s))

    @property
    def longest_gap_s(self) -> float:
        """The longest time that any one writer went without a success."""
        return max(later - earlier for done in self.done_s for earlier, later in pairwise(done))

    async def _increment(self, store: Store) -> None:
        while True:
            entry = await store.get("/n")
            revision, value = (entry.mod_revision, int(entry.value)) if entry else (ABSENT, 0)
            try:
                await store.commit(Txn((ModifiedAt("/n", revision),), (Put("/n", str(value + 1).encode()),)))
            except ConflictError:
                continue
            self.increments += 1
            return


async def wait_for(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON_S):
        while not condition():  # noqa: ASYNC110  the world tells by no event
            await asyncio.sleep(0.02)


async def history(store: Store, prefix: str, upto: Revision) -> list[Change]:
    changes: list[Change] = []
    async with asyncio.timeout(SOON_S):
        async for item in store.watch(prefix, after=Revision(1)):
            changes += item.changes
            if item.revision >= upto:
                break
    return changes


async def assert_nothing_lost_or_doubled(store: Store, writers: Writers) -> None:
    """Compare what was acknowledged with the store's whole history."""
    last = max(writers.created.values())
    found = {change.key: change.revision for change in await history(store, "/w/", last)}
    assert Counter(change.key for change in await history(store, "/w/", last)).most_common(1)[0][1] == 1
    assert found == writers.created
    counter = await store.get("/n")
    assert counter is not None
    assert int(counter.value) == writers.increments
    numbers = [int(c.entry.value) for c in await history(store, "/n", counter.mod_revision) if c.entry is not None]
    assert numbers == list(range(1, writers.increments + 1))


async def follow(store: Store, prefix: str, seen: list[Change]) -> None:
    async for item in store.watch(prefix, after=Revision(1)):
        seen += item.changes


async def test_a_watch_goes_on_after_its_etcd_was_killed_without_gap_or_repeat() -> None:
    async with etcd_cluster() as cluster, opened(cluster.endpoints) as store:
        seen: list[Change] = []
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(follow(store, "/w/", seen), name="follow")
            for number in range(20):
                await store.commit(Txn((), (Put(f"/w/{number}", b""),)))
            await cluster.kill(0)
            writing = tasks.create_task(store.commit(Txn((), (Put("/w/20", b""),))), name="write")
            await cluster.restart(0)
            await writing
            for number in range(21, 40):
                await store.commit(Txn((), (Put(f"/w/{number}", b""),)))
            await wait_for(lambda: len(seen) >= 40)
            watching.cancel()
        assert [change.key for change in seen] == [f"/w/{number}" for number in range(40)]


async def test_a_killed_etcd_ends_in_unavailable_and_heals() -> None:
    async with etcd_cluster() as cluster, opened(cluster.endpoints) as store:
        await store.commit(Txn((), (Put("/a", b"1"),)))
        await cluster.kill(0)
        begun_s = time.monotonic()
        with pytest.raises(UnavailableError, match="did not answer"):
            await store.get("/a")
        assert time.monotonic() - begun_s < 40
        await cluster.restart(0)
        entry = await store.get("/a")
        assert entry is not None
        await store.commit(Txn((ModifiedAt("/a", entry.mod_revision),), (Put("/a", b"2"),)))


async def break_while_writing(cluster: EtcdCluster, index: int, how: str) -> Writers:
    """Let clients write while a member dies or freezes, and afterwards; return what they did."""
    writers = Writers()
    async with opened(cluster.endpoints, index) as one, opened(cluster.endpoints, (index + 1) % 3) as two:
        seen: list[Change] = []
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(follow(one, "/w/", seen), name="follow")
            running = [
                tasks.create_task(writers.write(store, number), name=f"writer-{number}")
                for number, store in enumerate([one, two] * (WRITERS // 2))
            ]
            await wait_for(lambda: writers.least_done >= 10)
            if how == "kill":
                await cluster.kill(index)
            else:
                cluster.pause(index)
            await wait_for(lambda: writers.least_done >= 30)
            if how == "kill":
                await cluster.restart(index)
            else:
                cluster.resume(index)
            await wait_for(lambda: writers.least_done >= 40)
            writers.stop()
            await asyncio.wait(running, timeout=SOON_S)
            await wait_for(lambda: len(seen) >= len(writers.created))
            watching.cancel()
        assert [(c.key, c.revision) for c in seen] == sorted(writers.created.items(), key=lambda item: item[1])
        await assert_nothing_lost_or_doubled(two, writers)
    return writers


@pytest.mark.parametrize("how", ["kill", "freeze"])
@pytest.mark.parametrize("who", ["leader", "follower"])
async def test_writers_survive_a_member_without_lost_or_doubled_writes(how: str, who: str) -> None:
    async with etcd_cluster(members=3) as cluster:
        leader = await cluster.leader()
        writers = await break_while_writing(cluster, leader if who == "leader" else (leader + 1) % 3, how)
    print(f"{how} {who}: longest gap {writers.longest_gap_s:.2f} s in {len(writers.created)} writes")
    assert writers.longest_gap_s < LONGEST_GAP_S


async def test_a_watch_leaves_a_member_that_lost_its_cluster_and_goes_on_when_that_is_back() -> None:
    async with etcd_cluster(members=3) as cluster, opened(cluster.endpoints) as store:
        begin = await store.commit(Txn((), (Put("/w/0", b""),)))
        seen: list[Change] = []
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(follow(store, "/w/", seen), name="follow")
            await wait_for(lambda: len(seen) == 1)
            await cluster.kill(1)
            await cluster.kill(2)
            with pytest.raises(UnavailableError):
                await store.commit(Txn((ModifiedAt("/w/0", begin),), (Put("/w/0", b"no quorum"),)))
            async with asyncio.TaskGroup() as restarts:
                restarts.create_task(cluster.restart(1), name="restart-1")
                restarts.create_task(cluster.restart(2), name="restart-2")
            last = await store.commit(Txn((), (Put("/w/1", b""),)))
            await wait_for(lambda: bool(seen) and seen[-1].revision >= last)
            watching.cancel()
        assert [change.key for change in seen if change.key != "/w/0"] == ["/w/1"]


async def test_members_tell_their_health() -> None:
    async with etcd_cluster(members=3) as cluster, opened(cluster.endpoints) as store:
        leader = await cluster.leader()
        down = (leader + 1) % 3
        await cluster.kill(down)
        members = await store.members()
        assert [member.endpoint for member in members] == list(cluster.endpoints)
        assert [member.why != "" for member in members] == [index == down for index in range(3)]
        assert [member.is_leader for member in members] == [index == leader for index in range(3)]
        assert members[leader].version.startswith("3.")


async def test_a_lease_is_kept_through_the_death_of_the_member_that_renews_it() -> None:
    async with etcd_cluster(members=3) as cluster:
        leader = await cluster.leader()
        async with opened(cluster.endpoints, leader) as store:
            lease = await store.lease(ttl_s=6)
            await store.commit(Txn((), (Put("/l", b"", lease.id),)))
            await cluster.kill(leader)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(12):
                    await lease.wait_lost()
            assert await store.get("/l") is not None


async def test_a_lease_that_can_not_be_renewed_is_lost_in_its_time() -> None:
    async with etcd_cluster() as cluster, opened(cluster.endpoints) as store:
        lease = await store.lease(ttl_s=3)
        cluster.pause(0)
        begun_s = time.monotonic()
        async with asyncio.timeout(30):
            await lease.wait_lost()
        assert 1.5 < time.monotonic() - begun_s < 10
        cluster.resume(0)


async def put_large(store: Store, count: int, *, compact_every: int) -> None:
    for number in range(count):
        last = await store.commit(Txn((), (Put("/large", bytes(200_000)),)))
        if number % compact_every == compact_every - 1:
            await store.compact(last)


async def test_a_full_etcd_refuses_writes_by_its_alarm_and_still_reads_and_compacts() -> None:
    quota = ("--quota-backend-bytes", "4000000")
    async with etcd_cluster(options=quota) as cluster, opened(cluster.endpoints) as store:
        kept = await store.commit(Txn((), (Put("/kept", b"1"),)))
        with pytest.raises(StoreFullError, match="NOSPACE") as refused:
            await put_large(store, 100, compact_every=1000)
        assert refused.value.http_status == 507
        assert "etcdctl alarm disarm" in refused.value.fix
        entry = await store.get("/kept")
        assert entry is not None
        assert entry.mod_revision == kept
        await store.compact((await store.list_prefix("/")).revision)
        with pytest.raises(StoreFullError):
            await store.commit(Txn((), (Put("/kept", b"2"),)))


async def test_an_etcd_whose_history_is_compacted_does_not_fill_up() -> None:
    quota = ("--quota-backend-bytes", "8000000")
    async with etcd_cluster(options=quota) as cluster, opened(cluster.endpoints) as store:
        await put_large(store, 200, compact_every=5)  # 40 MB in all
