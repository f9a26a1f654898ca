"""A real containerd for a test, with its CRI, in a network namespace and with a network of its own.

    async with containerd(tmp_path) as daemon:
        driver = CriDriver(daemon.socket, log_root=..., cgroup_parent=daemon.cgroup_parent)

`has_network` False leaves out the CNI: then there is the host's network alone.
"""

import asyncio
import contextlib
import json
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

import grpc

from agent.driver import SANDBOX_IMAGE
from agent.drivers.cri_methods import STATUS
from agent.drivers.cri_stubs import cri_pb2 as pb
from agent.drivers.local_image import BUSYBOX_IMAGE, busybox_image_tar
from agent.drivers.sandbox_image import sandbox_image_tar
from tests.daemons import Daemon

PLUGINS = Path("/usr/lib/cni")  # where Debian's containernetworking-plugins has them
_SUBNET = "172.29.0.0/24"
_busybox = cache(busybox_image_tar)
_CONFIG = """
version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs"]
[grpc]
  address = "{folder}/containerd.sock"
[ttrpc]
  address = "{folder}/ttrpc.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/{sandbox}"
  restrict_oom_score_adj = true
  disable_tcp_service = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{folder}/registries"
"""


class ContainerdProcess:
    """One containerd; its containers live on without it. Methods block. Can what a DockerdProcess can."""

    def __init__(self, logs: Path, *, has_network: bool = True, env: Mapping[str, str] | None = None) -> None:
        self._env = env
        self.daemon = Daemon("wc", logs)
        self.netns, self.cgroup_parent = self.daemon.netns, self.daemon.cgroup_parent
        self.folder = self.daemon.folder
        self.socket = self.folder / "containerd.sock"
        self._has_network = has_network

    def start(self) -> None:
        """Start it, also after `kill`, and return when it answers."""
        (self.folder / "cni").mkdir(exist_ok=True)
        if self._has_network:
            (self.folder / "cni" / "10-wherry.conflist").write_text(json.dumps(_network(self.folder)))
        config = self.folder / "config.toml"
        config.write_text(_CONFIG.format(folder=self.folder, sandbox=SANDBOX_IMAGE, plugins=PLUGINS))
        self.daemon.start(["containerd", "--config", str(config), "--log-level", "warn"], self._answers, self._env)

    def kill(self) -> None:
        self.daemon.end()

    def pause(self) -> None:
        self.daemon.pause()

    def resume(self) -> None:
        self.daemon.resume()

    def load(self, archive: bytes) -> None:
        """Add the images of a `docker save` archive. The CRI has no call for that."""
        self.ctr("images", "import", "-", given=archive)

    def ctr(self, *arguments: str, given: bytes = b"") -> str:
        command = ["ctr", "--address", str(self.socket), "--namespace", "k8s.io", *arguments]
        done = subprocess.run(command, input=given, capture_output=True, check=True, timeout=60)
        return done.stdout.decode()

    def _answers(self) -> bool:
        """Ask its CRI, which is ready a moment later than the rest."""
        with grpc.insecure_channel(f"unix:{self.socket}") as channel:
            ask = channel.unary_unary(STATUS.path, STATUS.request.SerializeToString, STATUS.response.FromString)
            try:
                ask(pb.StatusRequest(), timeout=2)
            except grpc.RpcError:
                return False
        return True

    def end_containers(self) -> None:
        """Have the daemon itself take down what it can: networks, mounts."""
        for container in self.ctr("tasks", "ls", "-q").split():
            self.ctr("tasks", "kill", "-s", "SIGKILL", container)


@asynccontextmanager
async def containerd(
    logs: Path, *, has_network: bool = True, env: Mapping[str, str] | None = None
) -> AsyncIterator[ContainerdProcess]:
    """Run a containerd, its log in `logs`, with the images BUSYBOX_IMAGE and SANDBOX_IMAGE."""
    process = ContainerdProcess(logs, has_network=has_network, env=env)
    try:
        await asyncio.to_thread(process.start)
        for archive in (_busybox(BUSYBOX_IMAGE), sandbox_image_tar(SANDBOX_IMAGE)):
            await asyncio.to_thread(process.load, archive)
        yield process
    finally:
        try:
            process.resume()
            with contextlib.suppress(Exception):  # it may be dead or hung: `clean_up` needs no answer from it
                await asyncio.to_thread(process.end_containers)
                process.daemon.end(signal.SIGTERM)
        finally:
            process.daemon.clean_up()


def is_installed() -> bool:
    return shutil.which("containerd") is not None and (PLUGINS / "bridge").exists()


def _network(folder: Path) -> dict[str, object]:
    addresses = {"type": "host-local", "dataDir": f"{folder}/addresses", "ranges": [[{"subnet": _SUBNET}]]}
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": True, "hairpinMode": True}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {
        "cniVersion": "0.4.0",
        "name": "wherry",
        "plugins": [{**bridge, "ipam": {**addresses, "routes": [{"dst": "0.0.0.0/0"}]}}, ports],
    }
