"""The cgroup above all of a node's containers, capped at what is allocatable, so that they can't starve the system.

Works with cgroup v1 and v2. Blocking file access, brief: call it by `asyncio.to_thread`. The docker driver hangs each
container's cgroup below it; the kernel then enforces the cap over their sum.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from foundation.logs import Log
from manifests.containers import Resources

ROOT = Path("/sys/fs/cgroup")
PERIOD_US = 100_000
_CONTROLLERS = ("cpu", "memory", "pids")
_log = Log(__name__)


def cap_parent(parent: str, allocatable: Resources, *, root: Path = ROOT) -> bool:
    """Make the cgroup and cap it; False, with one warning, where that isn't possible: containers run all the same."""
    try:
        if is_v2(root):
            _cap_v2(root, _relative(parent), allocatable)
        else:
            _cap_v1(root, _relative(parent), allocatable)
    except OSError as error:
        _log.warning("parent cgroup could not be capped", cgroup=parent, why=str(error))
        return False
    return True


def remove_parent(parent: str, *, root: Path = ROOT) -> None:
    """Remove the cgroup where nothing lives in it; the kernel refuses to remove one with containers.

    In version 1 from all hierarchies: the container manager makes it in more of them than are capped.
    """
    for folder in [root] if is_v2(root) else list(root.iterdir()):
        with contextlib.suppress(OSError):
            (folder / _relative(parent)).rmdir()


def is_v2(root: Path = ROOT) -> bool:
    return (root / "cgroup.controllers").exists()


def has_io_weight(root: Path = ROOT) -> bool:
    """Say whether this kernel shares a disk by weight: with version 2 only where a scheduler or `io.cost` does it."""
    if is_v2(root):
        return any(root.glob("*/io.weight"))
    return any((root / "blkio" / name).exists() for name in ("blkio.weight", "blkio.bfq.weight"))


def _relative(parent: str) -> PurePosixPath:
    path = PurePosixPath(parent.strip("/"))
    if ".." in path.parts or not path.parts:
        raise OSError(f"'{parent}' is no path of a cgroup")
    return path


def _cap_v1(root: Path, parent: PurePosixPath, allocatable: Resources) -> None:
    caps: Mapping[str, Mapping[str, int]] = {
        "memory": {"memory.limit_in_bytes": allocatable.memory_bytes},
        "cpu": {"cpu.cfs_period_us": PERIOD_US, "cpu.cfs_quota_us": allocatable.cpu_m * PERIOD_US // 1000},
        "pids": {"pids.max": allocatable.pids},
    }
    for controller, files in caps.items():
        folder = root / controller / parent
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in files.items():
            (folder / name).write_text(str(value))


def _cap_v2(root: Path, parent: PurePosixPath, allocatable: Resources) -> None:
    folder = root
    for part in parent.parts:  # controllers are passed down from each level to the next
        (folder / "cgroup.subtree_control").write_text(" ".join(f"+{controller}" for controller in _CONTROLLERS))
        folder = folder / part
        folder.mkdir(exist_ok=True)
    (folder / "memory.max").write_text(str(allocatable.memory_bytes))
    (folder / "cpu.max").write_text(f"{allocatable.cpu_m * PERIOD_US // 1000} {PERIOD_US}")
    (folder / "pids.max").write_text(str(allocatable.pids))
