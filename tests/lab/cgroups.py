"""The cgroups of a lab: they hold every process of a host, so that it can be killed, frozen or capped as a whole.

Membership is in the cgroup2 tree, also where the machine is a v1 hybrid: killing and freezing need no controller there.
A host has two children: `daemons`, for what the lab starts, and `work`, the parent of its containers, which is capped.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path

from tests.lab.commands import LabError

ROOT = Path("/sys/fs/cgroup")
GONE_S = 10.0


def cgroup2_root() -> Path:
    """Return where the cgroup2 tree is mounted: at the top, or beside the v1 controllers."""
    return ROOT / "unified" if (ROOT / "unified").is_dir() else ROOT


def hierarchies() -> tuple[Path, ...]:
    """Return every tree in which a runtime makes directories for a container."""
    if cgroup2_root() == ROOT:
        return (ROOT,)
    return tuple(path for path in ROOT.iterdir() if path.is_dir() and not path.is_symlink())


def memory_root() -> Path:
    """Return the tree in which memory is counted."""
    return ROOT if cgroup2_root() == ROOT else ROOT / "memory"


def memory_cgroup_of(pid: int) -> Path:
    """Return the directory of the cgroup to which a process's memory is charged."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if ("memory" if memory_root() != ROOT else "") in controllers.split(","):
            return memory_root() / path.lstrip("/")
    raise LabError(f"no memory is counted for process {pid}")


class Cgroup:
    """One directory under the cgroup roots, by its path from there, such as `/lab/n1`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.folder = cgroup2_root() / path.lstrip("/")

    def child(self, name: str) -> "Cgroup":
        return Cgroup(f"{self.path}/{name}")

    def make(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    def pids(self) -> frozenset[int]:
        """Return the live processes in it and below; zombies aren't counted."""
        return frozenset(_pids(self.folder))

    def freeze(self, *, frozen: bool) -> None:
        """Stop or continue everything in it at one moment, forks and containers included."""
        (self.folder / "cgroup.freeze").write_text("1" if frozen else "0")
        self._await_event("frozen", "1" if frozen else "0")

    def kill(self) -> None:
        """Return when everything in it is dead by SIGKILL; frozen processes too."""
        if self.folder.is_dir():
            (self.folder / "cgroup.kill").write_text("1")
            self._await_event("populated", "0")

    @property
    def memory_folder(self) -> Path:
        return memory_root() / self.path.lstrip("/")

    def memory_cap(self) -> int:
        """Return the bound that it was given."""
        name = "memory.limit_in_bytes" if memory_root() != ROOT else "memory.max"
        return int((self.memory_folder / name).read_text())

    def memory_used(self) -> int:
        name = "memory.usage_in_bytes" if memory_root() != ROOT else "memory.current"
        return int((self.memory_folder / name).read_text())

    def cap_memory(self, limit_bytes: int) -> None:
        """Bound the memory of everything in it, as a small machine would."""
        if memory_root() != ROOT:
            self.memory_folder.mkdir(parents=True, exist_ok=True)
            (self.memory_folder / "memory.limit_in_bytes").write_text(str(limit_bytes))
            return
        for parent in reversed(self.folder.parents):
            if parent.is_relative_to(ROOT):
                (parent / "cgroup.subtree_control").write_text("+memory")
        (self.folder / "memory.max").write_text(str(limit_bytes))

    def remove(self) -> None:
        """Remove it from every tree, with what containers left there. It must be empty of processes."""
        for tree in hierarchies():
            for folder, _, _ in os.walk(tree / self.path.lstrip("/"), topdown=False):
                _rmdir(Path(folder))

    def _await_event(self, key: str, value: str) -> None:
        deadline = time.monotonic() + GONE_S
        while f"{key} {value}\n" not in (self.folder / "cgroup.events").read_text():
            if time.monotonic() > deadline:
                raise LabError(f"{self.path} was not `{key} {value}` after {GONE_S} s: processes {sorted(self.pids())}")
            time.sleep(0.005)


def _pids(folder: Path) -> Iterator[int]:
    for name, _, _ in os.walk(folder):
        try:
            text = (Path(name) / "cgroup.procs").read_text()
        except OSError:  # a container that ended meanwhile took its directory along
            continue
        yield from (int(pid) for pid in text.split() if is_alive(int(pid)))


def is_alive(pid: int) -> bool:
    """Tell whether a process lives. A zombie doesn't: pid 1 of a container may be slow to collect orphans."""
    return process_state(pid) not in ("", "Z", "X")


def process_state(pid: int) -> str:
    """Return the kernel's letter for what it does, such as `T` for stopped, or nothing when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[0]


def _rmdir(folder: Path) -> None:
    """Remove one directory; the kernel refuses for some milliseconds after its last process has died."""
    deadline = time.monotonic() + GONE_S
    while True:
        try:
            return folder.rmdir()
        except FileNotFoundError:
            return None
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
