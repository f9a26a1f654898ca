"""Configs as files: written before a container is created, mounted read-only into it, gone with its allocation.

One folder for each allocation, below one that only the agent may enter, a file for each mount. The content itself is in
the agent's state file, beside the environments, so an agent that was restarted needs no server to start containers.
Blocking file access, brief: call `write`, `allocations` and `remove` by `asyncio.to_thread`.
"""

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from agent.driver import Mount
from agent.tracked import Tracked
from manifests.errors import InvalidError, UnavailableError

FOLDER = "configs"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,250}[a-z0-9])?")  # of an allocation or a container: no path, and no way up


class ConfigFiles:
    """The folder is made with the first file; until then nothing is touched."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()

    def is_used(self) -> bool:
        """Say whether there may be files: one look at the disk, cheap enough for the loop."""
        return self._folder.exists()

    @staticmethod
    def is_needed(tracked: Tracked) -> bool:
        return any(mount.path is not None for mount in tracked.spec.configs)

    def write(self, tracked: Tracked) -> tuple[Mount, ...]:
        """Write what the container mounts, each file whole or not at all, and return where it is to be seen.

        Raises InvalidError when the server has sent no such content, UnavailableError when the disk refuses.
        """
        folder = self._of(tracked.allocation)
        name = _checked(tracked.name)
        files = [
            (folder / f"{name}-{number}", mount.path, content_of(tracked, mount.name))
            for number, mount in enumerate(tracked.spec.configs)
            if mount.path is not None
        ]
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
            for file, _, content in files:
                _write(file, content.encode())
        except OSError as error:
            raise UnavailableError(
                f"cannot write the configs of {tracked.id}",
                why=f"{error.strerror} ({folder})",
                fix="Make room on the disk that holds the agent's data folder.",
            ) from error
        return tuple(Mount(str(file), path) for file, path, _ in files)

    def allocations(self) -> list[str]:
        """Return those that have files here."""
        with contextlib.suppress(OSError):
            return [folder.name for folder in self._folder.iterdir()]
        return []

    def remove(self, allocations: Iterable[str]) -> None:
        """Remove the files of these; what a container has mounted it keeps while it runs."""
        for allocation in allocations:
            shutil.rmtree(self._of(allocation), ignore_errors=True)

    def _of(self, allocation: str) -> Path:
        return self._folder / _checked(allocation)


def content_of(tracked: Tracked, name: str) -> str:
    """Return a config's content. The error never tells any content."""
    try:
        return tracked.assigned.configs[name]
    except KeyError:
        raise InvalidError(
            f"config {name} is not there",
            why="the server sent no content of it with this allocation",
            fix=f"Apply a Config {name} in the same namespace, and the workload again.",
        ) from None


def config_env(tracked: Tracked) -> Mapping[str, str]:
    """Return the variables whose values are configs."""
    return {mount.env: content_of(tracked, mount.name) for mount in tracked.spec.configs if mount.env is not None}


def _checked(name: str) -> str:
    if _NAME.fullmatch(name) is None or ".." in name:
        raise InvalidError(f"'{name[:80]}' is no name of a folder", fix="Something else than Wherry wrote this record.")
    return name


def _write(file: Path, data: bytes) -> None:
    """Leave a file alone that is right already: a container may have it mounted."""
    with contextlib.suppress(FileNotFoundError):
        if file.read_bytes() == data:
            return
    draft = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o400)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(data)
            opened.flush()
            os.fsync(opened.fileno())
            os.fchmod(opened.fileno(), 0o444)
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)
