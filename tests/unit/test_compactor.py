"""How far back the store's history is kept: as far as is promised and as is known, on a clock that is moved by hand."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane import keys
from control_plane.controllers.compactor import SAMPLES, Compactor, HistoryPromise, Sample, compactable
from control_plane.state import ClusterState
from control_plane.store.protocol import Put, Revision, Store, Txn
from foundation.clock import SystemClock
from manifests.errors import CompactedError
from manifests.nodes import NodeIntent
from tests.cache import following
from tests.clocks import StepClock
from tests.lab.waiting import wait_until

pytestmark = pytest.mark.each_store
PROMISE = HistoryPromise(keep_s=600.0, keep_revisions=20)
HISTORIES = st.lists(st.tuples(st.integers(1, 100), st.integers(0, 3000)), min_size=1, max_size=30)


@given(HISTORIES, st.integers(0, 500), st.integers(1, 2000), st.integers(0, 5000))
def test_nothing_is_forgotten_that_is_promised(
    steps: list[tuple[int, int]], later_s: int, keep_s: int, keep_revisions: int
) -> None:
    samples, at_s, revision = [], 0.0, 1
    for seconds, revisions in steps:
        at_s, revision = at_s + seconds, revision + revisions
        samples.append(Sample(at_s, Revision(revision)))
    now_s = at_s + later_s
    target = compactable(samples, now_s, HistoryPromise(keep_s, keep_revisions))
    assert target <= max(0, revision - keep_revisions)
    young = [s.revision for s in samples if s.at_s > now_s - keep_s]
    known = [s.revision for s in samples if s.at_s <= now_s - keep_s]
    assert target == 0 or target <= known[-1]
    assert all(target <= r for r in young)


async def write(store: Store, count: int) -> Revision:
    for number in range(count):
        put = Put(keys.NODE_INTENTS + "n1", NodeIntent(name="n1", metadata={"n": str(number)}).to_bytes())
        revision = await store.commit(Txn((), (put,)))
    return revision


async def reaches(store: Store, revision: Revision) -> bool:
    try:
        await store.list_prefix(keys.ROOT, at=revision)
    except CompactedError:
        return False
    return True


async def test_old_history_goes_and_the_promised_stays(store: Store) -> None:
    clock = StepClock()
    first = await write(store, 1)
    state = ClusterState(store, SystemClock())
    await state.load()
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(state.follow(), name="follow")
        compacting = tasks.create_task(Compactor(store, state, clock, PROMISE).run(), name="compact")
        old = await write(store, 100)
        await state.wait_for(old)
        for _ in range(SAMPLES):  # the whole of the promised time but for a moment
            clock.advance(PROMISE.keep_s / SAMPLES - 0.01)
            await asyncio.sleep(0)
        last = await write(store, 30)
        await state.wait_for(last)
        assert await reaches(store, first)
        for _ in range(3):
            clock.advance(PROMISE.keep_s / SAMPLES + 0.01)
            await asyncio.sleep(0.05)

        async def is_old_gone() -> bool:
            return not await reaches(store, Revision(old - 1))

        await wait_until(is_old_gone, 10, "the history before the promised time is gone", bool)
        assert await reaches(store, Revision(last - 20))
        assert await reaches(store, last)
        compacting.cancel()
        following.cancel()


async def test_a_server_that_was_cut_off_lists_again_after_a_compaction(store: Store) -> None:
    await write(store, 1)
    behind = ClusterState(store, SystemClock())
    await behind.load()
    last = await write(store, 5)
    await store.compact(last)
    async with following(behind):
        await behind.wait_for(last)
    intent = behind.intents.get("n1")
    assert intent is not None
    assert intent.metadata == {"n": "4"}
