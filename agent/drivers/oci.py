"""The oci driver: containers by an OCI runtime (crun, runc, ...) and conmon, without any daemon of a container manager.

All state is in files (agent.drivers.oci_folder); conmon keeps a container alive and writes down how it ended, whether
or not an agent runs. See agent.driver for what each method promises.
"""

import asyncio
import hashlib
import os
import secrets
import shutil
import threading
from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

from agent.cgroups import is_v2
from agent.driver import (
    Attached,
    Container,
    ContainerId,
    ContainerSpec,
    ContainerState,
    DriverInfo,
    ExecResult,
    ExecSpec,
    HeldImage,
    LogChunk,
    ReadyImage,
)
from agent.drivers.oci_ends import Ends
from agent.drivers.oci_exec import execute, start_attached
from agent.drivers.oci_folder import ContainerFolder
from agent.drivers.oci_garbage import held_images, remove_image
from agent.drivers.oci_images import Images
from agent.drivers.oci_inotify import Inotify
from agent.drivers.oci_layers import container_layer
from agent.drivers.oci_logs import read_log, rotate_all
from agent.drivers.oci_network import Network
from agent.drivers.oci_runtime import Runtime, default_of, runtimes
from agent.drivers.oci_start import Starter
from agent.drivers.oci_workers import Workers, unmount
from agent.drivers.pulls import Pulls
from agent.drivers.runtime_attach import attached
from agent.registries import Registries
from foundation.clock import Clock, SystemClock
from foundation.logs import Log
from manifests.containers import PullPolicy
from manifests.errors import DriverError, NotFoundError, UnavailableError
from manifests.layers import Layer

DEFAULT_IMAGE_DIRS = (Path("/var/lib/wherry/images"),)
KILL_WAIT_S = 10.0
ROTATE_EVERY_S = 10.0
_log = Log(__name__)


