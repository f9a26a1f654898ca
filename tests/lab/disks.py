"""Small disks: folders of hosts that a test can fill, and which keep what is in them over the host's power cuts.

A tmpfs is mounted in the test's own mount namespace before the host boots; each boot copies it into the host's.
"""

import errno
import os
from pathlib import Path

from tests.lab.commands import call

_BALLAST = "ballast"
_CHUNK = bytes(64 * 1024)


class SmallDisk:
    """One folder on a file system of its own."""

    def __init__(self, folder: Path, size_bytes: int) -> None:
        self.folder = folder
        self._size_bytes = size_bytes

    def mount(self) -> None:
        self.folder.mkdir(parents=True)
        call(["mount", "-t", "tmpfs", "-o", f"size={self._size_bytes},mode=0700", "lab", str(self.folder)])

    def fill(self) -> None:
        """Leave no room, not for a byte."""
        with (self.folder / _BALLAST).open("ab", buffering=0) as ballast:
            for size in (len(_CHUNK), 1):
                while _could_write(ballast.fileno(), _CHUNK[:size]):
                    pass

    def clear(self) -> None:
        """Take away what filled it; the rest stays."""
        (self.folder / _BALLAST).unlink(missing_ok=True)


def unmount_below(folder: Path) -> None:
    """Unmount everything under the folder; nothing happens where nothing is mounted."""
    points = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for point in reversed([point for point in points if point.startswith(f"{folder}/")]):
        call(["umount", "--lazy", point])


def _could_write(descriptor: int, data: bytes) -> bool:
    try:
        os.write(descriptor, data)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return False
    return True
