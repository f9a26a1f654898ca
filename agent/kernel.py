"""Where the kernel shows itself, and small readers of it: /proc, and a container's cgroup in version 1, 2 or both.

In the hybrid layout, version 1 has the controllers, and an empty tree of version 2 beside them, `unified`, has the
pressure (PSI) of each container. Everything here blocks for some microseconds. The folders may be others in tests.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PRESSURES = ("cpu", "memory", "io")
_V2_CONTROLLERS = ("cpu", "cpuset", "memory", "pids", "io")


@dataclass(frozen=True, slots=True)
class Kernel:
    proc: Path = Path("/proc")
    cgroups: Path = Path("/sys/fs/cgroup")

    @property
    def is_v2(self) -> bool:
        return (self.cgroups / "cgroup.controllers").exists()


@dataclass(frozen=True, slots=True)
class Cgroup:
    """The folders of one cgroup by controller; in version 2 all are the same. `v2` has pressure, and may be missing."""

    version: int
    path: str  # below each hierarchy, of the one that counts memory
    folders: Mapping[str, str]
    v2: str | None

    def file(self, controller: str, name: str) -> str | None:
        folder = self.folders.get(controller)
        return None if folder is None else f"{folder}/{name}"


def cgroup_of(kernel: Kernel, pid: int, container: str = "") -> Cgroup | None:
    """Return the cgroup of the process; None if it is gone, or isn't in a cgroup that names the container.

    The number of a process may pass to another one, so what runs in a container is known by the path of its cgroup.
    """
    text = read_text(f"{kernel.proc}/{pid}/cgroup")
    if text is None or container not in text:
        return None
    paths = dict(line.split(":", 2)[1:] for line in text.splitlines() if line.count(":") >= 2)
    if kernel.is_v2:
        folder = f"{kernel.cgroups}{paths.get('', '/').rstrip('/')}"
        return Cgroup(
            2, paths.get("", "/"), dict.fromkeys(("cpu", "cpuacct", "cpuset", "memory", "pids", "io"), folder), folder
        )
    folders = {
        controller: f"{kernel.cgroups}/{controller}{path.rstrip('/')}"
        for controllers, path in paths.items()
        for controller in controllers.split(",")
        if controller and not controller.startswith("name=")
    }
    unified = f"{kernel.cgroups}/unified{paths.get('', '').rstrip('/')}"
    has_own = container in paths.get("", "") and os.path.isdir(unified)
    return Cgroup(1, paths.get("memory", "/"), folders, unified if has_own else None)


def read_text(path: str | None) -> str | None:
    """Return a file of the kernel, by three system calls; None if it isn't there or can't be read."""
    if path is None:
        return None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        data = os.read(descriptor, 16384)
        while data and len(data) % 16384 == 0 and (more := os.read(descriptor, 16384)):
            data += more
        return data.decode(errors="replace")
    except OSError:
        return None
    finally:
        os.close(descriptor)


def read_number(path: str | None) -> int | None:
    """Return the number that the file holds; None if it holds none, as `max`."""
    text = read_text(path)
    return int(text) if text is not None and text.strip().isdecimal() else None


def value_in(text: str | None, name: str) -> int | None:
    """Return the number behind the name in lines such as `nr_throttled 3`.

    >>> value_in("usage_usec 12\\nnr_throttled 3\\n", "nr_throttled"), value_in("", "nr_throttled")
    (3, None)
    """
    if text is None:
        return None
    at = 0 if text.startswith(f"{name} ") else text.find(f"\n{name} ") + 1
    if not text.startswith(f"{name} ", at):
        return None
    number = text[at + len(name) :].partition("\n")[0].strip()
    return int(number) if number.isdecimal() else None


def pressure_in(text: str | None) -> tuple[float, int] | None:
    """Return the share of the last ten seconds, and the microseconds in all, in which some process waited.

    >>> pressure_in("some avg10=1.50 avg60=0.20 avg300=0.00 total=1234\\nfull avg10=0.00 avg60=0.00 total=7")
    (0.015, 1234)
    """
    if not text or not text.startswith("some "):
        return None
    words = dict(word.partition("=")[::2] for word in text.partition("\n")[0].split()[1:])
    try:
        return round(float(words["avg10"]) / 100, 4), int(words["total"])
    except (KeyError, ValueError):
        return None
