"""The loop: virtual time, order by lot that a seed repeats, and processes that freeze and die."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from tests.simulation.crashes import CrashPoint, effect, effect_now
from tests.simulation.loop import DeadlockError, Process, SimLoop, SpinError, later, new_loop


def running() -> SimLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimLoop)
    return loop


async def failing_group() -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(asyncio.sleep(1.0))
        raise ValueError


def told(main: Coroutine[Any, Any, Any], seed: str = "1") -> Any:
    with new_loop(seed) as loop:
        return loop.run(main)


def test_an_hour_passes_in_a_moment() -> None:
    async def main() -> float:
        before = running().time()
        await asyncio.sleep(3600.0)
        return running().time() - before

    began_s = time.monotonic()
    assert told(main()) == 3600.0
    assert time.monotonic() - began_s < 10


def test_timeouts_and_groups_work_as_ever() -> None:
    async def main() -> str:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5.0):
                await asyncio.Event().wait()
        with pytest.raises(ExceptionGroup):
            await failing_group()
        return await asyncio.to_thread(lambda: "inline")

    assert told(main()) == "inline"


async def interleaved() -> list[str]:
    """Return the order in which three processes take their turns."""
    order: list[str] = []

    async def take_turns(name: str) -> None:
        for _ in range(10):
            order.append(name)
            await asyncio.sleep(0)

    tasks = {Process(running(), name).spawn(take_turns(name), name=name) for name in "abc"}
    await asyncio.wait(tasks)
    return order


def test_the_order_among_processes_is_drawn_by_the_seed() -> None:
    assert told(interleaved(), "1") == told(interleaved(), "1")
    assert len({tuple(told(interleaved(), str(seed))) for seed in range(5)}) == 5


def test_a_process_keeps_its_own_order() -> None:
    async def main() -> list[int]:
        order: list[int] = []
        for number in range(100):
            running().call_soon(order.append, number)
        await asyncio.sleep(1.0)
        return order

    assert told(main()) == list(range(100))


def test_a_frozen_process_does_nothing_and_then_all_that_was_due() -> None:
    async def main() -> list[float]:
        ticks: list[float] = []

        async def tick() -> None:
            while True:
                await asyncio.sleep(1.0)
                ticks.append(running().time() - 1000)

        process = Process(running(), "p")
        process.spawn(tick(), name="tick")
        await asyncio.sleep(2.5)
        process.freeze()
        await asyncio.sleep(5.0)
        process.thaw()
        await asyncio.sleep(2.1)
        return ticks

    assert told(main()) == [1.0, 2.0, 7.5, 8.5, 9.5]


def test_a_killed_process_cleans_nothing_up() -> None:
    async def main() -> list[str]:
        done: list[str] = []

        async def work() -> None:
            try:
                await asyncio.sleep(1.0)
            finally:
                done.append("cleaned up")

        process = Process(running(), "p")
        process.spawn(work(), name="work")
        process.on_death.append(lambda: done.append("died"))
        await asyncio.sleep(0.5)
        process.kill()
        await asyncio.sleep(5.0)
        return list(done)

    assert told(main()) == ["died"]


def test_the_world_goes_on_when_a_process_dies() -> None:
    async def main() -> list[str]:
        arrived: list[str] = []

        async def send() -> None:
            later(1.0, arrived.append, "sent before it died")
            await asyncio.sleep(0.5)

        process = Process(running(), "p")
        process.spawn(send(), name="send")
        await asyncio.sleep(0.1)
        process.kill()
        await asyncio.sleep(2.0)
        return arrived

    assert told(main()) == ["sent before it died"]


@pytest.mark.parametrize(("before", "effects"), [(True, 2), (False, 3)])
def test_a_crash_point_kills_right_before_or_after_an_effect(before: bool, effects: int) -> None:
    async def main() -> int:
        count = 0

        async def work() -> None:
            nonlocal count
            while True:
                await effect("commit", before=True)
                count += 1
                await effect("commit", before=False)
                await asyncio.sleep(1.0)

        process = Process(running(), "p")
        process.crash = CrashPoint(3, before, "commit")
        process.spawn(work(), name="work")
        await asyncio.sleep(10.0)
        assert process.is_dead
        return count

    assert told(main()) == effects


def test_a_crash_point_ends_what_runs_in_the_executor() -> None:
    async def main() -> list[str]:
        done: list[str] = []

        def write() -> None:
            effect_now("file", before=True)
            done.append("written")

        process = Process(running(), "p")
        process.crash = CrashPoint(1, True)
        process.spawn(asyncio.to_thread(write), name="write")
        await asyncio.sleep(1.0)
        return done

    assert told(main()) == []


def test_what_spins_and_what_can_never_go_on_is_an_error() -> None:
    async def spin() -> None:
        while True:  # noqa: ASYNC110  # that is the point
            await asyncio.sleep(0)

    with pytest.raises(SpinError):
        told(spin())

    async def wait_for_ever() -> None:
        await asyncio.Event().wait()

    with pytest.raises(DeadlockError):
        told(wait_for_ever())


def test_an_error_that_nobody_takes_is_a_problem() -> None:
    async def main() -> None:
        running().call_soon(lambda: 1 / 0)
        await asyncio.sleep(1.0)

    with new_loop("1") as loop:
        loop.run(main())
        assert [type(problem["exception"]) for problem in loop.problems] == [ZeroDivisionError]
