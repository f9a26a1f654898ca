"""A group whose task fails leaves its parent as it was, also in the Pythons in which asyncio's own doesn't."""

import asyncio

import pytest

from foundation.tasks import TaskGroup


async def fail() -> None:
    await asyncio.sleep(0)
    raise ValueError("the task")


async def test_a_timeout_after_a_failed_group_still_times_out() -> None:
    parent = asyncio.current_task()
    assert parent is not None
    for _ in range(2):
        with pytest.raises(ExceptionGroup):
            async with TaskGroup() as tasks:
                tasks.create_task(fail())
        assert parent.cancelling() == 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()


async def test_a_group_whose_body_is_interrupted_leaves_no_request_either() -> None:
    parent = asyncio.current_task()
    assert parent is not None

    async def interrupted() -> None:
        async with TaskGroup() as tasks:
            tasks.create_task(fail())
            await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup):
        await interrupted()
    assert parent.cancelling() == 0


async def test_a_cancelled_group_is_cancelled() -> None:
    async def work() -> None:
        async with TaskGroup() as tasks:
            tasks.create_task(asyncio.Event().wait())

    task = asyncio.get_running_loop().create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_while_a_group_ends_by_an_error_comes_right_after_it() -> None:
    steps = []

    async def slow_to_end() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)

    async def work() -> None:
        try:
            async with TaskGroup() as tasks:
                tasks.create_task(slow_to_end())
                await asyncio.sleep(0)
                raise ValueError("the body")
        except* ValueError:
            steps.append("handled")
        await asyncio.Event().wait()

    task = asyncio.get_running_loop().create_task(work())
    await asyncio.sleep(0.005)  # the group waits for its task
    task.cancel()
    await asyncio.wait([task], timeout=5)
    was_cancelled = task.cancelled()
    task.cancel()  # a second one is heeded in any case
    assert (steps, was_cancelled) == (["handled"], True)
