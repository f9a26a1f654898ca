"""A daemon that drives containers, for a test: in a network namespace of its own, and nothing of it is left behind.

What is common to tests.dockerd, tests.podman and tests.containerd. Knows no driver.
"""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

READY_S = 60.0
END_S = 15.0
CGROUPS = Path("/sys/fs/cgroup")


class Daemon:
    """One daemon and what it starts. Methods block; call them by `asyncio.to_thread` where that hurts.

    `folder` is its own, with a short name: a Unix socket's path holds 107 bytes, and pytest's folders have long names.
    `begin` says how it is started, once all else is there, and `answers` whether it serves.
    """

    def __init__(self, prefix: str, logs: Path) -> None:
        self.id = f"{prefix}-{secrets.token_hex(4)}"
        self.netns = self.id
        self.cgroup_parent = f"/{self.id}"
        self.log = logs / f"{self.id}.log"
        self.folder = Path(tempfile.mkdtemp(prefix=f"{self.id}-", dir="/tmp"))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, command: Sequence[str], answers: Callable[[], bool], env: Mapping[str, str] | None = None) -> None:
        """Start it, also after `kill`, and return when it answers."""
        if not Path("/run/netns", self.netns).exists():
            run("ip", "netns", "add", self.netns)
            run("ip", "-n", self.netns, "link", "set", "lo", "up")
        with self.log.open("ab") as log:
            # Not `ip netns exec`: that mounts /sys anew, without cgroups.
            self.process = process = subprocess.Popen(
                ["nsenter", f"--net=/run/netns/{self.netns}", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,  # conmon leaves a file where it stands
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )

        def is_ready() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"{command[0]} ended: {self.log.read_text()[-2000:]}")
            return answers()

        until(is_ready, READY_S, f"{command[0]} did not answer; see {self.log}")

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        assert self.process is not None
        self.process.send_signal(how)
        self.process.wait(END_S)

    def pause(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on; fine if it isn't paused, or dead."""
        if self.process is not None and self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGCONT)

    def clean_up(self) -> None:
        """End it and all that it started, whatever state it is in, and delete every trace."""
        self.resume()
        if self.process is not None and self.process.poll() is None:
            try:
                self.end(signal.SIGTERM)
            except subprocess.TimeoutExpired:
                self.end()
        left = kill_all(lambda: left_processes(str(self.folder), self.cgroup_parent))
        unmount_below(self.folder)
        subprocess.run(["ip", "netns", "del", self.netns], check=False, capture_output=True)
        remove_cgroups(self.cgroup_parent)
        shutil.rmtree(self.folder, ignore_errors=True)
        assert not left, f"processes {sorted(left)} of {self.id} could not be killed"


def cgroups_of(parent: str) -> list[Path]:
    """Return the cgroup in each hierarchy that has it; there is one hierarchy alone with version 2."""
    folders = [CGROUPS / parent.strip("/"), *CGROUPS.glob(f"*/{parent.strip('/')}")]
    return [folder for folder in folders if folder.is_dir()]


def left_processes(mark: str, cgroup_parent: str) -> Iterator[int]:
    """Yield what still runs: processes that name the folder `mark`, what they started, and the cgroup's."""
    parents: dict[int, int] = {}
    found: set[int] = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and alive(int(entry.name)):
            parents[int(entry.name)] = _parent(int(entry.name))
            if mark.encode() in read(entry / "cmdline"):
                found.add(int(entry.name))
    while more := {pid for pid, parent in parents.items() if parent in found and pid not in found}:
        found |= more
    for cgroup in cgroups_of(cgroup_parent):
        for processes in cgroup.rglob("cgroup.procs"):
            found |= {pid for pid in map(int, read(processes).split()) if alive(pid)}
    yield from found


def kill_all(left: Callable[[], Iterator[int]]) -> set[int]:
    """Kill what `left` finds until nothing is, and return what outlived that."""
    deadline = time.monotonic() + END_S
    while (remaining := set(left())) and time.monotonic() < deadline:
        for pid in remaining:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    return remaining


def unmount_below(folder: Path) -> None:
    points = [line.split(b" ")[1].decode() for line in read(Path("/proc/self/mounts")).splitlines()]
    for point in reversed([point for point in points if point.startswith(f"{folder}/")]):
        subprocess.run(["umount", "-l", point], check=False, capture_output=True)


def remove_cgroups(parent: str) -> None:
    """Remove the cgroup and those below, in all hierarchies; the kernel needs a moment after the last process died."""
    for cgroup in cgroups_of(parent):
        folders = [*(path for path in cgroup.rglob("*") if path.is_dir()), cgroup]
        for folder in sorted(folders, reverse=True):
            deadline = time.monotonic() + 3
            while folder.exists() and time.monotonic() < deadline:
                try:
                    folder.rmdir()
                except OSError:
                    time.sleep(0.02)


def until(holds: Callable[[], bool], seconds: float, failure: str) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(failure)
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Return whether the process runs. A zombie doesn't, and may stay for long where pid 1 is slow to reap."""
    stat = read(Path(f"/proc/{pid}/stat"))
    return bool(stat) and stat.rpartition(b")")[2].split()[0] not in (b"Z", b"X")


def _parent(pid: int) -> int:
    fields = read(Path(f"/proc/{pid}/stat")).rpartition(b")")[2].split()
    return int(fields[1]) if len(fields) > 1 else 0


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
