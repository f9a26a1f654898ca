"""The agent's hold on its guard process (agent.guard): writes the files that it reads, and keeps one alive."""

import asyncio
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

from agent import guard
from agent.leash import Lease
from foundation.logs import Log
from manifests.errors import UnavailableError

FOLDER = "guard"
START_TIMEOUT_S = 10.0
_log = Log(__name__)


class GuardProcess:
    """Implements agent.leash.Guard. One for each data folder."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir / FOLDER

    def load(self) -> tuple[float | None, tuple[Lease, ...]]:
        """Return what an agent before this one wrote in this boot: when it was heard, and leases that still matter."""
        try:
            if not guard.read_leases(str(self._folder)):
                return None, ()
            told = json.loads((self._folder / guard.LEASES).read_text())["leases"]
            leases = [Lease(str(one["container"]), str(one["of"]), float(one["silent_s"])) for one in told]
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("the guard's leases could not be read", why=str(error))
            return None, ()
        alive = {container for _, container in guard.processes_of([lease.container for lease in leases])}
        return guard.read_heard(str(self._folder)), tuple(lease for lease in leases if lease.container in alive)

    async def keep(self, leases: Collection[Lease], heard_s: float) -> None:
        """Have these containers guarded, from now on, with that as the last word. Raises UnavailableError."""
        try:
            await asyncio.to_thread(self._keep, leases, heard_s)
        except (OSError, subprocess.SubprocessError) as error:
            raise UnavailableError(
                "the guard of onDisconnect.stopAfter can't be set up",
                why=str(error),
                fix=f"Look at the agent's folder {self._folder}: it must be writable.",
            ) from error

    async def hear(self, heard_s: float) -> None:
        """Tell the guard that a server was heard. Should that fail, it counts from before."""
        try:
            await asyncio.to_thread(self._write_heard, heard_s)
        except OSError as error:
            _log.warning("the guard could not be told", why=str(error))

    def _keep(self, leases: Collection[Lease], heard_s: float) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._write_heard(heard_s)
        told = [{"container": x.container, "of": x.of, "silent_s": x.silent_s} for x in leases]
        draft = self._folder / f"{guard.LEASES}.new"
        draft.write_text(json.dumps({"boot": guard.boot_id(), "leases": told}))
        draft.replace(self._folder / guard.LEASES)  # not synced: leases are worth nothing after a reboot
        if leases and not self._is_alive():
            self._start()

    def _write_heard(self, heard_s: float) -> None:
        """Write in place, so that it needs no room on a full disk; twice, so that a half written one is noticed."""
        descriptor = os.open(self._folder / guard.HEARD, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            text = f"{heard_s:020.6f}"
            os.pwrite(descriptor, f"{text} {text}\n".encode(), 0)
        finally:
            os.close(descriptor)

    def _is_alive(self) -> bool:
        """Say whether a guard holds the lock."""
        descriptor = os.open(self._folder / guard.LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)

    def _start(self) -> None:
        """Start one and return at once: it detaches itself. Two at a time are harmless, as one of them ends."""
        subprocess.run(
            [sys.executable, "-I", "-S", guard.__file__, str(self._folder.absolute())],
            check=True,
            cwd="/",
            env={},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=START_TIMEOUT_S,
        )
        _log.info("guard started", folder=self._folder)
