"""The docker driver: containers of one dockerd, or Podman, through Docker's API. See agent.driver for the promises."""

import asyncio
import os
import signal as signals
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
    DriverInfo,
    ExecResult,
    ExecSpec,
    HeldImage,
    ImageError,
    LogChunk,
    ReadyImage,
)
from agent.drivers.docker_api import CALL_TIMEOUT_S, DEFAULT_SOCKET, PULL_IDLE_S, DockerApi
from agent.drivers.docker_attach import attached_exec
from agent.drivers.docker_codec import Json, to_container, to_create_body, to_held_image
from agent.drivers.docker_engine import DockerEngine, Engine
from agent.drivers.docker_layers import container_layer
from agent.drivers.docker_words import is_network_gone, start_failure
from agent.drivers.listing import inspect_all
from agent.drivers.podman import PodmanEngine, is_podman
from agent.drivers.pull_progress import PullProgress
from agent.drivers.pulls import Pulls
from agent.drivers.sandbox_image import sandbox_image_tar
from agent.references import digest_of
from agent.registries import Registries
from foundation.clock import Clock, SystemClock
from manifests.containers import PullPolicy
from manifests.errors import ConflictError, DriverError, NotFoundError, TimedOutError, UnavailableError
from manifests.layers import Layer

MOST_OUTPUT_BYTES = 4096
KILL_WAIT_S = 10.0
_EXEC_POLL_S = 0.02
ADOPT_TRIES = 20
ADOPT_PAUSE_S = 0.1


