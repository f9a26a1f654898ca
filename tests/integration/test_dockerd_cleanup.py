"""The tests' own dockerd leaves nothing behind, in whatever state a test leaves it."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.driver import ContainerSpec, PublishedPort
from agent.drivers.docker import DockerDriver
from tests.conformance.driver_lab import look, run, runs, shell
from tests.dockerd import DockerdProcess, dockerd

pytestmark = pytest.mark.docker
FOREVER = "while :; do sleep 0.1; done"
ENDINGS: dict[str, Callable[[DockerdProcess], None]] = {
    "running": lambda daemon: None,
    "paused": DockerdProcess.pause,
    "killed": DockerdProcess.kill,
}


def traces(daemon: DockerdProcess) -> list[str]:
    """Return what is left of it: processes, mounts, network namespaces, cgroups and folders."""
    commands = [
        (path, path.read_bytes()) for path in Path("/proc").glob("[0-9]*/cmdline") if runs(int(path.parent.name))
    ]
    left = [f"process {path}" for path, command in commands if daemon.id.encode() in command]
    left += [f"mount {line}" for line in Path("/proc/self/mounts").read_text().splitlines() if daemon.id in line]
    folders = [*Path("/sys/fs/cgroup").glob(f"*/{daemon.id}"), *Path("/tmp").glob(f"{daemon.id}*")]
    return left + [str(path) for path in [*folders, Path("/run/netns", daemon.id)] if path.exists()]


def links(netns: str) -> list[str]:
    shown = subprocess.run(["ip", "-n", netns, "-o", "link"], capture_output=True, check=True, text=True).stdout
    return [line.split(": ")[1] for line in shown.splitlines()]


def with_port(port: int) -> ContainerSpec:
    return shell(FOREVER, host_network=False, ports=(PublishedPort(80, port, ""),))


@pytest.mark.parametrize("ending", sorted(ENDINGS))
async def test_nothing_is_left(tmp_path: Path, ending: str) -> None:
    async with dockerd(tmp_path) as daemon:
        driver = DockerDriver(daemon.socket)
        try:
            found = [await look(driver, await run(driver, spec)) for spec in (shell(FOREVER), with_port(18080))]
        finally:
            await driver.close()
        assert traces(daemon)
        ENDINGS[ending](daemon)
    assert traces(daemon) == []
    assert not any(runs(container.pid) for container in found)


async def test_a_given_namespace_stays_without_docker_s_bridge(tmp_path: Path) -> None:
    async with dockerd(tmp_path, bip=None, images=False) as owner:
        async with dockerd(tmp_path, netns=owner.netns, bip="172.30.9.1/24") as guest:
            driver = DockerDriver(guest.socket)
            try:
                assert (await look(driver, await run(driver, with_port(18080)))).address == "172.30.9.2"
            finally:
                await driver.close()
        assert traces(guest) == []
        assert links(owner.netns) == ["lo"]
