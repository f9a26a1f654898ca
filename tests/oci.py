"""A folder of the oci driver for a test, with a network namespace and a cgroup of its own, which leaves nothing behind.

async with oci_rig(tmp_path, runtime="crun") as rig:
    driver = rig.driver()
"""

import asyncio
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from agent.drivers.local_image import BUSYBOX_IMAGE
from agent.drivers.oci import OciDriver
from manifests.containers import PullPolicy
from tests.daemons import kill_all, left_processes, remove_cgroups, run


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
        run("ip", "netns", "add", self.netns)
        run("ip", "-n", self.netns, "link", "set", "lo", "up")

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
        left = kill_all(lambda: left_processes(str(self.folder), self.cgroup_parent))
        remove_cgroups(self.cgroup_parent)
        shutil.rmtree(self.folder, ignore_errors=True)
        run("ip", "netns", "del", self.netns)
        assert not left, f"processes {sorted(left)} of {self.id} could not be killed"


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
