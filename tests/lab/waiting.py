"""Waiting on a condition with a deadline, in place of sleeping and hoping."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import aiohttp

from tests.lab.api import ApiError

State = TypeVar("State")
EVERY_S = 0.05
HOLD_EVERY_S = 0.25
# A daemon that isn't up yet is a state to wait through, not a failure.
NOT_YET = (aiohttp.ClientError, ApiError, OSError, TimeoutError)


async def wait_until(
    read: Callable[[], Awaitable[State]],
    deadline_s: float,
    describe: str,
    done: Callable[[State], object] = bool,
) -> State:
    """Return the first state for which `done` holds; AssertionError with the last one when none came in time.

    `describe` says what should hold: `await wait_until(lambda: containers(host), 10, "2 run", lambda c: len(c) == 2)`.
    """
    loop = asyncio.get_running_loop()
    end_s = loop.time() + deadline_s
    last: object = "nothing was read"
    while (left_s := end_s - loop.time()) > 0:
        try:
            async with asyncio.timeout(left_s):
                state = await read()
            last = state
            if done(state):
                return state
        except NOT_YET as error:
            if not (isinstance(error, TimeoutError) and loop.time() >= end_s):  # keep the last real state instead
                last = error
        await asyncio.sleep(min(EVERY_S, max(0.0, end_s - loop.time())))
    raise AssertionError(f"not within {deadline_s} s: {describe}\nlast state: {last!r}")


async def wait_still(read: Callable[[], Awaitable[State]], still_s: float, deadline_s: float, describe: str) -> State:
    """Return the state once it has been the same for so long, e.g. the store's revision once the last is written."""
    loop = asyncio.get_running_loop()
    last, since_s = await read(), loop.time()

    async def state_if_still() -> State | None:
        nonlocal last, since_s
        state = await read()
        if state != last:
            last, since_s = state, loop.time()
        return state if loop.time() - since_s >= still_s else None

    await wait_until(state_if_still, deadline_s, describe, lambda state: state is not None)
    return last


async def hold_for(
    read: Callable[[], Awaitable[State]], duration_s: float, describe: str, holds: Callable[[State], object] = bool
) -> None:
    """Return after that time if `holds` was true of every state meanwhile; AssertionError at the first where not."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + duration_s
    while True:
        state = await read()
        if not holds(state):
            raise AssertionError(f"no longer, {end_s - loop.time():.1f} s early: {describe}\nstate: {state!r}")
        if loop.time() >= end_s:
            return
        await asyncio.sleep(HOLD_EVERY_S)
