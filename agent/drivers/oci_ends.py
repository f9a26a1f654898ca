"""Sees the ends of the oci driver's containers as they come, and passes hints on to who follows its events.

A container's end is that of its shim, of which a descriptor (pidfd) becomes readable: nothing is polled. Lives in the
event loop.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from agent.driver import ContainerId
from agent.drivers.oci_folder import ContainerFolder

MOST_HINTS = 10_000  # kept for one follower; should it be that slow, its next full list shows the rest


class Ends:
    """`close` it."""

    def __init__(self) -> None:
        self._watched: dict[ContainerId, _Watched] = {}
        self._followers: list[_Follower] = []

    @property
    def running(self) -> list[ContainerFolder]:
        return [watched.folder for watched in self._watched.values()]

    def watch(self, folder: ContainerFolder) -> asyncio.Event | None:
        """Return what is set once the container has ended; None if it doesn't run."""
        watched = self._watched.get(folder.id)
        if watched is None and (descriptor := folder.open_shim()) is not None:
            watched = self._watched[folder.id] = _Watched(folder, descriptor)
            asyncio.get_running_loop().add_reader(descriptor, self.tell_end, folder)
        return None if watched is None else watched.ended

    def tell_end(self, folder: ContainerFolder) -> None:
        """Watch the container no longer, and tell of it."""
        watched = self._watched.pop(folder.id, None)
        if watched is not None:
            asyncio.get_running_loop().remove_reader(watched.descriptor)
            os.close(watched.descriptor)
            watched.ended.set()
        self.tell(folder)

    def tell(self, folder: ContainerFolder) -> None:
        """Hint at the container to all who follow such."""
        for follower in self._followers:
            if follower.labels.items() <= folder.spec.labels.items():
                with suppress(asyncio.QueueFull):
                    follower.hints.put_nowait(folder.id)

    def follow(self, labels: Mapping[str, str]) -> AsyncGenerator[ContainerId, None]:
        """Yield hints from the moment of this call on, even if the first is only asked for later."""
        follower = _Follower(dict(labels))
        self._followers.append(follower)
        return self._hints(follower)

    async def _hints(self, follower: "_Follower") -> AsyncGenerator[ContainerId, None]:
        try:
            while True:
                yield await follower.hints.get()
        finally:
            with suppress(ValueError):  # closed meanwhile
                self._followers.remove(follower)

    def close(self) -> None:
        self._followers.clear()
        for folder in self.running:
            self.tell_end(folder)


@dataclass(slots=True)
class _Watched:
    folder: ContainerFolder
    descriptor: int
    ended: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True, eq=False)
class _Follower:
    labels: Mapping[str, str]
    hints: asyncio.Queue[ContainerId] = field(default_factory=lambda: asyncio.Queue(MOST_HINTS))
