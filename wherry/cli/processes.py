"""A family of child processes: started with a log file each, watched, and ended kindly, or at once.

Knows nothing of clusters. Children write to their log files themselves, so that they outlive whoever watches.
"""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

POLL_S = 0.05
_SEVERITY = re.compile(rb"^\S+ \S+ (DEBUG|INFO|WARNING|ERROR|CRITICAL)\b")
_LOUD = frozenset({b"WARNING", b"ERROR", b"CRITICAL"})
_MOST_RELAYED = 20_000  # bytes at a time: a child that floods its log must not flood the terminal too


class Child:
    """One process, its command and its log."""

    def __init__(self, name: str, command: Sequence[str], log: Path, env: Mapping[str, str]) -> None:
        self.name, self.command, self.log = name, tuple(command), log
        if log.exists():
            log.replace(log.with_suffix(".log.1"))
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            # A session of its own: Ctrl-C at the terminal reaches only us, and we say who stops when.
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                env=env,
                start_new_session=True,
            )
        finally:
            os.close(descriptor)
        self._reader: BinaryIO = log.open("rb")
        self._rest = b""
        self._is_loud = False
        self.is_told_dead = False

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def loud_lines(self) -> Iterator[str]:
        """Yield what it has logged since the last call at level warning and above, tracebacks included."""
        lines = (self._rest + self._reader.read(_MOST_RELAYED)).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            if found := _SEVERITY.match(line):
                self._is_loud = found[1] in _LOUD
            if self._is_loud:
                yield line.decode(errors="replace")

    def last_lines(self, count: int = 15) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])

    def close(self) -> None:
        self._reader.close()


class Family:
    """The children by name, in the order of their start."""

    def __init__(self, logs: Path, env: Mapping[str, str]) -> None:
        self._logs, self._env = logs, env
        self.children: dict[str, Child] = {}
        logs.mkdir(parents=True, exist_ok=True, mode=0o700)

    def start(self, name: str, command: Sequence[str]) -> Child:
        child = self.children[name] = Child(name, command, self._logs / f"{name}.log", self._env)
        return child

    def newly_dead(self) -> list[Child]:
        """Return those that have ended since the last call."""
        dead = [c for c in self.children.values() if c.exit_code is not None and not c.is_told_dead]
        for child in dead:
            child.is_told_dead = True
        return dead

    def stop(self, names: Sequence[str], timeout_s: float) -> None:
        """Ask them to end, all at once, and kill those that don't in time."""
        living = [c for name in names if (c := self.children.get(name)) and c.exit_code is None]
        for child in living:
            child.signal(signal.SIGCONT)
            child.signal(signal.SIGTERM)
        deadline = time.monotonic() + timeout_s
        while any(c.exit_code is None for c in living) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        for child in living:
            if child.exit_code is None:
                child.signal(signal.SIGKILL)

    def kill(self) -> None:
        for child in self.children.values():
            if child.exit_code is None:
                child.signal(signal.SIGKILL)


def ending_of(child: Child) -> str:
    """Return how a child ended, in words."""
    code = child.exit_code
    if code is None:
        return "still runs"
    return f"exited with {code}" if code >= 0 else f"was killed by {signal.Signals(-code).name}"


def processes_under(folder: Path) -> list[int]:
    """Return the processes whose --data-dir lies in the folder: of an earlier run, or started again by hand."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            data_dirs = [words[i + 1] for i, word in enumerate(words[:-1]) if word == "--data-dir"]
            if any(folder in Path(d).parents for d in data_dirs):
                found.append(int(entry.name))
    return found


def end_processes(pids: Sequence[int], timeout_s: float) -> None:
    """End processes that aren't our children, kindly, and then not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in pids:
            _send(pid, number)
        deadline = time.monotonic() + timeout_s
        while any(_is_alive(pid) for pid in pids) and time.monotonic() < deadline:
            time.sleep(POLL_S)


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _is_alive(pid: int) -> bool:
    """Say whether the process runs; one that only waits to be reaped doesn't."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (OSError, IndexError):
        return False
