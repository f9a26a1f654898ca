"""The cri driver: containers of containerd or CRI-O, in pods, through the CRI. See agent.driver for the promises.

A container has a pod of its own, which goes with it; one that shares a network has none, and lives in the pod that
holds it. That pod is the sandbox of a group: asked for by SANDBOX_IMAGE, it is told as a container with the pod's id.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path

from agent.cgroups import is_v2
from agent.driver import (
    SANDBOX_IMAGE,
    Attached,
    Container,
    ContainerId,
    ContainerSpec,
    ContainerState,
    DriverInfo,
    ExecResult,
    ExecSpec,
    HeldImage,
    ImageError,
    LogChunk,
    ReadyImage,
    StartError,
)
from agent.drivers import cri_codec as codec
from agent.drivers.container_processes import write_limit
from agent.drivers.cri_attach import start_attached
from agent.drivers.cri_channel import CriChannel
from agent.drivers.cri_events import CriEvents
from agent.drivers.cri_images import CriImages
from agent.drivers.cri_layers import container_layer, holder_layer
from agent.drivers.cri_methods import (
    CONTAINER_STATUS,
    CREATE,
    LIST_CONTAINERS,
    REMOVE,
    REOPEN_LOG,
    START,
    STATUS,
    VERSION,
)
from agent.drivers.cri_pods import CriPods
from agent.drivers.cri_processes import CriProcesses
from agent.drivers.cri_stubs import cri_pb2 as pb
from agent.drivers.docker_words import is_network_gone, start_failure
from agent.drivers.listing import inspect_all
from agent.drivers.log_files import read_log, remove_logs, rotate
from agent.drivers.runtime_attach import attached
from agent.drivers.spec_checks import check_limits, check_mounts
from agent.registries import Registries
from foundation.clock import Clock, SystemClock
from manifests.containers import PullPolicy
from manifests.errors import ConflictError, DriverError, NotFoundError, UnavailableError
from manifests.layers import Layer

CALL_TIMEOUT_S = 10.0
MOST_LOG_BYTES = 10 << 20  # of one file; there are agent.drivers.log_files.OLDER_FILES more


class CriDriver:
    """Implements agent.driver.Driver. One for each runtime; `close` it."""

    def __init__(
        self,
        socket: str | Path,
        *,
        log_root: str | Path,
        cgroup_parent: str = "",
        timeout_s: float = CALL_TIMEOUT_S,
        registries: Registries | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._socket = str(socket)
        self._channel = CriChannel(self._socket, timeout_s=timeout_s)
        self._pods = CriPods(self._channel, self._clock, log_root=str(log_root), cgroup_parent=cgroup_parent)
        self._images = CriImages(self._channel, registries or Registries())
        self._processes = CriProcesses(self._channel, self._clock)
        self._is_v2 = is_v2()
        self._addresses: dict[str, str] = {}  # by container, while it is there
        self._log_files: dict[str, Path] = {}  # by container, while it runs
        self._holder_ends: dict[str, float] = {}  # when a holder was first seen to have ended

    async def close(self) -> None:
        await self._channel.close()

    async def info(self) -> DriverInfo:
        version = await self._channel.call(VERSION, pb.VersionRequest(), "ask for the runtime's version")
        status = await self._channel.call(STATUS, pb.StatusRequest(verbose=True), "ask for the runtime's settings")
        runtimes, is_systemd = codec.runtimes_of(status.info)
        has_network = any(c.type == codec.NETWORK_READY and c.status for c in status.status.conditions)
        attributes = {
            "cgroup.version": "2" if self._is_v2 else "1",
            "cgroup.driver": "systemd" if is_systemd else "cgroupfs",
            "runtimes": ",".join(runtimes),
            "live-restore": "true",  # a shim or conmon holds each container
            "network": "cni" if has_network else "host",
        }
        return DriverInfo("cri", f"{version.runtime_name} {version.runtime_version}", attributes)

    async def ensure_image(self, image: str, policy: PullPolicy) -> ReadyImage:
        """Make the image ready. A holder has the runtime's own image, for which its settings answer."""
        return ReadyImage() if image == SANDBOX_IMAGE else await self._images.ensure(image, policy)

    def pulling(self, image: str) -> str:
        return ""  # the CRI tells nothing of progress

    async def list_images(self) -> Sequence[HeldImage]:
        listed = await self._channel.call(LIST_CONTAINERS, pb.ListContainersRequest(), "list containers")
        used = {ref for container in listed.containers for ref in (container.image.image, container.image_ref)}
        return await self._images.held(used)

    async def remove_image(self, name: str) -> None:
        used = next((image.is_used for image in await self.list_images() if name in (image.id, *image.names)), None)
        if used is None:
            raise NotFoundError(f"there is no image {name}")
        if used:  # the runtime would take it from under the container
            raise ConflictError(f"cannot remove image {name}", why="a container has it")
        await self._images.remove(name)

    async def image_folder(self) -> str:
        return await self._images.folder()

    async def create(self, spec: ContainerSpec) -> ContainerId:
        check_limits(spec)
        codec.check_isolation(spec)
        await asyncio.to_thread(check_mounts, spec)  # the runtime would make an empty folder
        if spec.network_of is not None:
            pod, config = await self._pods.joined(spec)
            return await self._create_in(pod, config, spec)
        pod, config, is_new = await self._pods.run(spec)
        if codec.is_holder(spec):
            return await self._adopted(ContainerId(pod), spec) if not is_new else ContainerId(pod)
        if not is_new and (found := await self._find_in(pod, spec.name)) is not None:
            return await self._adopted(found, spec)
        try:
            return await self._create_in(pod, config, spec)
        except (DriverError, NotFoundError):  # after any other error the next try takes the pod that is there
            with suppress(DriverError, UnavailableError):  # then it is swept away later
                await self._pods.remove(pod)
            raise

    async def _create_in(self, pod: str, config: pb.PodSandboxConfig, spec: ContainerSpec) -> ContainerId:
        container = codec.to_container_config(spec, config, is_v2=self._is_v2)
        request = pb.CreateContainerRequest(pod_sandbox_id=pod, config=container, sandbox_config=config)
        what = f"create container {spec.name}"
        try:
            return ContainerId((await self._channel.call(CREATE, request, what)).container_id)
        except ConflictError as taken:
            if (found := await self._find_in(pod, spec.name)) is None:
                raise UnavailableError(f"cannot {what} now", why=taken.why, fix="Try again.") from taken
            return await self._adopted(found, spec)
        except NotFoundError as missing:
            if is_network_gone(missing.why):
                raise start_failure(spec.name, missing.why) from missing
            fix = "The image was removed since it was pulled: ensure it again."
            raise ImageError(f"cannot {what}", why=missing.why, fix=fix) from missing

    async def _find_in(self, pod: str, name: str) -> ContainerId | None:
        found = await self._pods.containers(pod)
        return next((ContainerId(c.id) for c in found if c.metadata.name == name), None)

    async def _adopted(self, found: ContainerId, spec: ContainerSpec) -> ContainerId:
        """Return the container that has the name already, if it is ours."""
        holder = await self.inspect(found)
        held = holder.labels if holder is not None else {}
        differing = sorted(name for name, value in spec.labels.items() if held.get(name) != value)
        if differing:
            raise DriverError(
                f"cannot create container {spec.name}",
                why=f"container {found[:12]} has that name and other labels ({', '.join(differing)})",
                fix="It is not this allocation's. If it is no one's, remove it with `crictl rm -f` or `rmp -f`.",
            )
        return found

    async def start(self, container: ContainerId) -> None:
        found = await self.inspect(container)
        if found is None:
            raise NotFoundError(f"cannot start container {container[:12]}", why="there is none of that id")
        if found.state is ContainerState.RUNNING:
            return
        if found.state is ContainerState.CREATED and found.error:
            raise start_failure(found.name, found.error)  # its port is taken
        request = pb.ContainerId(container_id=container)
        try:
            await self._channel.call(START, request, f"start container {found.name}", timeout_s=self._pods.slow_s)
        except (DriverError, ConflictError, NotFoundError) as refused:
            if (again := await self.inspect(container)) is not None and again.state is ContainerState.RUNNING:
                return  # another call, whose answer was lost
            failure = start_failure(found.name, refused.why)
            if isinstance(failure, UnavailableError) and is_network_gone(refused.why) and not found.network_of:
                failure = StartError(failure.what, why=refused.why, fix="Its own pod ended before it was started.")
            raise failure from refused
        if not self._is_v2:
            await self._limit_what_the_cri_cannot(container)

    async def _limit_what_the_cri_cannot(self, container: ContainerId) -> None:
        """Set the limits for which the CRI has no word, once the start has made the cgroups of version 1."""
        if (answer := await self._status(container)) is None:
            return
        pid, told = codec.pid_of(answer.info), answer.status.annotations
        if most := told.get(codec.PIDS):
            await asyncio.to_thread(write_limit, pid, container, "pids", "pids.max", int(most))
        if soft := told.get(codec.SOFT_MEMORY):
            await asyncio.to_thread(write_limit, pid, container, "memory", "memory.soft_limit_in_bytes", int(soft))

    async def stop(self, container: ContainerId, *, signal: str, grace_s: float) -> None:
        answer = await self._status(container)
        if answer is None:
            await self._pods.stop(container)  # a holder, which heeds no signal; or nothing
        elif answer.status.state in (pb.CONTAINER_RUNNING, pb.CONTAINER_UNKNOWN):
            await self._processes.stop(container, codec.pid_of(answer.info), signal=signal, grace_s=grace_s)

    async def remove(self, container: ContainerId) -> None:
        answer = await self._status(container)
        pod = codec.pod_of(answer.info) if answer is not None else ""
        if answer is not None and answer.status.annotations[codec.NETWORK].startswith(codec.JOINED):
            with suppress(NotFoundError):
                what = f"remove container {container[:12]}"
                request = pb.ContainerId(container_id=container)
                await self._channel.call(REMOVE, request, what, timeout_s=self._pods.slow_s)
        else:
            await self._pods.remove(pod or container)
        if answer is not None:
            await asyncio.to_thread(_remove_log_files, Path(answer.status.log_path))
        self._addresses.pop(container, None)
        self._log_files.pop(container, None)
        self._holder_ends.pop(container, None)

    async def inspect(self, container: ContainerId) -> Container | None:
        if (answer := await self._status(container)) is None:
            self._log_files.pop(container, None)
            return await self._inspect_holder(container)
        if answer.status.state == pb.CONTAINER_RUNNING:
            self._log_files[container] = Path(answer.status.log_path)
        else:
            self._log_files.pop(container, None)
        return codec.to_container(answer, address=await self._address(answer))

    async def _inspect_holder(self, pod: ContainerId) -> Container | None:
        answer = await self._pods.status(pod)
        if answer is None or answer.status.labels.get(codec.POD_KIND) != codec.HOLDER:
            return None
        ended_s = 0.0
        if answer.status.state != pb.SANDBOX_READY:
            ended_s = self._holder_ends.setdefault(pod, self._clock.wall_s())
        return codec.holder_to_container(answer, ended_s=ended_s)

    async def _status(self, container: str) -> pb.ContainerStatusResponse | None:
        request = pb.ContainerStatusRequest(container_id=container, verbose=True)
        try:
            return await self._channel.call(CONTAINER_STATUS, request, f"look at container {container[:12]}")
        except NotFoundError:
            return None

    async def _address(self, answer: pb.ContainerStatusResponse) -> str:
        """Return the address of a container that runs in a network of its own; its pod keeps it for life."""
        status = answer.status
        if status.annotations.get(codec.NETWORK) != codec.OWN or status.state != pb.CONTAINER_RUNNING:
            return ""
        if status.id not in self._addresses:
            pod = await self._pods.status(codec.pod_of(answer.info))
            if pod is None:
                return ""
            self._addresses[status.id] = pod.status.network.ip
        return self._addresses[status.id]

    async def list_containers(self, labels: Mapping[str, str]) -> Sequence[Container]:
        selector = pb.ContainerFilter(label_selector=labels)
        answer = await self._channel.call(LIST_CONTAINERS, pb.ListContainersRequest(filter=selector), "list containers")
        holders = await self._pods.listed({**labels, codec.POD_KIND: codec.HOLDER})
        ids = [*(c.id for c in answer.containers), *(pod.id for pod in holders)]
        found = await inspect_all(ids, self.inspect)
        await self._keep_order()
        return found

    async def _keep_order(self) -> None:
        """Do what Kubernetes' agent does for a runtime: rotate logs that have grown, and remove forsaken pods."""
        for container in await asyncio.to_thread(_rotated, dict(self._log_files)):
            with suppress(NotFoundError):
                request = pb.ContainerId(container_id=container)
                await self._channel.call(REOPEN_LOG, request, f"reopen the log of container {container[:12]}")
        await self._pods.sweep()

    def events(self, labels: Mapping[str, str]) -> AsyncGenerator[ContainerId, None]:
        """Yield hints from the moment of this call on, even if the first is only asked for later."""
        return CriEvents(self._channel, self._clock).follow(labels, since_s=self._clock.wall_s())

    async def logs(
        self, container: ContainerId, *, follow: bool, tail: int | None, timed: bool = False, since: str = ""
    ) -> AsyncGenerator[LogChunk, None]:
        if (answer := await self._status(container)) is None:
            if await self._inspect_holder(container) is not None:
                return  # a holder writes nothing
            raise NotFoundError(f"cannot read the logs of container {container[:12]}", why="there is none of that id")

        async def has_ended() -> bool:
            now = await self._status(container)
            return now is None or now.status.state == pb.CONTAINER_EXITED

        reader = read_log(
            Path(answer.status.log_path),
            clock=self._clock,
            has_ended=has_ended if follow else None,
            tail=tail,
            timed=timed,
            since=since,
        )
        async with aclosing(reader) as chunks:
            async for chunk in chunks:
                yield chunk

    @asynccontextmanager
    async def attach_exec(self, container: ContainerId, spec: ExecSpec) -> AsyncGenerator[Attached, None]:
        answer = await self._status(container)
        if answer is None or answer.status.state != pb.CONTAINER_RUNNING:
            raise DriverError(
                f"cannot run {spec.command[0]} in container {container[:12]}",
                why="it is not running" if answer is not None else "there is none of that id",
                fix="Only a running container takes commands.",
            )
        process, end = await asyncio.to_thread(start_attached, container, spec)
        async with attached(process, end):
            yield process

    async def layers(self, container: Container) -> Layer:
        answer = await self._status(container.id)
        if answer is None:
            if await self._inspect_holder(container.id) is None:
                raise NotFoundError(f"there is no container {container.id[:12]}")
            return holder_layer(container, socket=self._socket)
        return container_layer(container, answer, socket=self._socket)

    async def execute(self, container: ContainerId, command: Sequence[str], *, timeout_s: float) -> ExecResult:
        """Run a command inside. When its time is up, it is killed with its session, as far as the agent may."""
        answer = await self._status(container)
        if answer is None or answer.status.state != pb.CONTAINER_RUNNING:
            raise DriverError(
                f"cannot run {command[0]} in container {container[:12]}",
                why="it is not running" if answer is not None else "there is none of that id",
                fix="Only a running container takes commands.",
            )
        return await self._processes.execute(container, codec.pid_of(answer.info), command, timeout_s=timeout_s)


def _rotated(files: Mapping[str, Path]) -> list[str]:
    """Rotate the logs that have grown too long, and return whose they are."""
    rotated = []
    for container, path in files.items():
        with suppress(OSError):
            if path.stat().st_size > MOST_LOG_BYTES:
                rotate(path)
                rotated.append(container)
    return rotated


def _remove_log_files(path: Path) -> None:
    with suppress(OSError):
        remove_logs(path)
        path.parent.rmdir()  # the last one of its pod
