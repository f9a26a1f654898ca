"""The agent's data folder: a few small files, and the key that seals labels.

The agent takes a `Folder` from outside, so that a simulator can tear and lose its writes.
"""

import contextlib
import os
import secrets
from pathlib import Path
from typing import Protocol

from agent.ownership import Ownership


class Folder(Protocol):
    """All methods block for a moment. They raise OSError where the disk does."""

    def ownership(self) -> Ownership:
        """Return the node's seal, made on its first day."""
        ...

    def read(self, name: str) -> bytes:
        """Raises FileNotFoundError."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Write the file whole or not at all, durably, and readable by nobody else."""
        ...

    def move_aside(self, name: str) -> str:
        """Keep a file that can't be read under another name, and return that."""
        ...


class LocalFolder:
    """A folder of this machine's file system."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    def ownership(self) -> Ownership:
        return Ownership.load(self._path)

    def read(self, name: str) -> bytes:
        return (self._path / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        draft = self._path / f"{name}.{secrets.token_hex(4)}"
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path / name)
        finally:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)

    def move_aside(self, name: str) -> str:
        aside = self._path / f"{name}.damaged-{secrets.token_hex(4)}"
        (self._path / name).rename(aside)
        return str(aside)
