"""How the oci driver brings a container up, and takes away what it held. Blocks: for threads of oci_workers."""

import json
import os
import socket
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agent.cgroups import is_v2
from agent.driver import SANDBOX_IMAGE, ContainerSpec, ContainerState, ImageError, StartError
from agent.drivers.oci_bundle import Around, Device, bundle_config, command_of, user_of
from agent.drivers.oci_folder import ContainerFolder
from agent.drivers.oci_images import Image, Images
from agent.drivers.oci_network import Network
from agent.drivers.oci_runtime import Runtime
from agent.drivers.oci_workers import mount_overlay, unmount
from agent.drivers.spec_checks import check_limits, check_mounts
from manifests.errors import InvalidError, UnavailableError, WherryError

_MOST_ACCOUNT_BYTES = 1 << 20
_RESOLVERS = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))


@dataclass(frozen=True, slots=True)
class Starter:
    default: Runtime
    runtimes: Mapping[str, Runtime]
    images: Images
    conmon: str
    network: Network

    def runtime_of(self, spec: ContainerSpec) -> Runtime:
        """Return the runtime for a new container. Raises DriverError if the node doesn't have the one it names."""
        if not spec.runtime or spec.image == SANDBOX_IMAGE:
            return self.default
        if spec.runtime not in self.runtimes:
            raise StartError(
                f"cannot start container {spec.name}: this node has no runtime {spec.runtime}",
                why=f"it has {', '.join(self.runtimes)}",
                fix="Install it on the node, and restart the agent.",
            )
        return self.runtimes[spec.runtime]

    def runtime_named(self, name: str) -> Runtime:
        """Return the runtime that a container has. Raises UnavailableError if it was removed from the node since."""
        if name in self.runtimes:
            return self.runtimes[name]
        raise UnavailableError(
            f"cannot reach containers of runtime {name}",
            why="it is no longer installed on this node",
            fix="Install it again.",
        )

    def check(self, spec: ContainerSpec) -> None:
        """Raise what stands against creating the container."""
        check_limits(spec)
        check_mounts(spec)
        command_of(spec, self._image(spec))

    def start(self, folder: ContainerFolder, holder: ContainerFolder | None) -> None:
        """Bring the container up; `holder` is the one in whose network it lives. Raises StartError with the reason."""
        spec, runtime = folder.spec, self.runtime_named(folder.runtime)
        network = self._network(spec, holder)
        self.clear(folder)  # of a start that was broken off
        try:
            image = self._image(spec)
            self._mount(folder, image)
            hostname = _hostname(spec, holder)
            address = "127.0.1.1" if holder is None else holder.look().address or "127.0.1.1"
            config = bundle_config(spec, image, self._around(folder, image, network, hostname, address))
            folder.config.write_text(json.dumps(config))
            runtime.create(folder, self.conmon)
            if network == "":
                address = self.network.attach(folder, int(folder.pid_file.read_text()))
                write_hosts(folder.path, hostname, address)  # the file that the container has seen since its creation
            runtime.start(folder)
        except WherryError as error:
            self.clear(folder)
            folder.fail(error.why or error.what)
            raise
        folder.started.touch()
        folder.error.unlink(missing_ok=True)

    def take_over(self, folder: ContainerFolder) -> None:
        """Settle what another agent left between create and start: it is started, or as if that never began."""
        if not folder.pid_file.exists():
            return
        if self.runtime_named(folder.runtime).status(folder.id) in ("running", "stopped"):
            folder.started.touch()
        else:
            self.clear(folder)

    def clear(self, folder: ContainerFolder) -> None:
        """Kill and forget all that runs of the container."""
        if not folder.pid_file.exists() and not folder.shim_pid_file.exists():
            return
        self.withdraw(folder)
        with suppress(UnavailableError):
            self.runtime_named(folder.runtime).delete(folder)
        folder.kill_rest()
        folder.forget_run()

    def withdraw(self, folder: ContainerFolder) -> None:
        """Give back the container's address and ports."""
        if folder.network.exists():
            self.network.withdraw(folder)

    def _image(self, spec: ContainerSpec) -> Image:
        image = self.images.find(spec.image)
        if image is None:
            raise ImageError(
                f"cannot create container {spec.name}",
                why=f"image {spec.image} is not on this node",
                fix="Ensure it first: it may have been removed since.",
            )
        return image

    def _mount(self, folder: ContainerFolder, image: Image) -> None:
        merged = folder.path / "merged"
        self.images.layers.mkdir(parents=True, exist_ok=True)  # a folder's image has none there
        unmount(merged)
        folder.note_layers(image.layers)
        try:
            mount_overlay(image.layers, folder.path / "upper", folder.path / "work", merged, inside=self.images.layers)
        except OSError as error:
            raise StartError(
                f"cannot start container {folder.spec.name}: its file system can't be mounted",
                why=str(error),
                fix="The agent's data folder must be on a file system for overlayfs, such as ext4 or xfs.",
            ) from error

    def _network(self, spec: ContainerSpec, holder: ContainerFolder | None) -> str | None:
        """Return the path of the network namespace to join, "" for a new one, None for the host's."""
        if spec.network_of is not None:
            found = None if holder is None else holder.look()
            if found is None or found.state is not ContainerState.RUNNING or holder is None:
                raise UnavailableError(
                    f"cannot start container {spec.name} now",
                    why=f"container {spec.network_of[:12]}, which holds its network, does not run",
                    fix="It is made anew, and then this one.",
                )
            return None if holder.spec.host_network else f"/proc/{found.pid}/ns/net"
        return None if spec.host_network else ""

    def _around(
        self, folder: ContainerFolder, image: Image, network: str | None, hostname: str, address: str
    ) -> Around:
        spec, root = folder.spec, folder.path / "merged"
        top = Path("/") if image.binds else root
        try:
            user = user_of(spec.user or image.user, _account_file(top, "passwd"), _account_file(top, "group"))
            devices = [_device(path) for path in spec.devices]
        except InvalidError as error:
            raise StartError(
                f"cannot start container {spec.name}: {error.what}", why=error.why or error.what, fix=error.fix
            ) from error
        return Around(
            root=root,
            user=user,
            hostname=hostname,
            cgroup=folder.cgroup,
            network=network,
            files=_network_files(folder, hostname, address, is_host=network is None),
            devices=devices,
            has_cgroup_v2=is_v2(),
            # Not the agent's own, which may be spared: a container isn't. To lower it needs rights that not all have.
            oom_score=max(0, int(Path("/proc/self/oom_score_adj").read_text())),
        )


