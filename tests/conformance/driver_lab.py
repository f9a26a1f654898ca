"""What the driver suite needs of a container manager: drivers, a way to break the manager, and eyes on the real state.

A new driver adds its lab to LABS.
"""

import os
import secrets
import select
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agent.driver import Container, ContainerId, ContainerSpec, ContainerState, Driver, Limits
from agent.drivers.cri import CriDriver
from agent.drivers.docker import DockerDriver
from agent.drivers.local_image import BUSYBOX_IMAGE
from tests.containerd import ContainerdProcess, containerd
from tests.dockerd import DockerdProcess, dockerd
from tests.lab.waiting import wait_until
from tests.oci import oci_rig
from tests.podman import PodmanService, podman

MIB = 1 << 20
SUITE = {"suite": "conformance"}


class Manager(Protocol):
    """A process that can die or hang while containers run."""

    def kill(self) -> None: ...
    def start(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


@dataclass(frozen=True)
class DriverLab:
    """What runs containers, with busybox as its only image; without a manager where there is no such process."""

    netns: str
    cgroup_parent: str
    make_driver: Callable[[float], Driver]  # of a timeout in seconds
    manager: Manager | None = None

    def driver(self, *, timeout_s: float = 10.0) -> Driver:
        return self.make_driver(timeout_s)


def docker_like(daemon: DockerdProcess | PodmanService, *, slowness: float = 1.0) -> DriverLab:
    """Return the lab of what answers as Docker does; `slowness`: how many times as long as a dockerd it may take."""
    return DriverLab(
        daemon.netns,
        daemon.cgroup_parent,
        lambda timeout_s: DockerDriver(daemon.socket, timeout_s=slowness * timeout_s),
        daemon,
    )


def cri_lab_of(daemon: ContainerdProcess) -> DriverLab:
    return DriverLab(
        daemon.netns,
        daemon.cgroup_parent,
        lambda timeout_s: CriDriver(
            daemon.socket,
            log_root=daemon.folder / "logs",
            cgroup_parent=daemon.cgroup_parent,
            timeout_s=timeout_s,
        ),
        daemon,
    )


@asynccontextmanager
async def docker_lab(folder: Path) -> AsyncIterator[DriverLab]:
    async with dockerd(folder) as daemon:
        yield docker_like(daemon)


@asynccontextmanager
async def podman_lab(folder: Path) -> AsyncIterator[DriverLab]:
    async with podman(folder) as service:
        yield docker_like(service, slowness=3.0)


@asynccontextmanager
async def cri_lab(folder: Path) -> AsyncIterator[DriverLab]:
    async with containerd(folder) as daemon:
        yield cri_lab_of(daemon)


@asynccontextmanager
async def crun_lab(folder: Path) -> AsyncIterator[DriverLab]:
    async with oci_rig("crun") as rig:
        yield DriverLab(rig.netns, rig.cgroup_parent, lambda _: rig.driver())


@asynccontextmanager
async def runc_lab(folder: Path) -> AsyncIterator[DriverLab]:
    async with oci_rig("runc") as rig:
        yield DriverLab(rig.netns, rig.cgroup_parent, lambda _: rig.driver())


LABS = {"cri": cri_lab, "docker": docker_lab, "podman": podman_lab, "oci-crun": crun_lab, "oci-runc": runc_lab}
# Which the tests can do without, where apt has none.
PROGRAMS = {"cri": ("containerd", "/usr/lib/cni/bridge"), "podman": ("podman",)}


def shell(script: str, **changes: object) -> ContainerSpec:
    """Return a spec which runs the script on the host's network, the fastest way to start."""
    fields: dict[str, object] = {
        "name": f"t-{secrets.token_hex(4)}",
        "image": BUSYBOX_IMAGE,
        "command": ("sh", "-c", script),
        "args": (),
        "env": {},
        "labels": SUITE,
        "limits": Limits(cpu_m=500, memory_bytes=32 * MIB, pids=32),
        "host_network": True,
    }
    return ContainerSpec(**(fields | changes))  # type: ignore[arg-type]  # the callers' names are checked at run time


@asynccontextmanager
async def tidied(driver: Driver) -> AsyncIterator[Driver]:
    """Remove the suite's containers after the block, and close the driver."""
    try:
        yield driver
        for container in await driver.list_containers(SUITE):
            await driver.remove(container.id)
    finally:
        await driver.close()


async def run(driver: Driver, spec: ContainerSpec) -> ContainerId:
    container = await driver.create(spec)
    await driver.start(container)
    return container


async def look(driver: Driver, container: ContainerId) -> Container:
    found = await driver.inspect(container)
    assert found is not None
    return found


async def ended(driver: Driver, container: ContainerId, *, within_s: float = 20.0) -> Container:
    """Return the container once it has exited."""
    return await wait_until(
        lambda: look(driver, container), within_s, "it has ended", lambda c: c.state is ContainerState.EXITED
    )


async def until(holds: Callable[[], bool], *, within_s: float = 10.0) -> None:
    async def look_again() -> bool:
        return holds()

    await wait_until(look_again, within_s, "what the test looks at")


def wait_for_end(pid: int, *, within_s: float = 10.0) -> None:
    """Return when the process has ended, reaped or not."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([descriptor], [], [], within_s)[0], f"process {pid} still runs"
    finally:
        os.close(descriptor)


def runs(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def cgroup_file(pid: int, controller: str, v1: str, v2: str) -> str:
    """Return what the file says in the process's cgroup: `v1` of the controller's own tree, or `v2` of the one tree."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return Path(f"/sys/fs/cgroup/{controller}{path}/{v1}").read_text().strip()
    return Path(f"/sys/fs/cgroup{path}/{v2}").read_text().strip()


def process_status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def cgroup_path(pid: int, controller: str) -> str:
    lines = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    return next(path for _, controllers, path in lines if controllers in ("", controller))


def say(netns: str, address: str, port: int, text: str = "") -> str:
    """Return what answers on a TCP port, seen from inside that network namespace; "" if nothing does."""
    command = ["nsenter", f"--net=/run/netns/{netns}", "busybox", "nc", "-w", "2", address, str(port)]
    done = subprocess.run(command, input=text.encode(), capture_output=True, timeout=10, check=False)
    return done.stdout.decode()
