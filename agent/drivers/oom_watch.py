"""Finds out which containers the kernel killed for their memory, where the container manager doesn't tell.

A container's cgroup counts such kills, and is removed soon after its main process has ended: a manager first starts a
program for that, which takes tens of milliseconds. So the count is read at the moment in which the process ends.
Works with cgroup v1 and v2. What ends while no agent runs is not seen.
"""

import asyncio
import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


@dataclass
class _Watched:
    descriptor: int  # of the process, -1 once it has ended
    counter: Path
    was_killed: bool = False


class OomWatch:
    """Watches main processes by their descriptors. Use it from one event loop only."""

    def __init__(self) -> None:
        self._watched: dict[str, _Watched] = {}

    def watch(self, container: str, pid: int) -> None:
        """Watch the container, of which this is the main process; fine if it is watched already, or can't be.

        `container` is part of its cgroup's name, by which a process is told from another's with the same number.
        """
        if container in self._watched and self._watched[container].descriptor >= 0:
            return
        counter = _counter_of(pid, container)
        if counter is None:
            return
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            return
        self.forget(container)
        self._watched[container] = _Watched(descriptor, counter)
        asyncio.get_running_loop().add_reader(descriptor, self._ended, container)

    def was_killed(self, container: str) -> bool:
        """Say whether the kernel is known to have killed a process of it, by its end."""
        found = self._watched.get(container)
        return found is not None and found.was_killed

    def forget(self, container: str) -> None:
        if (found := self._watched.pop(container, None)) is not None:
            _close(found)

    def close(self) -> None:
        for container in list(self._watched):
            self.forget(container)

    def _ended(self, container: str) -> None:
        found = self._watched[container]
        _close(found)
        found.was_killed = _kills(found.counter) > 0


def _close(watched: _Watched) -> None:
    if watched.descriptor >= 0:
        asyncio.get_running_loop().remove_reader(watched.descriptor)
        os.close(watched.descriptor)
        watched.descriptor = -1


def _counter_of(pid: int, container: str) -> Path | None:
    """Return the file in which the kernel counts the kills of that process's cgroup, if it is that container's."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return None
    paths = {controllers: path for _, controllers, path in (line.split(":", 2) for line in lines)}
    if container not in "".join(paths.values()):
        return None
    if "memory" in paths:
        return _CGROUPS / "memory" / paths["memory"].lstrip("/") / "memory.oom_control"
    return _CGROUPS / paths.get("", "").lstrip("/") / "memory.events"


def _kills(counter: Path) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in counter.read_text().splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0