def _hostname(spec: ContainerSpec, holder: ContainerFolder | None) -> str:
    """Return the container's name of itself: that of who holds its network, if somebody does."""
    if holder is not None:
        return _hostname(holder.spec, None)
    return spec.hostname or (socket.gethostname() if spec.host_network else spec.name[-63:].lstrip("-."))


def _network_files(folder: ContainerFolder, hostname: str, address: str, *, is_host: bool) -> list[tuple[Path, str]]:
    """Write the files that tell the container of its network, and return them with their places inside."""
    hosts, name, resolver = (folder.path / file for file in ("hosts", "hostname", "resolv.conf"))
    name.write_text(f"{hostname}\n")
    write_hosts(folder.path, hostname, address, is_host=is_host)
    resolver.write_text(_resolver(is_host=is_host))
    return [(hosts, "/etc/hosts"), (name, "/etc/hostname"), (resolver, "/etc/resolv.conf")]


def write_hosts(folder: Path, hostname: str, address: str, *, is_host: bool = False) -> None:
    """Write, in place, which names the container knows by itself: its own, and on the host's network the host's."""
    names = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"
    if is_host:
        with suppress(OSError):
            names = Path("/etc/hosts").read_text()
    (folder / "hosts").write_text(f"{names.rstrip()}\n{address} {hostname}\n")


def _resolver(*, is_host: bool) -> str:
    """Return who is asked for names: as on the host, but not one that listens on the host's loopback only."""
    for file in _RESOLVERS:
        with suppress(OSError):
            text = file.read_text()
            servers = [line.split()[1] for line in text.splitlines() if line.startswith("nameserver ")]
            if is_host or not any(server.startswith("127.") for server in servers):
                return text
    return ""


def _account_file(root: Path, name: str) -> str:
    """Return the image's /etc/passwd or /etc/group, "" if it has none; no link is followed, as it might lead out."""
    etc = root / "etc"
    if etc.is_symlink():
        return ""
    try:
        descriptor = os.open(etc / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, errors="replace") as file:
            return file.read(_MOST_ACCOUNT_BYTES)
    except OSError:
        return ""


def _device(path: str) -> Device:
    """Return a device of the host. Raises InvalidError if it isn't one."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise InvalidError(f"this node has no device {path}", why=error.strerror or str(error)) from error
    if not stat.S_ISCHR(found.st_mode) and not stat.S_ISBLK(found.st_mode):
        raise InvalidError(f"{path} is no device", fix="Correct the agent's `--device`.")
    kind = "c" if stat.S_ISCHR(found.st_mode) else "b"
    return Device(path, kind, os.major(found.st_rdev), os.minor(found.st_rdev))
