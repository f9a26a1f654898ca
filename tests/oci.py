"""A folder of the oci driver for a test, with a network namespace and a cgroup of its own, which leaves nothing behind.

async with oci_rig(tmp_path, runtime="crun") as rig:
    driver = rig.driver()
"""

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from agent.drivers.local_image import BUSYBOX_IMAGE
from agent.drivers.oci import OciDriver
from manifests.containers import PullPolicy
from tests.lab.cgroups import hierarchies

END_S = 15.0


class OciRig:
    """What one node of the oci driver has. `images` is where image files may be."""

    def __init__(self, runtime: str = "") -> None:
        self.id = f"wo-{secrets.token_hex(4)}"
        self.netns = self.id
        self.cgroup_parent = f"/{self.id}"
        self.folder = Path(tempfile.mkdtemp(prefix=f"{self.id}-", dir="/tmp"))
        self.images = self.folder / "files"
        self.images.mkdir()
        self.runtime = runtime

    def start(self) -> None:
        subprocess.run(["ip", "netns", "add", self.netns], check=True, capture_output=True)
        subprocess.run(["ip", "-n", self.netns, "link", "set", "lo", "up"], check=True, capture_output=True)

    def driver(self) -> OciDriver:
        return OciDriver(
            self.folder / "oci",
            image_dirs=[self.images],
            runtime=self.runtime,
            cgroup_parent=self.cgroup_parent,
            netns=f"/run/netns/{self.netns}",
        )

    def stop(self) -> None:
        """End all that was started here, whatever state it is in, and delete every trace."""
        deadline = time.monotonic() + END_S
        while (left := set(self._left())) and time.monotonic() < deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        subprocess.run(["ip", "netns", "del", self.netns], check=False, capture_output=True)
        for top in hierarchies():
            for folder, _, _ in os.walk(top / self.id, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
        shutil.rmtree(self.folder, ignore_errors=True)
        assert not left, f"processes {sorted(left)} of {self.id} could not be killed"

    def _left(self) -> Iterator[int]:
        """Yield the shims, which name the folder, and what is in containers, whose cgroups name ours."""
        marks = (str(self.folder).encode(), self.id.encode())
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with contextlib.suppress(OSError):
                    if (entry / "stat").read_bytes().rpartition(b")")[2].split()[0] in (b"Z", b"X"):
                        continue
                    words = (entry / "cmdline").read_bytes() + (entry / "cgroup").read_bytes()
                    if any(mark in words for mark in marks):
                        yield int(entry.name)


@asynccontextmanager
async def oci_rig(runtime: str = "") -> AsyncIterator[OciRig]:
    """Set up a rig that has the image agent.drivers.local_image.BUSYBOX_IMAGE."""
    rig = OciRig(runtime)
    try:
        rig.start()
        driver = rig.driver()
        try:
            await driver.ensure_image(BUSYBOX_IMAGE, PullPolicy.IF_MISSING)
        finally:
            await driver.close()
        yield rig
    finally:
        await asyncio.to_thread(rig.stop)


def runtimes_here() -> list[str]:
    """Return the runtimes that this machine has, of those that tests of every kind run on."""
    return [name for name in ("crun", "runc") if shutil.which(name)]
