"""Looks at many containers at a time, as a driver's list needs it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from agent.driver import Container, ContainerId
from foundation.tasks import TaskGroup
from manifests.errors import WherryError

MOST_INSPECTS = 16  # at once, of one list


async def inspect_all(
    ids: Iterable[str], inspect: Callable[[ContainerId], Awaitable[Container | None]]
) -> list[Container]:
    """Return those that are still there, in order. Raises the first error, one of ours if there is one."""
    places = asyncio.Semaphore(MOST_INSPECTS)

    async def look(container: ContainerId) -> Container | None:
        async with places:
            return await inspect(container)

    try:
        async with TaskGroup() as tasks:
            looks = [tasks.create_task(look(ContainerId(found)), name=f"inspect-{found[:12]}") for found in ids]
    except ExceptionGroup as group:
        raise _first(group) from group
    return [container for done in looks if (container := done.result()) is not None]


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    leaves = [
        leaf
        for part in group.exceptions
        for leaf in ([_first(part)] if isinstance(part, BaseExceptionGroup) else [part])
    ]
    return next((leaf for leaf in leaves if isinstance(leaf, WherryError)), leaves[0])