class OciDriver:
    """Implements agent.driver.Driver. One for each folder; `close` it.

    `netns` is the path of the network namespace that counts as the host's; None: the agent's own. `runtime` names the
    default one; "": the first that works here.
    """

    def __init__(
        self,
        folder: Path,
        *,
        image_dirs: Sequence[Path] = DEFAULT_IMAGE_DIRS,
        runtime: str = "",
        cgroup_parent: str = "/wherry",
        netns: str | None = None,
        registries: Registries | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._folder = folder
        self._containers = folder / "containers"
        self._exits = folder / "exits"
        self._wanted_runtime = runtime
        self._cgroup_parent = cgroup_parent  # of containers whose spec names none
        self._clock = clock or SystemClock()
        self._workers = Workers(netns=netns)
        self._images = Images(folder / "images", image_dirs, registries)
        self._starter: Starter | None = None
        self._opening = asyncio.Lock()
        self._known: dict[ContainerId, ContainerFolder] = {}
        self._locks: Mapping[ContainerId, threading.Lock] = defaultdict(threading.Lock)
        self._pulls = Pulls()
        self._ends = Ends()
        self._inotify = Inotify()
        self._rotating: asyncio.Task[None] | None = None

    async def close(self) -> None:
        if self._rotating is not None:
            self._rotating.cancel()
            with suppress(asyncio.CancelledError):
                await self._rotating
        self._ends.close()
        self._inotify.close()
        self._images.stop_pulls()
        await asyncio.to_thread(self._workers.close)

    async def info(self) -> DriverInfo:
        starter = await self._open()
        installed = {f"runtime.{name}": runtime.version for name, runtime in starter.runtimes.items()}
        attributes = {
            "cgroup.version": "2" if is_v2() else "1",
            "cgroup.driver": "cgroupfs",
            "runtimes": ",".join(sorted(starter.runtimes)),
            "storage": "overlay",
            **installed,
        }
        return DriverInfo("oci", f"{starter.default.name} {starter.default.version}", attributes)

    async def ensure_image(self, image: str, policy: PullPolicy) -> ReadyImage:
        """Make the image ready. Who asks for the same while that goes on shares its result."""

        async def ensure(_: str) -> None:
            await self._workers.run(self._images.ensure, image, policy)

        await self._pulls.once(f"{policy} {image}", ensure)
        digest = await self._workers.run(self._images.digest, image)
        return ReadyImage(digest, bool(digest))  # nobody else pulls into this folder

    async def list_images(self) -> Sequence[HeldImage]:
        await self._open()
        return await self._workers.run(lambda: held_images(self._images, self._all({})))

    async def remove_image(self, name: str) -> None:
        await self._open()
        await self._workers.run(lambda: remove_image(self._images, name, self._all({})))

    async def image_folder(self) -> str:
        return str(self._folder)

    def pulling(self, image: str) -> str:
        return self._images.pulling(image)

    async def create(self, spec: ContainerSpec) -> ContainerId:
        starter = await self._open()
        return await self._workers.run(self._create, starter, spec)

    def _create(self, starter: Starter, spec: ContainerSpec) -> ContainerId:
        container = _id_of(spec.name)
        with self._locks[container]:
            held = self._find(container)
            if held is None:
                starter.check(spec)
                path, parent = self._containers / container, spec.cgroup_parent or self._cgroup_parent
                placed = replace(spec, cgroup_parent=parent)
                held = ContainerFolder.create(path, self._exits, placed, starter.runtime_of(spec).name)
                self._known[container] = held
                return container
        differing = sorted(name for name, value in spec.labels.items() if held.spec.labels.get(name) != value)
        if differing:
            raise DriverError(
                f"cannot create container {spec.name}",
                why=f"container {container[:12]} has that name and other labels ({', '.join(differing)})",
                fix="It is not this allocation's. Is another agent of this data folder at work?",
            )
        return container

    async def start(self, container: ContainerId) -> None:
        starter = await self._open()
        await self._workers.run(self._start, starter, container)
        folder = await self._existing(container)
        self._ends.tell(folder)
        if self._ends.watch(folder) is None:
            self._ends.tell(folder)  # it has ended already

    def _start(self, starter: Starter, container: ContainerId) -> None:
        with self._locks[container]:
            folder = self._find(container)
            if folder is None:
                raise NotFoundError(f"there is no container {container[:12]}")
            if folder.look().state is not ContainerState.CREATED:
                return
            of = folder.spec.network_of
            starter.start(folder, None if of is None else self._find(of))

    async def stop(self, container: ContainerId, *, signal: str, grace_s: float) -> None:
        folder = await self._workers.run(self._find, container)
        if folder is None:
            return
        runtime = (await self._open()).runtime_named(folder.runtime)
        ended = self._ends.watch(folder)
        if ended is None:
            await self._workers.run(self._look, folder)  # kills what is left of a lost one
            return
        if grace_s > 0:
            await self._workers.run(runtime.kill, container, signal)
            if await _is_set(ended, grace_s):
                return
        await self._workers.run(runtime.kill, container, "SIGKILL")
        if not await _is_set(ended, KILL_WAIT_S):
            raise DriverError(
                f"cannot stop container {container[:12]}",
                why=f"it still runs {KILL_WAIT_S:g} s after SIGKILL",
                fix="Its process hangs in the kernel, mostly on a disk or a network mount: look at `dmesg`.",
            )

    async def remove(self, container: ContainerId) -> None:
        starter = await self._open()
        removed = await self._workers.run(self._remove, starter, container)
        if removed is not None:
            self._ends.tell_end(removed)

    def _remove(self, starter: Starter, container: ContainerId) -> ContainerFolder | None:
        with self._locks[container]:
            folder = self._find(container)
            if folder is None:
                return None
            starter.clear(folder)
            unmount(folder.path / "merged")
            trash = folder.path.with_name(f".{secrets.token_hex(8)}")
            folder.path.rename(trash)
            folder.exit_file.unlink(missing_ok=True)
            self._known.pop(container, None)
            shutil.rmtree(trash, ignore_errors=True)
            return folder

    async def remove_network(self) -> None:
        """Remove the node's bridge and rules; containers that run on it are cut off."""
        await self._workers.run((await self._open()).network.tear_down)

    async def inspect(self, container: ContainerId) -> Container | None:
        await self._open()
        return await self._workers.run(self._inspect, container)

    def _inspect(self, container: ContainerId) -> Container | None:
        folder = self._find(container)
        return None if folder is None else self._look(folder)

    def _look(self, folder: ContainerFolder) -> Container:
        """Return the container as it is. What runs on without its shim is killed: nobody would see it end."""
        assert self._starter is not None
        if folder.is_lost():
            folder.kill_rest()
        found = folder.look()
        if found.state is ContainerState.EXITED:
            self._starter.withdraw(folder)
        return found

    async def list_containers(self, labels: Mapping[str, str]) -> Sequence[Container]:
        await self._open()
        folders = await self._workers.run(self._all, labels)
        for folder in folders:
            self._ends.watch(folder)
        return await self._workers.run(lambda: [self._look(folder) for folder in folders])

    def _all(self, labels: Mapping[str, str]) -> list[ContainerFolder]:
        names = [name for name in os.listdir(self._containers) if not name.startswith(".")]
        folders = [self._find(ContainerId(name)) for name in names]
        return [f for f in folders if f is not None and labels.items() <= f.spec.labels.items()]

    def events(self, labels: Mapping[str, str]) -> AsyncGenerator[ContainerId, None]:
        return self._ends.follow(labels)

    async def logs(
        self, container: ContainerId, *, follow: bool, tail: int | None, timed: bool = False, since: str = ""
    ) -> AsyncGenerator[LogChunk, None]:
        folder = await self._existing(container)
        await self._open()
        has_ended = self._ends.watch(folder)
        if has_ended is None:
            has_ended = asyncio.Event()
            if folder.started.exists():
                has_ended.set()
        async for chunk in read_log(
            folder.log,
            follow=follow,
            tail=tail,
            timed=timed,
            since=since,
            inotify=self._inotify,
            has_ended=has_ended,
        ):
            yield chunk

    @asynccontextmanager
    async def attach_exec(self, container: ContainerId, spec: ExecSpec) -> AsyncGenerator[Attached, None]:
        folder = await self._existing(container)
        runtime = (await self._open()).runtime_named(folder.runtime)
        process, end = await self._workers.run(start_attached, runtime, folder, spec)
        async with attached(process, end):
            yield process

    async def execute(self, container: ContainerId, command: Sequence[str], *, timeout_s: float) -> ExecResult:
        folder = await self._existing(container)
        starter = await self._open()
        runtime = starter.runtime_named(folder.runtime)
        return await self._workers.run(execute, runtime, folder, tuple(command), timeout_s)

    async def layers(self, container: Container) -> Layer:
        folder = await self._existing(container.id)
        runtime = (await self._open()).runtime_named(folder.runtime)
        return await self._workers.run(container_layer, folder, runtime, self._images)

    async def _existing(self, container: ContainerId) -> ContainerFolder:
        folder = await self._workers.run(self._find, container)
        if folder is None:
            raise NotFoundError(f"there is no container {container[:12]}")
        return folder

    def _find(self, container: str) -> ContainerFolder | None:
        """Return the container's folder, from memory or from disk; None if there is none."""
        known = self._known.get(ContainerId(container))
        if known is not None and known.path.is_dir():
            return known
        path = self._containers / container
        if container.startswith(".") or "/" in container or not path.is_dir():
            return None
        try:
            found = ContainerFolder.load(path, self._exits)
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("container could not be read", folder=path, why=str(error))
            return None
        self._known[found.id] = found
        return found

    # The first call of each kind opens the folder.

    async def _open(self) -> Starter:
        async with self._opening:
            if self._starter is None:
                self._starter = await self._workers.run(self._prepare)
                self._rotating = asyncio.create_task(self._rotate_logs(), name="rotate-logs")
        return self._starter

    def _prepare(self) -> Starter:
        """Look for what is installed, and clear away what an agent before this one left half done."""
        for needed in (self._containers, self._exits, self._folder / "state"):
            needed.mkdir(parents=True, exist_ok=True, mode=0o700)
        installed = runtimes(self._folder / "state")
        for runtime in installed.values():
            runtime.state.mkdir(exist_ok=True, mode=0o700)
        network = Network(self._folder)
        starter = Starter(self._default(installed), installed, self._images, _conmon(), network)
        for draft in self._containers.glob(".*"):
            unmount(draft / "merged")
            shutil.rmtree(draft, ignore_errors=True)
        found = self._all({})
        network.take_over(folder for folder in found if folder.look().state is ContainerState.RUNNING)
        for folder in found:
            if not folder.started.exists() and not folder.exit_file.exists():
                starter.take_over(folder)
        return starter

    def _default(self, installed: Mapping[str, Runtime]) -> Runtime:
        if self._wanted_runtime:
            if self._wanted_runtime not in installed:
                raise UnavailableError(
                    "cannot run containers by the oci driver",
                    why=f"this node has no runtime {self._wanted_runtime}: it has {', '.join(installed) or 'none'}",
                    fix="Install it, or leave it to the agent which one it takes.",
                )
            return installed[self._wanted_runtime]
        found, refusals = default_of(installed, self._folder / "state")
        if found is None:
            raise UnavailableError(
                "cannot run containers by the oci driver",
                why=refusals or "no OCI runtime is installed",
                fix="Install one (Debian: `apt install crun`), and run the agent as root.",
            )
        if refusals:
            _log.warning("a runtime does not work here", why=refusals, instead=found.name)
        return found

    async def _rotate_logs(self) -> None:
        while True:
            await self._clock.sleep(ROTATE_EVERY_S)
            await self._workers.run(rotate_all, [folder.log for folder in self._ends.running])


async def _is_set(event: asyncio.Event, within_s: float) -> bool:
    try:
        async with asyncio.timeout(within_s):
            await event.wait()
    except TimeoutError:
        return False
    return True


def _id_of(name: str) -> ContainerId:
    """Return the id of the container of that name: long, as ids are found as parts of cgroup paths."""
    return ContainerId(hashlib.sha256(name.encode()).hexdigest())


def _conmon() -> str:
    found = shutil.which("conmon") or shutil.which("conmon", path="/usr/libexec/podman:/usr/local/libexec/podman")
    if found is None:
        raise UnavailableError(
            "cannot run containers by the oci driver",
            why="there is no conmon on this node, which keeps containers alive without the agent",
            fix="Install it (Debian: `apt install conmon`).",
        )
    return found
