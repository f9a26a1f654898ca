"""The volumes of this node: named ones, kept below the agent's data folder, and paths that its operator allows.

One folder for each namespace, and in it one for each named volume, which stays until somebody removes it. `prepare` and
`remove` access the disk and block: call them by `asyncio.to_thread`.
"""

import contextlib
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from agent.driver import Mount
from agent.tracked import Tracked
from manifests.errors import InvalidError, UnavailableError
from manifests.volumes import VolumeSpec
from manifests.workloads import volume_of

FOLDER = "volumes"
_ID = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?/[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
# Never, whatever an operator allows: what is the kernel's, sockets of daemons, and what container managers keep.
_NEVER = tuple(
    map(
        Path,
        (
            *("/proc", "/sys", "/dev", "/run", "/var/run"),
            *("/var/lib/docker", "/var/lib/containerd", "/var/lib/containers", "/var/lib/kubelet", "/var/lib/etcd"),
        ),
    )
)


class Volumes:
    """`forbidden` are paths that no container may see, nor a parent of them: the agent's own, the manager's socket."""

    def __init__(self, folder: Path, forbidden: Iterable[Path], on_change: Callable[[], None]) -> None:
        self._folder = folder.absolute()
        self._forbidden = (self._folder.parent, *forbidden, *_NEVER)
        self._on_change = on_change
        self._ids = set(_found(self._folder))

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(sorted(self._ids))

    def prepare(self, tracked: Tracked) -> tuple[Mount, ...]:
        """Make what is missing of the container's volumes, and return where they are to be seen.

        Raises InvalidError for a path of the host that isn't there or can't be had.
        """
        volumes = {volume.name: volume for volume in tracked.assigned.workload.spec.volumes}
        mounts = []
        for mount in tracked.spec.mounts:
            volume = volumes[mount.volume]
            source = self._named(tracked, volume) if volume.named else self._host(tracked, volume)
            mounts.append(Mount(str(source), mount.path, mount.read_only))
        return tuple(mounts)

    def note(self) -> None:
        """Take in what is there now, and say so where it has changed. Brief: call it on the loop."""
        found = set(_found(self._folder))
        if found != self._ids:
            self._ids = found
            self._on_change()

    def remove(self, volume: str) -> None:
        """Remove a named volume with all that is in it. Who calls this knows that nothing uses it."""
        folder = self._folder / _checked(volume)
        doomed = folder.with_name(f".{folder.name}")  # it is gone at once, whole
        with contextlib.suppress(FileNotFoundError):
            folder.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)
        with contextlib.suppress(OSError):
            folder.parent.rmdir()  # the last one of its namespace

    def _named(self, tracked: Tracked, volume: VolumeSpec) -> Path:
        workload = tracked.assigned.workload
        folder = self._folder / _checked(volume_of(workload, str(volume.named), tracked.assigned.allocation.index))
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.parent.mkdir(mode=0o700, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                folder.chmod(0o777)  # for whatever user runs in the container; on the host nobody else comes in here
        except OSError as error:
            raise UnavailableError(
                f"cannot make volume {volume.named} of {tracked.id}",
                why=f"{error.strerror} ({folder})",
                fix="Make room on the disk that holds the agent's data folder.",
            ) from error
        return folder

    def _host(self, tracked: Tracked, volume: VolumeSpec) -> Path:
        path = Path(str(volume.host))
        if refusal := refusal_of(path, self._forbidden):
            raise InvalidError(
                f"cannot give volume {volume.name} to {tracked.id}",
                why=f"{path} {refusal}",
                fix="Choose another path, or have the node's operator make this one.",
            )
        return path


def refusal_of(path: Path, forbidden: Sequence[Path]) -> str:
    """Return why a path of the host can't be had, "" if it can. No part of it may be a link, which leads elsewhere."""
    near = next((f for f in forbidden if path == f or path in f.parents or f in path.parents), None)
    if near is not None:
        return f"is, holds or is in {near}, which no container may see"
    real = os.path.realpath(path)
    if real != str(path):
        return f"has a link in it: it is {real}"
    try:
        mode = os.lstat(path).st_mode
    except OSError as error:
        return f"can't be had: {error.strerror}"
    return "" if stat.S_ISDIR(mode) or stat.S_ISREG(mode) else "is neither a folder nor a file"


def _checked(volume: str) -> str:
    if _ID.fullmatch(volume) is None:
        raise InvalidError(
            f"'{volume[:80]}' is no name of a volume", fix="Something else than Wherry wrote this record."
        )
    return volume


def _found(folder: Path) -> list[str]:
    with contextlib.suppress(OSError):
        spaces = [space for space in folder.iterdir() if space.is_dir()]
        return [id_ for space in spaces for v in space.iterdir() if _ID.fullmatch(id_ := f"{space.name}/{v.name}")]
    return []
