"""Which /24 a lab may use: one lock file each, held while the lab lives, so that labs at the same time don't collide.

A lab that was killed leaves its lock file behind, unlocked: the next lab learns there what to sweep.
"""

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.lab.commands import LabError, call

LOCKS = Path("/run/wherry-lab")
PREFIX = "10.99"


@dataclass(frozen=True, slots=True)
class LabName:
    """What names everything of one lab on this machine: namespaces, links, cgroups, and its folder."""

    id: str  # short enough for the name of a link
    folder: str


@dataclass(slots=True)
class Subnet:
    """10.99.`number`.0/24, owned until `release`."""

    number: int
    _descriptor: int

    def address(self, host: int) -> str:
        return f"{PREFIX}.{self.number}.{host}"

    def new_lab_id(self) -> str:
        return f"wl{self.number}x{secrets.token_hex(3)}"

    def record(self, name: LabName) -> None:
        """Leave word of what is about to be made, for the sweep after a crash."""
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps({"id": name.id, "folder": name.folder}).encode(), 0)

    def recorded(self) -> LabName | None:
        text = os.pread(self._descriptor, 4096, 0)
        return LabName(**json.loads(text)) if text else None

    def release(self) -> None:
        _lock_file(self.number).unlink(missing_ok=True)
        os.close(self._descriptor)


def take_subnet() -> Subnet:
    """Return a free /24, the lowest."""
    LOCKS.mkdir(exist_ok=True)
    for number in range(1, 255):
        subnet = _try_lock(number)
        if subnet is None:
            continue
        if not call(["ip", "route", "show", "root", f"{PREFIX}.{number}.0/24"]):
            return subnet
        subnet.release()  # a network of someone else's
    raise LabError(f"no free subnet in {PREFIX}.0.0/16: see {LOCKS} and `ip route`")


def take_stale() -> Iterator[tuple[Subnet, LabName]]:
    """Yield what labs own that were killed, for the caller to remove and then to release."""
    LOCKS.mkdir(exist_ok=True)
    for file in LOCKS.iterdir():
        subnet = _try_lock(int(file.name))
        if subnet is None:
            continue
        name = subnet.recorded()
        if name is not None:
            yield subnet, name
        else:
            subnet.release()


def _lock_file(number: int) -> Path:
    return LOCKS / str(number)


def _try_lock(number: int) -> Subnet | None:
    """Return the subnet, or None when another lab has it. Children don't inherit the descriptor."""
    descriptor = os.open(_lock_file(number), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The owner may have removed the file between our open and our lock: then this lock is worth nothing.
        if _lock_file(number).stat().st_ino == os.fstat(descriptor).st_ino:
            return Subnet(number, descriptor)
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None
