"""The agent's side of a simulated container manager: a Driver whose calls take time, hang, and lose their replies."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import NoReturn, TypeVar

from agent.driver import (
    SANDBOX_IMAGE,
    Container,
    ContainerId,
    ContainerSpec,
    DriverInfo,
    ExecResult,
    HeldImage,
    ImageError,
    LogChunk,
    ReadyImage,
    StartError,
)
from manifests.containers import PullPolicy
from manifests.errors import DriverError, InvalidError, NotFoundError, TimedOutError, UnavailableError
from tests.simulation.crashes import effect
from tests.simulation.loop import carried_out, later
from tests.simulation.runtime import Box, Runtime
from tests.simulation.shell import PROGRAMS, Sleep, Step, Write, steps_of

T = TypeVar("T")
MOST_OUTPUT_BYTES = 4096
KILL_WAIT_S = 10.0
OrderObserver = Callable[[str, str, Box], None]  # stop or remove, the node, and the container that it is ordered for


class SimDriver:
    """One agent's driver; a new agent has a new one."""

    def __init__(
        self, runtime: Runtime, *, timeout_s: float = 10.0, on_order: OrderObserver = lambda kind, node, box: None
    ) -> None:
        self._runtime, self._timeout_s, self._on_order = runtime, timeout_s, on_order

    async def info(self) -> DriverInfo:
        return await self._call(lambda: DriverInfo("simulated", "1", {"cgroup.version": "2"}))

    async def ensure_image(self, image: str, policy: PullPolicy) -> ReadyImage:
        runtime = self._runtime
        if image == SANDBOX_IMAGE:
            await self._call(lambda: runtime.present.add(image))
            return ReadyImage()
        if await self._call(lambda: image in runtime.present) and policy is not PullPolicy.ALWAYS:
            return ReadyImage()
        if policy is PullPolicy.NEVER:
            raise ImageError(f"image {image} is not on this node", fix="Load it, or let it be pulled.")
        await self._call(lambda: None)
        await asyncio.sleep(runtime.pull_s * (0.5 + runtime.rng.random()))
        if image not in runtime.registry:
            raise ImageError(f"cannot pull {image}", why="can't reach the registry", fix="Check the name.")
        await self._call(lambda: runtime.present.add(image))
        return ReadyImage()

    async def list_images(self) -> Sequence[HeldImage]:
        return []

    async def remove_image(self, name: str) -> None:
        raise NotFoundError(f"there is no image {name}")

    async def image_folder(self) -> str:
        return ""

    def pulling(self, image: str) -> str:
        return ""

    async def create(self, spec: ContainerSpec) -> ContainerId:
        limits = spec.limits
        for name in ("cpu_m", "memory_bytes", "pids"):
            if getattr(limits, name) <= 0:
                raise InvalidError(f"container {spec.name} has no limit", why=f"{name.split('_')[0]} 0 is none")
        await effect("driver", before=True)
        box = await self._call(lambda: self._create(spec), may_lose_reply=True)
        await effect("driver", before=False)
        return box.id

    def _create(self, spec: ContainerSpec) -> Box:
        holder = self._runtime.find(spec.name)
        if holder is None:
            if spec.image not in self._runtime.present:
                raise ImageError(f"cannot create container {spec.name}", why=f"no image {spec.image}")
            return self._runtime.create(spec)
        differing = sorted(name for name, value in spec.labels.items() if holder.labels.get(name) != value)
        if differing:
            raise DriverError(f"cannot create container {spec.name}", why=f"another has other {', '.join(differing)}")
        return holder

    async def start(self, container: ContainerId) -> None:
        await effect("driver", before=True)
        await self._call(lambda: self._start(container), may_lose_reply=True)
        await effect("driver", before=False)

    def _start(self, container: ContainerId) -> None:
        box = self._box(container)
        if box.is_running:
            return
        holder = self._runtime.find(box.spec.network_of) if box.spec.network_of else None
        if box.spec.network_of and (holder is None or not holder.is_running):
            raise UnavailableError(f"cannot start {box.spec.name} now", why="its sandbox doesn't run")
        program = box.spec.command[0] if box.spec.command else "sh"
        if program not in PROGRAMS:
            box.error = f"no executable {program}"
            raise StartError(f"cannot start {box.spec.name}", why=box.error)
        network = box.spec.network_of
        if network is not None and ((other := self._runtime.find(network)) is None or not other.is_running):
            raise UnavailableError(f"cannot start {box.spec.name} now", why="what has its network doesn't run")
        if taken := self._runtime.taken_port(box.spec):
            box.error = taken
            raise StartError(f"cannot start {box.spec.name}: {taken}", why=taken)
        self._runtime.start(box)

    async def stop(self, container: ContainerId, *, signal: str, grace_s: float) -> None:
        await effect("driver", before=True)
        if grace_s > 0:
            if not await self._call(lambda: self._signal(container, signal)):
                return
            if await self._ends(container, grace_s):
                return
        await self._call(lambda: self._signal(container, "SIGKILL"))
        if not await self._ends(container, KILL_WAIT_S):
            raise DriverError(f"cannot stop container {container}", why="it still runs")
        await effect("driver", before=False)

    def _signal(self, container: ContainerId, signal: str) -> bool:
        box = self._runtime.find(container)
        if box is None or not box.is_running:
            return False
        self._on_order("stop", self._runtime.node, box)
        self._runtime.signal(box, signal)
        return True

    async def _ends(self, container: ContainerId, within_s: float) -> bool:
        box = self._runtime.find(container)
        if box is None or not box.is_running:
            return True
        ended = asyncio.Event()
        box.watchers.append(ended.set)
        try:
            async with asyncio.timeout(within_s):
                while box.is_running:
                    ended.clear()
                    await ended.wait()
        except TimeoutError:
            return False
        finally:
            box.watchers.remove(ended.set)
        return await self._call(lambda: True)  # the answer comes from the manager

    async def remove(self, container: ContainerId) -> None:
        await effect("driver", before=True)
        await self._call(lambda: self._remove(container), may_lose_reply=True)
        await effect("driver", before=False)

    def _remove(self, container: ContainerId) -> None:
        box = self._runtime.find(container)
        if box is not None:
            self._on_order("remove", self._runtime.node, box)
            self._runtime.remove(box)

    async def inspect(self, container: ContainerId) -> Container | None:
        def look() -> Container | None:
            box = self._runtime.find(container)
            return box.seen() if box else None

        return await self._call(look)

    async def list_containers(self, labels: Mapping[str, str]) -> Sequence[Container]:
        wanted = labels.items()
        return await self._call(lambda: [b.seen() for b in self._runtime.boxes.values() if wanted <= b.labels.items()])

    def events(self, labels: Mapping[str, str]) -> AsyncGenerator[ContainerId, None]:
        """Yield hints from the moment of this call on."""
        runtime = self._runtime
        waiting: list[ContainerId] = []
        moved = asyncio.Event()
        over = [runtime.is_down]

        def hear(box: Box) -> None:
            if labels.items() <= box.labels.items():
                later(runtime.rng.random() * runtime.most_delay_s, arrive, box.id)

        def arrive(container: ContainerId) -> None:
            waiting.append(container)
            moved.set()

        def end() -> None:
            over[0] = True
            moved.set()

        runtime.listeners.append(hear)
        runtime.on_end_of_events.append(end)

        async def hints() -> AsyncGenerator[ContainerId, None]:
            try:
                while True:
                    while waiting and not runtime.is_hung:
                        yield waiting.pop(0)
                    if over[0]:
                        raise UnavailableError("the manager closed its event stream")
                    moved.clear()
                    await moved.wait()
            finally:
                runtime.listeners.remove(hear)
                runtime.on_end_of_events.remove(end)

        return hints()

    async def logs(
        self, container: ContainerId, *, follow: bool, tail: int | None, timed: bool = False, since: str = ""
    ) -> AsyncGenerator[LogChunk, None]:
        box = await self._call(lambda: self._box(container))
        moved = asyncio.Event()
        box.watchers.append(moved.set)
        try:
            at = 0 if tail is None else max(0, len(box.output) - tail)
            while True:
                while at < len(box.output):
                    at += 1
                    written, chunk = box.output[at - 1]
                    if written >= since:
                        yield LogChunk(chunk.stream, f"{written} ".encode() + chunk.data) if timed else chunk
                if not follow or not box.is_running or self._runtime.is_down:
                    return
                moved.clear()
                await moved.wait()
        finally:
            box.watchers.remove(moved.set)

    async def execute(self, container: ContainerId, command: Sequence[str], *, timeout_s: float) -> ExecResult:
        box = await self._call(lambda: self._box(container))
        if not box.is_running:
            raise DriverError(f"cannot run {command[0]}", why="the container is not running", fix="Start it.")
        output, code = bytearray(), 0
        try:
            async with asyncio.timeout(timeout_s):
                for step in self._steps(box, command):
                    match step:
                        case Write(_, data):
                            output += data[: MOST_OUTPUT_BYTES - len(output)]
                        case Sleep(seconds):
                            await asyncio.sleep(seconds)
                        case _:
                            code = getattr(step, "code", code)
        except TimeoutError as late:
            raise TimedOutError(f"{command[0]} did not end within {timeout_s:g} s") from late
        return ExecResult(code, bytes(output))

    @staticmethod
    def _steps(box: Box, command: Sequence[str]) -> list[Step]:
        steps = list(steps_of(tuple(command), box.spec.env))
        return [Sleep(3600.0)] if command[0] == "check" and not box.is_healthy else steps

    async def close(self) -> None:
        pass

    def _box(self, container: ContainerId) -> Box:
        box = self._runtime.find(container)
        if box is None:
            raise NotFoundError(f"there is no container {container}")
        return box

    async def _call(self, work: Callable[[], T], *, may_lose_reply: bool = False) -> T:
        """Ask the manager. A request that it has is carried out, whatever becomes of the agent or of the answer."""
        runtime = self._runtime
        if runtime.is_down:
            self._refuse()
        reply: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def arrive() -> None:
            if runtime.is_down:
                later(0.0, carried_out(self._refuse, reply))
                return
            if runtime.is_hung:
                runtime.held.append(arrive)
                return
            answer = carried_out(work, reply)
            if may_lose_reply and runtime.replies_to_lose:
                runtime.replies_to_lose -= 1
                return
            later(runtime.rng.random() * runtime.most_delay_s, answer)

        later(runtime.rng.random() * runtime.most_delay_s, arrive)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await reply
        except TimeoutError as late:
            raise UnavailableError(f"the manager did not answer within {self._timeout_s:g} s") from late

    def _refuse(self) -> NoReturn:
        raise UnavailableError(f"no simulated manager at {self._runtime.node}", fix="Start it.")
