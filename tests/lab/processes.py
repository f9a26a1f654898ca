"""A supervised process: its own group and log file, and the signals that a test wants to send it.

It knows no event loop between calls, so that a lab may be shared by tests which each have their own loop.
"""

import asyncio
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.lab.cgroups import process_state
from tests.lab.commands import LabError
from tests.lab.waiting import wait_until

END_S = 20.0


class Process:
    """A started command. The lab ends it when the lab ends, whatever the test did."""

    def __init__(self, name: str, command: Sequence[str], log: Path, env: Mapping[str, str]) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                start_new_session=True,
            )
        self.pid = self._popen.pid

    @property
    def is_alive(self) -> bool:
        return self._popen.poll() is None

    async def wait(self, timeout_s: float = END_S) -> int:
        """Return the exit code, negative for a signal; TimeoutError while it still runs."""
        if self._popen.poll() is None:
            await _await_end(self.pid, timeout_s)
        return self._popen.wait()

    def collect(self) -> None:
        """Reap it after its host's cgroup was killed, so that no zombie and no warning is left."""
        try:
            self._popen.wait(timeout=END_S)
        except subprocess.TimeoutExpired as error:
            raise LabError(f"{self.name} (pid {self.pid}) survived SIGKILL for {END_S} s") from error

    async def kill(self) -> None:
        """End it at once, as a crash would: SIGKILL to its whole group."""
        self._signal(signal.SIGKILL)
        await self.wait()

    async def terminate(self, grace_s: float = END_S) -> int:
        """End it politely and return its exit code; TimeoutError when it doesn't heed SIGTERM."""
        self._signal(signal.SIGTERM)
        return await self.wait(grace_s)

    async def pause(self) -> None:
        """Return when it stands still: a later SIGTERM would overtake a SIGSTOP that is still on its way."""
        self._signal(signal.SIGSTOP)
        await wait_until(self._is_stopped, END_S, f"{self.name} is stopped")

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def log_tail(self, lines: int = 30) -> str:
        return log_tail(self.log, lines)

    async def _is_stopped(self) -> bool:
        return not self.is_alive or process_state(self.pid) == "T"

    def _signal(self, number: signal.Signals) -> None:
        if self.is_alive:
            os.killpg(self.pid, number)


def log_tail(log: Path, lines: int = 30) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


async def _await_end(pid: int, timeout_s: float) -> None:
    """Return when the child has ended, without reaping it: its pidfd becomes readable then."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    descriptor = os.pidfd_open(pid)
    try:
        loop.add_reader(descriptor, ended.set)
        async with asyncio.timeout(timeout_s):
            await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
