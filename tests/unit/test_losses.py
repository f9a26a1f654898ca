"""The leader's watch over silent nodes, on a real store and a clock that runs as fast as the watch looks."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from control_plane import keys
from control_plane.controllers.losses import LossWatch, marked_silent
from control_plane.records import BrakeRecord, LeaderRecord, ServerRecord
from control_plane.state import Batch, ClusterState
from control_plane.store.protocol import ABSENT, CreatedAt, Put, Store, Txn
from manifests.nodes import Liveness, NodeIntent, NodeStatus
from tests.cache import following
from tests.lab.waiting import wait_until
from tests.scripted import facts

LOST_AFTER_S = 5.0
HOLD_S = 40.0


class FastClock:
    """Time passes only while the watch sleeps, twenty times as fast."""

    def __init__(self) -> None:
        self.now = 1000.0

    def now_s(self) -> float:
        return self.now

    def wall_s(self) -> float:
        return self.now

    def boot_s(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / 20)
        self.now += seconds


class Rig:
    """A store, its cache, and what is written into it as servers would."""

    def __init__(self, store: Store, clock: FastClock) -> None:
        self.store, self.clock = store, clock
        self.state = ClusterState(store, clock)
        self.watch = LossWatch(store, self.state, clock, lost_after_s=LOST_AFTER_S, hold_s=HOLD_S)
        self.changed_at: dict[tuple[str, Liveness], float] = {}
        self.brakes: list[tuple[float, BrakeRecord]] = []
        self.state.subscribe(self._note)

    def _note(self, batch: Batch) -> None:
        for change in batch.changes:
            if isinstance(change.new, NodeStatus):
                self.changed_at.setdefault((change.id, change.new.liveness), self.clock.now)
            if isinstance(change.new, BrakeRecord):
                self.brakes.append((self.clock.now, change.new))

    async def node(self, name: str, server: str = "s1") -> None:
        status = NodeStatus(
            facts=facts(name), liveness=Liveness.READY, server=server, session=1, changed_s=self.clock.now
        )
        await self._put(keys.NODES + name, status.to_bytes())

    async def silence(self, *names: str) -> None:
        for name in names:
            status = self.state.nodes.get(name)
            assert status is not None
            suspect = marked_silent(status, Liveness.SUSPECT, "", 2.5, self.clock.now)
            await self._put(keys.NODES + name, suspect.to_bytes())

    async def confirm(self, name: str) -> None:
        intent = NodeIntent(name=name, confirmed_lost=self.state.nodes.modified_at(name))
        await self._put(keys.NODE_INTENTS + name, intent.to_bytes())

    async def server(self, name: str) -> None:
        record = ServerRecord(id=name, name=name, url="http://127.0.0.1:1", version="0", started_s=0.0)
        await self._put(keys.SERVERS + name, record.to_bytes())

    async def _put(self, key: str, value: bytes) -> None:
        await self.state.wait_for(await self.store.commit(Txn((), (Put(key, value),))))

    @asynccontextmanager
    async def leading(self, watch: LossWatch | None = None) -> AsyncIterator[None]:
        entry = await self.store.get(keys.LEADER)
        if entry is None:
            put = Put(keys.LEADER, LeaderRecord(server="s1").to_bytes())
            await self.store.commit(Txn((CreatedAt(keys.LEADER, ABSENT),), (put,)))
            entry = await self.store.get(keys.LEADER)
        assert entry is not None
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task((watch or self.watch).run(CreatedAt(keys.LEADER, entry.create_revision)))
            yield
            task.cancel()

    def names(self, liveness: Liveness) -> set[str]:
        return {n.facts.name for n in self.state.nodes.values() if n.liveness is liveness}

    async def until(self, liveness: Liveness, *names: str) -> None:
        async def found() -> set[str]:
            return self.names(liveness)

        await wait_until(found, 20, f"{names} are {liveness}", done=lambda now: now == set(names))

    async def until_brake(self, *, on: bool) -> None:
        async def is_on() -> bool:
            return self.state.brake.get("") is not None

        await wait_until(is_on, 20, f"the brake is {'on' if on else 'off'}", done=lambda now: now is on)

    async def until_time(self, at: float) -> None:
        async def now() -> float:
            return self.clock.now

        await wait_until(now, 20, "time has passed", done=lambda value: value >= at)


@pytest.fixture
async def rig(store: Store) -> AsyncIterator[Rig]:
    rig = Rig(store, FastClock())
    await rig.state.load()
    async with following(rig.state):
        await rig.server("s1")
        yield rig


async def test_a_suspect_node_is_lost_when_its_whole_silence_is_long_enough(rig: Rig) -> None:
    for name in ("a", "b"):
        await rig.node(name)
    async with rig.leading():
        await rig.silence("a")
        suspect_at = rig.clock.now
        await rig.until(Liveness.LOST, "a")
    assert rig.changed_at["a", Liveness.LOST] - suspect_at >= 2.0
    record = rig.state.nodes.get("a")
    assert record is not None
    assert record.silent_s >= LOST_AFTER_S


async def test_a_node_without_a_server_is_suspect_after_half_the_time_and_lost_after_all(rig: Rig) -> None:
    await rig.node("a", server="gone")
    began = rig.clock.now
    async with rig.leading():
        await rig.until(Liveness.LOST, "a")
    assert rig.changed_at["a", Liveness.SUSPECT] - began >= LOST_AFTER_S / 2
    assert rig.changed_at["a", Liveness.LOST] - began >= LOST_AFTER_S


async def test_nobody_is_lost_by_time_in_which_nobody_led(rig: Rig) -> None:
    for name in ("a", "b"):
        await rig.node(name)
    await rig.silence("a")
    rig.clock.now += 100
    led_at = rig.clock.now
    async with rig.leading():
        await rig.until(Liveness.LOST, "a")
    assert rig.changed_at["a", Liveness.LOST] - led_at >= 2.5


async def test_under_the_brake_nodes_stay_suspect_until_its_time_is_over(rig: Rig) -> None:
    for name in "abcde":
        await rig.node(name)
    async with rig.leading():
        await rig.silence("a", "b", "c")
        await rig.until(Liveness.LOST, "a", "b", "c")
        await rig.until_brake(on=False)
    ((braked_at, brake),) = rig.brakes
    assert (brake.nodes, brake.there) == (("a", "b", "c"), 5)
    assert all(rig.changed_at[name, Liveness.LOST] - braked_at >= HOLD_S - 1 for name in "abc")


async def test_a_new_leader_keeps_the_brake_on_and_counts_its_time_anew(rig: Rig) -> None:
    for name in "abcd":
        await rig.node(name)
    async with rig.leading():
        await rig.silence("a", "b", "c")
        await rig.until_brake(on=True)
        await rig.until_time(rig.clock.now + HOLD_S / 4)
    successor = LossWatch(rig.store, rig.state, rig.clock, lost_after_s=LOST_AFTER_S, hold_s=HOLD_S)
    led_at = rig.clock.now
    assert rig.names(Liveness.LOST) == set()
    async with rig.leading(successor):
        await rig.until(Liveness.LOST, "a", "b", "c")
    assert rig.changed_at["a", Liveness.LOST] - led_at >= HOLD_S - 1
    (_, first), (_, second) = rig.brakes
    assert (first.since_s, first.nodes) == (second.since_s, second.nodes)
    assert second.until_s > first.until_s


async def test_what_an_operator_confirms_is_lost_at_once_and_the_others_stay_held(rig: Rig) -> None:
    for name in "abcd":
        await rig.node(name)
    async with rig.leading():
        await rig.silence("a", "b", "c")
        await rig.until_brake(on=True)
        await rig.confirm("b")
        await rig.until(Liveness.LOST, "a", "b", "c")
    ((braked_at, _),) = rig.brakes
    assert rig.changed_at["b", Liveness.LOST] < rig.changed_at["a", Liveness.LOST]
    assert all(rig.changed_at[name, Liveness.LOST] - braked_at >= HOLD_S - 1 for name in "ac")


async def test_a_confirmation_is_void_once_the_node_was_heard_again(rig: Rig) -> None:
    for name in "abcd":
        await rig.node(name)
    async with rig.leading():
        await rig.silence("a", "b", "c")
        await rig.until_brake(on=True)
    await rig.confirm("b")
    await rig.node("b")
    await rig.silence("b")
    led_at = rig.clock.now
    async with rig.leading():
        await rig.until(Liveness.LOST, "a", "b", "c")
    assert rig.changed_at["b", Liveness.LOST] - led_at >= HOLD_S - 1


async def test_when_enough_come_back_the_others_get_time_to_do_so_too(rig: Rig) -> None:
    for name in "abcdef":
        await rig.node(name)
    async with rig.leading():
        await rig.silence("a", "b", "c", "d")
        await rig.until_brake(on=True)
        await rig.node("a")
        back_at = rig.clock.now
        await rig.until(Liveness.LOST, "b", "c", "d")
        assert rig.changed_at["b", Liveness.LOST] - back_at >= LOST_AFTER_S - 0.5
        await rig.until_brake(on=False)


async def test_a_watch_that_slept_judges_nobody_by_that_time(rig: Rig) -> None:
    for name in ("a", "b"):
        await rig.node(name)
    async with rig.leading():
        await rig.silence("a")
        rig.clock.now += 1000
        woke_at = rig.clock.now
        await rig.until(Liveness.LOST, "a")
    assert rig.changed_at["a", Liveness.LOST] - woke_at >= 2.0
