"""Runs a real etcd on loopback, one member a process, for tests."""

import asyncio
import os
import select
import shutil
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

import aiohttp

from manifests.errors import UnavailableError

READY_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0
POLL_S = 0.05
LOG_TAIL_BYTES = 800


def free_port() -> int:
    """Return a loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class EtcdProcess:
    """One member with its data folder and ports, which can be started again after it ended.

    `peers` are the peer ports of all members by name, itself included; without, it is a cluster of its own.
    """

    def __init__(
        self,
        data_folder: Path,
        *,
        name: str = "wherry",
        peers: Mapping[str, int] | None = None,
        client_port: int | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self._folder = data_folder
        self._name = name
        self._peers = peers or {name: free_port()}
        self._port = client_port or free_port()
        self._options = options
        self._process: asyncio.subprocess.Process | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start it and return once it serves; raises UnavailableError, with the end of its log, if it doesn't."""
        await self.launch()
        try:
            await self.wait_ready()
        except BaseException:
            await self.kill()
            raise

    async def launch(self) -> None:
        """Start it, without waiting for it: a member of several is ready only with the others."""
        if shutil.which("etcd") is None:
            raise UnavailableError("cannot start etcd", why="there is no `etcd` on the PATH", fix="Install etcd.")
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        await asyncio.to_thread(self._end_orphan)
        log = os.open(self._log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command(), stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        finally:
            os.close(log)
        self._pid_path.write_text(str(self._process.pid))

    async def wait_ready(self) -> None:
        """Return once it says that it is healthy, which includes that its cluster has a leader."""
        timeout = aiohttp.ClientTimeout(total=2.0)
        try:
            async with asyncio.timeout(READY_TIMEOUT_S), aiohttp.ClientSession(timeout=timeout) as session:
                while not await self._is_healthy(session):
                    if not self.is_running:
                        raise UnavailableError("etcd ended at its start", why=self._log_tail())
                    await asyncio.sleep(POLL_S)
        except TimeoutError as error:
            raise UnavailableError(f"etcd was not ready in {READY_TIMEOUT_S:g} s", why=self._log_tail()) from error

    async def stop(self) -> None:
        """End it, kindly at first."""
        if self._process is None or not self.is_running:
            return
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._process.wait()
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """End it with SIGKILL."""
        if self._process is not None and self.is_running:
            self.signal(signal.SIGKILL)
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _end_orphan(self) -> None:
        """End an etcd that still holds the folder because who started it was killed."""
        try:
            pid = int(self._pid_path.read_text())
            orphan = os.pidfd_open(pid)
        except (FileNotFoundError, ProcessLookupError, ValueError):
            return
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if os.fsencode(self._folder / "data") in command:  # else the number is another process's by now
                signal.pidfd_send_signal(orphan, signal.SIGKILL)  # etcd's log on disk is made for this
                select.select([orphan], [], [], STOP_TIMEOUT_S)
        except (FileNotFoundError, ProcessLookupError):
            pass  # it just ended by itself
        finally:
            os.close(orphan)

    @property
    def _pid_path(self) -> Path:
        return self._folder / "etcd.pid"

    @property
    def _log_path(self) -> Path:
        return self._folder / "etcd.log"

    def _command(self) -> tuple[str, ...]:
        peer = f"http://127.0.0.1:{self._peers[self._name]}"
        cluster = ",".join(f"{name}=http://127.0.0.1:{port}" for name, port in self._peers.items())
        return (
            *("etcd", "--name", self._name, "--data-dir", str(self._folder / "data"), "--logger", "zap"),
            *("--listen-client-urls", self.endpoint, "--advertise-client-urls", self.endpoint),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", cluster),
            *self._options,
        )

    async def _is_healthy(self, session: aiohttp.ClientSession) -> bool:
        try:
            async with session.get(f"{self.endpoint}/health") as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    def _log_tail(self) -> str:
        return self._log_path.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")
