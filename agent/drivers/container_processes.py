"""Processes of containers, to which the agent itself sends signals where a container manager can't. Needs root.

A process is named by its number only together with its container, whose id is part of its cgroup's path: the number may
have passed to another one.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

from foundation.clock import Clock


class ContainerProcess:
    """A main process, by a descriptor that holds on to who was looked at. `close` it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def send(self, name: str) -> bool:
        """Return whether it got the signal, such as SIGTERM; it may have ended."""
        try:
            signal.pidfd_send_signal(self._descriptor, signal.Signals[name])
        except (OSError, KeyError):
            return False
        return True

    async def ended(self, *, within_s: float) -> bool:
        """Return whether it has ended within that time."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._descriptor, ended.set)
        try:
            async with asyncio.timeout(within_s):
                await ended.wait()
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(self._descriptor)
        return True

    def close(self) -> None:
        os.close(self._descriptor)


def open_process(pid: int, container: str) -> ContainerProcess | None:
    """Return the process if it is one of that container, and runs."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return None
    if container in cgroups_of(pid):
        return ContainerProcess(descriptor)
    os.close(descriptor)
    return None


def cgroups_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cgroup").read_text()
    return ""


def kill_commands(container: str, command: Sequence[str], *, main: int, older_than_s: float, clock: Clock) -> None:
    """Kill commands that were run inside, with all that they started, if they have run for so long.

    A runtime makes a command the leader of a session of its own. Its cgroup is that of the main process.
    """
    wanted = b"".join(word.encode() + b"\0" for word in command)
    for pid in _members(main):
        with contextlib.suppress(OSError):
            is_leader = pid != main and os.getsid(pid) == pid and container in cgroups_of(pid)
            is_meant = is_leader and Path(f"/proc/{pid}/cmdline").read_bytes() == wanted
            if is_meant and clock.boot_s() - _started_s(pid) >= older_than_s:
                os.killpg(pid, signal.SIGKILL)


def write_limit(pid: int, container: str, controller: str, file: str, value: int) -> bool:
    """Set a limit of the container in its own cgroup of version 1; say whether that was done."""
    for line in cgroups_of(pid).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == controller and container in path:
            with contextlib.suppress(OSError):
                Path(f"/sys/fs/cgroup/{controller}{path}/{file}").write_text(str(value))
                return True
    return False


def _members(pid: int) -> Iterator[int]:
    """Yield the processes in the cgroup of this one."""
    for line in cgroups_of(pid).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "pids"):
            folder = Path(f"/sys/fs/cgroup/{controllers}{path}")
            with contextlib.suppress(OSError):
                yield from map(int, (folder / "cgroup.procs").read_text().split())
                return


def _started_s(pid: int) -> float:
    """Return when the process started, in seconds since the boot."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")