class DockerDriver:
    """Implements agent.driver.Driver. One for each dockerd or Podman; `close` it."""

    def __init__(
        self,
        socket: str | Path = DEFAULT_SOCKET,
        *,
        timeout_s: float = CALL_TIMEOUT_S,
        pull_idle_s: float = PULL_IDLE_S,
        registries: Registries | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._socket = str(socket)
        self._api = DockerApi(socket, timeout_s=timeout_s, pull_idle_s=pull_idle_s)
        self._clock = clock or SystemClock()
        self._pulls = Pulls()
        self._progress: dict[str, PullProgress] = {}  # of pulls under way
        self._registries = registries or Registries()
        self._found: Engine | None = None
        self._is_v2 = is_v2()

    async def close(self) -> None:
        if self._found is not None:
            self._found.close()
        await self._api.close()

    async def _engine(self) -> Engine:
        """Return what is special about the engine behind the socket, which the first call finds out."""
        if self._found is None:
            version = await self._api.version()
            if self._found is None:  # else another call was faster
                self._found = PodmanEngine(self._api, self._clock) if is_podman(version) else DockerEngine(self._api)
        return self._found

    async def info(self) -> DriverInfo:
        return await (await self._engine()).info(await self._api.version())

    async def ensure_image(self, image: str, policy: PullPolicy) -> ReadyImage:
        """Make the image ready. ALWAYS asks the registry, but for a digest, which can't have changed, and fails with
        it: to run a copy that may be stale, unasked, would be the worse surprise.
        """
        found = await self._api.image(image)
        if image == SANDBOX_IMAGE:
            if found is None:
                await self._api.load(await asyncio.to_thread(sandbox_image_tar, image))
            return ReadyImage()
        if found is not None and (policy is not PullPolicy.ALWAYS or "@" in image):
            return ReadyImage(digest_of(image, found.get("RepoDigests") or ()))
        if policy is PullPolicy.NEVER:
            raise ImageError(
                f"image {image} is not on this node",
                why="the policy `never` forbids to pull it",
                fix="Load it on the node (`docker load`), or use the policy `ifMissing`.",
            )
        await self._pulls.once(image, self._pull)
        pulled = await self._api.image(image) or {}
        is_new = found is None or found.get("Id") != pulled.get("Id")
        return ReadyImage(digest_of(image, pulled.get("RepoDigests") or ()), is_new)

    async def _pull(self, image: str) -> None:
        access = await asyncio.to_thread(self._registries.access, image)
        progress = self._progress[image] = PullProgress()
        try:
            await self._api.pull(image, access, progress)
        finally:
            del self._progress[image]

    def pulling(self, image: str) -> str:
        progress = self._progress.get(image)
        return progress.sentence() if progress is not None else ""

    async def list_images(self) -> Sequence[HeldImage]:
        images, used = await self._api.list_images(), await self._api.list_used_images()
        held = [to_held_image(image, used) for image in images]
        return [image for image in held if not {SANDBOX_IMAGE, f"localhost/{SANDBOX_IMAGE}"} & set(image.names)]

    async def remove_image(self, name: str) -> None:
        await self._api.remove_image(name)

    async def image_folder(self) -> str:
        return str((await self._api.info())["DockerRootDir"])

    async def create(self, spec: ContainerSpec) -> ContainerId:
        body = await (await self._engine()).check_create(spec, to_create_body(spec, cgroup_v2=self._is_v2))
        try:
            return ContainerId(await self._api.create(spec.name, body))
        except ConflictError:
            return await self._adopt(spec)
        except NotFoundError as missing:
            if spec.network_of is not None and is_network_gone(missing.why):
                raise start_failure(spec.name, missing.why) from missing
            raise ImageError(
                f"cannot create container {spec.name}",
                why=missing.why,
                fix="The image was removed since it was pulled: ensure it again.",
            ) from missing

    async def _adopt(self, spec: ContainerSpec) -> ContainerId:
        """Return the container that has the name already. Its image may have added labels: ours need only be there."""
        holder = await self.inspect(ContainerId(spec.name))
        for _ in range(ADOPT_TRIES):
            if holder is not None:
                break
            await self._clock.sleep(ADOPT_PAUSE_S)  # docker holds the name before the container can be seen
            holder = await self.inspect(ContainerId(spec.name))
        if holder is None:
            raise UnavailableError(
                f"cannot create container {spec.name} now",
                why="docker holds its name for one that is just being created or removed",
                fix="Try again.",
            )
        differing = sorted(name for name, value in spec.labels.items() if holder.labels.get(name) != value)
        if differing:
            raise DriverError(
                f"cannot create container {spec.name}",
                why=f"container {holder.id[:12]} has that name and other labels ({', '.join(differing)})",
                fix=f"It is not this allocation's. If it is no one's, remove it: `docker rm -f {spec.name}`.",
            )
        return holder.id

    async def start(self, container: ContainerId) -> None:
        try:
            await (await self._engine()).start(container)
        except UnavailableError:
            raise
        except (NotFoundError, ConflictError, DriverError) as refused:
            found = await self.inspect(container)  # 404 also stands for a command that isn't there
            if found is None:
                raise
            raise start_failure(found.name, refused.why) from refused

    async def stop(self, container: ContainerId, *, signal: str, grace_s: float) -> None:
        """Stop it by signal, wait, SIGKILL: the API's own stop takes neither a signal nor parts of a second in 1.41."""
        with suppress(NotFoundError, ConflictError):  # gone, or not running
            if grace_s > 0:
                await self._api.kill(container, signal)
                if await self._api.wait(container, timeout_s=grace_s):
                    return
            await self._api.kill(container, "SIGKILL")
            if not await self._api.wait(container, timeout_s=KILL_WAIT_S):
                raise DriverError(
                    f"cannot stop container {container[:12]}",
                    why=f"it still runs {KILL_WAIT_S:g} s after SIGKILL",
                    fix="Its process hangs in the kernel, mostly on a disk or a network mount: look at `dmesg`.",
                )

    async def remove(self, container: ContainerId) -> None:
        with suppress(NotFoundError, ConflictError):  # gone, or another call is removing it
            await (await self._engine()).remove(container)

    async def inspect(self, container: ContainerId) -> Container | None:
        engine = await self._engine()
        try:
            return engine.completed(to_container(await self._api.inspect(container)))
        except NotFoundError:
            return None

    async def list_containers(self, labels: Mapping[str, str]) -> Sequence[Container]:
        return await inspect_all(await self._api.list_ids(labels), self.inspect)

    def events(self, labels: Mapping[str, str]) -> AsyncGenerator[ContainerId, None]:
        """Yield hints from the moment of this call on, even if the first is only asked for later."""
        return self._events(labels, since_s=self._clock.wall_s())

    async def _events(self, labels: Mapping[str, str], since_s: float) -> AsyncGenerator[ContainerId, None]:
        hints = (await self._engine()).hints
        async with aclosing(self._api.events(labels, hints, since_s)) as events:
            async for event in events:
                yield ContainerId(event["Actor"]["ID"])

    async def logs(
        self, container: ContainerId, *, follow: bool, tail: int | None, timed: bool = False, since: str = ""
    ) -> AsyncGenerator[LogChunk, None]:
        engine = await self._engine()
        log = engine.logs(container, follow=follow, tail=tail, timed=timed, since=since)
        async with aclosing(log) as chunks:
            async for chunk in chunks:
                yield chunk

    async def layers(self, container: Container) -> Layer:
        inspected = await self._api.inspect(container.id)
        image = await self._api.image(str(inspected["Image"])) or {}  # removed by force while it runs
        return container_layer(inspected, image, socket=self._socket)

    async def execute(self, container: ContainerId, command: Sequence[str], *, timeout_s: float) -> ExecResult:
        """Run a command inside. When its time is up, it is killed with its session, as far as the agent may."""
        execution, output = "", bytearray()
        try:
            async with asyncio.timeout(timeout_s):
                execution = await self._api.exec_create(container, list(command))
                async with aclosing(self._api.exec_output(execution)) as chunks:
                    async for chunk in chunks:
                        output += chunk.data[: MOST_OUTPUT_BYTES - len(output)]
                while (ended := await self._api.exec_inspect(execution))["Running"]:
                    await self._clock.sleep(_EXEC_POLL_S)  # the output closes a moment before
        except ConflictError as refused:
            raise DriverError(
                refused.what, why=refused.why, fix="It is not running: only a running container takes commands."
            ) from refused
        except TimeoutError as late:
            if not execution:  # a dockerd that hangs must not count as a failed health check
                raise UnavailableError(
                    f"cannot run {command[0]} in container {container[:12]}",
                    why=f"docker did not prepare it within {timeout_s:g} s",
                    fix="Look at dockerd and at the load of this node.",
                ) from late
            _kill_session(await self._api.exec_inspect(execution))
            raise TimedOutError(
                f"{command[0]} in container {container[:12]} did not end within {timeout_s:g} s",
                why=f"it had written {len(output)} bytes",
                fix="Raise the check's `timeout`, or make the command faster.",
            ) from late
        return ExecResult(int(ended["ExitCode"]), bytes(output))

    @asynccontextmanager
    async def attach_exec(self, container: ContainerId, spec: ExecSpec) -> AsyncGenerator[Attached, None]:
        async with attached_exec(self._api, container, spec, self._clock, kill=_kill_session) as attached:
            yield attached


def _kill_session(execution: Json) -> None:
    """Kill a command that was left running in a container: the API has no call for it.

    The runtime makes it the leader of a session of its own, so that its process group holds its children too. The
    cgroup tells whether the pid means the same process to the agent as to dockerd.
    """
    pid = int(execution["Pid"])
    if not execution["Running"] or pid <= 1:
        return
    with suppress(OSError):
        if execution["ContainerID"] in Path(f"/proc/{pid}/cgroup").read_text() and os.getsid(pid) == pid:
            os.killpg(pid, signals.SIGKILL)
