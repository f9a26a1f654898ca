"""Stops containers of the cri driver, and runs commands inside.

The CRI stops with the image's signal and whole seconds only, and leaves behind what a command started when its time is
up. So the agent itself sends the signals, as far as it may.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from agent.driver import ExecResult
from agent.drivers.container_processes import ContainerProcess, kill_commands, open_process
from agent.drivers.cri_channel import CriChannel
from agent.drivers.cri_methods import CONTAINER_STATUS, EXEC, STOP
from agent.drivers.cri_stubs import cri_pb2 as pb
from foundation.clock import Clock
from manifests.errors import DriverError, NotFoundError, TimedOutError, UnavailableError

MOST_OUTPUT_BYTES = 4096
KILL_WAIT_S = 10.0
_EXEC_GRACE_S = 2.0  # to hear of the end of a command that was killed
_POLL_S = 0.01
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126  # as shells have it


class CriProcesses:
    def __init__(self, channel: CriChannel, clock: Clock) -> None:
        self._channel, self._clock = channel, clock

    async def stop(self, container: str, pid: int, *, signal: str, grace_s: float) -> None:
        """Send the signal, and SIGKILL after the grace; return when the runtime knows of the end."""
        process = open_process(pid, container)
        if process is not None:
            await _end(process, signal, grace_s)
        elif grace_s > 0:  # it may not be looked at: the runtime's own way is left
            await self._stop(container, grace_s=round(grace_s) or 1)
        if not await self._has_ended(container, within_s=KILL_WAIT_S if process is not None else 0.0):
            await self._stop(container, grace_s=0)
            if not await self._has_ended(container, within_s=KILL_WAIT_S):
                raise DriverError(
                    f"cannot stop container {container[:12]}",
                    why=f"it still runs {KILL_WAIT_S:g} s after SIGKILL",
                    fix="Its process hangs in the kernel, mostly on a disk or a network mount: look at `dmesg`.",
                )

    async def _stop(self, container: str, *, grace_s: int) -> None:
        request = pb.StopContainerRequest(container_id=container, timeout=grace_s)
        with suppress(NotFoundError):
            limit_s = grace_s + KILL_WAIT_S + self._channel.timeout_s
            await self._channel.call(STOP, request, f"stop container {container[:12]}", timeout_s=limit_s)

    async def _has_ended(self, container: str, *, within_s: float) -> bool:
        """Say whether the runtime knows of the container's end; it hears of it a moment after the kernel."""
        end_s = self._clock.now_s() + within_s
        while True:
            request = pb.ContainerStatusRequest(container_id=container)
            try:
                answer = await self._channel.call(CONTAINER_STATUS, request, f"look at container {container[:12]}")
            except NotFoundError:
                return True
            if answer.status.state == pb.CONTAINER_EXITED:
                return True
            if self._clock.now_s() >= end_s:
                return False
            await self._clock.sleep(_POLL_S)

    async def execute(self, container: str, pid: int, command: Sequence[str], *, timeout_s: float) -> ExecResult:
        """Run it in the container whose main process that is."""
        what = f"run {command[0]} in container {container[:12]}"
        request = pb.ExecSyncRequest(container_id=container, cmd=command)
        call = asyncio.ensure_future(
            self._channel.call(EXEC, request, what, timeout_s=timeout_s + self._channel.timeout_s)
        )
        try:
            done, _ = await asyncio.wait([call], timeout=timeout_s)
            if done:
                return _result(call.result())
            await asyncio.to_thread(
                kill_commands, container, command, main=pid, older_than_s=timeout_s / 2, clock=self._clock
            )
            await asyncio.wait([call], timeout=_EXEC_GRACE_S)
        except DriverError as refused:
            return _not_run(refused)
        finally:
            call.cancel()
            with suppress(asyncio.CancelledError, DriverError, UnavailableError, NotFoundError):
                await call
        raise TimedOutError(
            f"{command[0]} in container {container[:12]} did not end within {timeout_s:g} s",
            why="it was killed",
            fix="Raise the check's `timeout`, or make the command faster.",
        )


async def _end(process: ContainerProcess, signal: str, grace_s: float) -> None:
    """Send the signal, and SIGKILL after the grace, which ends all processes of the container."""
    try:
        has_heard = grace_s > 0 and process.send(signal)
        if not has_heard or not await process.ended(within_s=grace_s):
            process.send("SIGKILL")
            await process.ended(within_s=KILL_WAIT_S)
    finally:
        process.close()


def _result(answer: pb.ExecSyncResponse) -> ExecResult:
    return ExecResult(answer.exit_code, (answer.stdout + answer.stderr)[:MOST_OUTPUT_BYTES])


def _not_run(refused: DriverError) -> ExecResult:
    """Return what a shell would, for a program that can't be run; anything else is no result."""
    for text, code in (("permission denied", _NOT_EXECUTABLE), ("not found", _NOT_FOUND), ("no such file", _NOT_FOUND)):
        if "exec" in refused.why and text in refused.why:
            return ExecResult(code, refused.why.encode()[:MOST_OUTPUT_BYTES])
    raise refused
