"""A real Podman for a test, by its Docker-compatible socket, in a network namespace of its own.

    async with podman(tmp_path) as service:
        driver = DockerDriver(service.socket)

Its storage, its networks and its settings are its own, and are gone with it.
"""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from agent.drivers.docker_api import DockerApi
from manifests.errors import NotFoundError
from tests.daemons import END_S, Daemon, left_processes, until
from tests.images import load_busybox

_SUBNET = "172.31.0.0/24"
# A lock in a file: the one in shared memory belongs to all Podmans of the machine. runc: crun refuses a machine with
# cgroups of both versions. Registries on this machine need no TLS, as with Docker.
_CONTAINERS = """
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
"""
_REGISTRIES = """
unqualified-search-registries = ["docker.io"]
[[registry]]
location = "localhost"
insecure = true
"""
_STORAGE = """
[storage]
driver = "{driver}"
graphroot = "{folder}/data"
runroot = "{folder}/run"
"""


class PodmanService:
    """`podman system service`; its containers live on without it. Methods block. Can what a DockerdProcess can."""

    def __init__(self, logs: Path, *, env: Mapping[str, str] | None = None) -> None:
        self._env = env or {}
        self.daemon = Daemon("wp", logs)
        self.netns, self.cgroup_parent = self.daemon.netns, self.daemon.cgroup_parent
        self.socket = self.daemon.folder / "podman.sock"

    def start(self) -> None:
        """Start it, also after `kill`, and return when it answers."""
        self.socket.unlink(missing_ok=True)
        folder = self.daemon.folder
        networks = folder / "networks"
        networks.mkdir(exist_ok=True)
        (networks / "podman.conflist").write_text(json.dumps(_network(folder)))
        settings = {"containers": _CONTAINERS, "registries": _REGISTRIES}
        settings["storage"] = _STORAGE.format(driver=_storage_driver(), folder=folder)
        env = dict(self._env)
        for name, text in settings.items():
            (folder / f"{name}.conf").write_text(text)
            env[f"CONTAINERS_{name.upper()}_CONF"] = str(folder / f"{name}.conf")
        env["CONTAINERS_CONF"] = env.pop("CONTAINERS_CONTAINERS_CONF")
        command = ["podman", "--tmpdir", f"{folder}/tmp", "--network-config-dir", str(networks), "--log-level", "warn"]
        self.daemon.start([*command, "system", "service", "--time", "0", f"unix://{self.socket}"], self._answers, env)

    def kill(self) -> None:
        self.daemon.end()

    def pause(self) -> None:
        self.daemon.pause()

    def resume(self) -> None:
        """Let it go on, and return when it answers, which takes as long as what was asked of it meanwhile."""
        self.daemon.resume()
        if self.daemon.process is not None and self.daemon.process.poll() is None:
            until(self._answers, END_S, f"Podman did not answer again; see {self.daemon.log}")

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            try:
                connection.connect(str(self.socket))
                connection.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
                return b" 200 " in connection.recv(64)
            except OSError:
                return False

    async def remove_containers(self) -> None:
        api = DockerApi(self.socket, timeout_s=END_S)
        try:
            for container in await api.list_ids({}):
                with contextlib.suppress(NotFoundError):  # went with one whose network it shared
                    await api.remove_with_dependents(container)
        finally:
            await api.close()

    def clean_up(self) -> None:
        """End all that it started; its network namespaces have their names in a folder of the machine."""
        left = left_processes(str(self.daemon.folder), self.cgroup_parent)
        used = {_namespace(Path(f"/proc/{pid}/ns/net")) for pid in left}
        self.daemon.clean_up()
        for name in Path("/run/netns").glob("netns-*"):
            if _namespace(name) in used:
                subprocess.run(["ip", "netns", "del", name.name], check=False, capture_output=True)


@asynccontextmanager
async def podman(logs: Path, *, env: Mapping[str, str] | None = None) -> AsyncIterator[PodmanService]:
    """Run Podman, its log in `logs`, with the image agent.drivers.local_image.BUSYBOX_IMAGE."""
    service = PodmanService(logs, env=env)
    try:
        await asyncio.to_thread(service.start)
        await load_busybox(service.socket)
        yield service
    finally:
        try:
            service.daemon.resume()
            with contextlib.suppress(Exception):  # it may be dead or hung: `clean_up` needs no answer from it
                await service.remove_containers()
        finally:
            service.clean_up()


def is_installed() -> bool:
    return shutil.which("podman") is not None


def _namespace(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_ino
    return 0


def _network(folder: Path) -> dict[str, object]:
    addresses: dict[str, object] = {"type": "host-local", "dataDir": f"{folder}/addresses"}
    addresses |= {"ranges": [[{"subnet": _SUBNET}]], "routes": [{"dst": "0.0.0.0/0"}]}
    bridge = {"type": "bridge", "bridge": "podman0", "isGateway": True, "ipMasq": True, "hairpinMode": True}
    return {
        "cniVersion": "0.4.0",
        "name": "podman",
        "plugins": [{**bridge, "ipam": addresses}, {"type": "portmap", "capabilities": {"portMappings": True}}],
    }


def _storage_driver() -> str:
    """Return `overlay` where /tmp can hold one, else the slow way that works everywhere."""
    kind = subprocess.run(["stat", "-f", "-c", "%T", "/tmp"], capture_output=True, text=True, check=True).stdout.strip()
    return "vfs" if kind == "overlayfs" or os.getuid() else "overlay"
