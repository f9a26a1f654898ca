"""A simulated container manager: containers that live, end and hold ports on a node, and what goes wrong with it.

It is part of the world: it goes on whatever becomes of the agent. `tests.simulation.driver` is the agent's side.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from agent.driver import Container, ContainerId, ContainerSpec, ContainerState, LogChunk
from foundation.clock import Clock
from tests.simulation.loop import later
from tests.simulation.shell import Devour, Exit, Sleep, Step, Trap, Write, steps_of

SIGKILL_CODE = 137
LOST_CODE = 255


@dataclass(eq=False, slots=True)
class Box:
    """One container, with its process."""

    id: ContainerId
    spec: ContainerSpec
    labels: Mapping[str, str]
    address: str = ""
    state: ContainerState = ContainerState.CREATED
    pid: int = 0
    exit_code: int | None = None
    oom_killed: bool = False
    error: str = ""
    started_s: float = 0.0
    finished_s: float = 0.0
    is_healthy: bool = True
    was_sick: bool = False  # once, and so may have been condemned
    traps: dict[str, int | None] = field(default_factory=dict)
    output: list[tuple[str, LogChunk]] = field(default_factory=list)  # each with when it was written
    watchers: list[Callable[[], None]] = field(default_factory=list)  # called when it writes or ends

    @property
    def is_running(self) -> bool:
        return self.state is ContainerState.RUNNING

    def seen(self) -> Container:
        return Container(
            id=self.id,
            name=self.spec.name,
            labels=dict(self.labels),
            image=self.spec.image,
            state=self.state,
            pid=self.pid,
            exit_code=self.exit_code,
            oom_killed=self.oom_killed,
            error=self.error,
            started_s=self.started_s,
            finished_s=self.finished_s,
            address=self.address if self.is_running else "",
            network_of=self.spec.network_of or "",
        )


class RuntimeObserver(Protocol):
    """Who judges what really runs."""

    def started(self, node: str, box: Box) -> None: ...
    def ended(self, node: str, box: Box, cause: str) -> None: ...


class Runtime:
    """The manager of one node. Its methods take no time and always work: delays and failures are the driver's."""

    def __init__(self, node: str, clock: Clock, rng: random.Random, images: Mapping[str, Mapping[str, str]]) -> None:
        self.node, self.clock, self.rng = node, clock, rng
        self.registry = dict(images)  # images that can be pulled, each with its labels
        self.present: set[str] = set()
        self.boxes: dict[ContainerId, Box] = {}
        self.observers: list[RuntimeObserver] = []
        self.listeners: list[Callable[[Box], None]] = []  # subscriptions to events
        self.on_end_of_events: list[Callable[[], None]] = []
        self.is_down = False
        self.is_hung = False
        self.held: list[Callable[[], None]] = []  # requests that lie in a hung manager's socket
        self.events_to_lose = 0
        self.replies_to_lose = 0
        self.most_delay_s = 0.01
        self.pull_s = 0.05
        self._made = 0

    # The life of containers.

    def create(self, spec: ContainerSpec) -> Box:
        self._made += 1
        id_ = ContainerId(f"{self.node}-{self._made:06d}")
        address = "" if spec.host_network or spec.network_of else f"172.17.0.{self._made % 250 + 2}"
        box = self.boxes[id_] = Box(id_, spec, {**self.registry.get(spec.image, {}), **spec.labels}, address)
        return box

    def find(self, name_or_id: str) -> Box | None:
        box = self.boxes.get(ContainerId(name_or_id))
        return box or next((b for b in self.boxes.values() if b.spec.name == name_or_id), None)

    def taken_port(self, spec: ContainerSpec) -> str:
        """Return which of its ports another running container holds, "" if none."""
        for port in spec.ports:
            for other in self.boxes.values():
                if not other.is_running:
                    continue
                for held in other.spec.ports:
                    if (held.host_port, held.protocol) == (port.host_port, port.protocol):
                        return f"port {port.host_port} of {port.host_address or '0.0.0.0'} is taken"
        return ""

    def start(self, box: Box) -> None:
        self._made += 1
        box.state, box.pid, box.error = ContainerState.RUNNING, 10_000 + self._made, ""
        box.started_s = self.clock.wall_s()
        for observer in self.observers:
            observer.started(self.node, box)
        self._hint(box)
        command = box.spec.command or ("sleep", "inf")
        self._go_on(box, box.pid, steps_of(tuple(command) + tuple(box.spec.args), box.spec.env))

    def _log_time(self, number: int) -> str:
        """Return the time as logs write it, different for each line."""
        second = datetime.fromtimestamp(self.clock.wall_s(), UTC).isoformat(timespec="seconds")
        return f"{second.removesuffix('+00:00')}.{number:09}Z"

    def _go_on(self, box: Box, pid: int, steps: Iterator[Step]) -> None:
        """Carry out steps until one takes time; nothing once the process has ended."""
        while box.is_running and box.pid == pid:
            match next(steps):
                case Write(stream, data):
                    box.output.append((self._log_time(len(box.output)), LogChunk(stream, data)))
                    self._wake(box)
                case Sleep(seconds):
                    if seconds != float("inf"):
                        later(seconds, self._go_on, box, pid, steps)
                    return
                case Trap(signal, code):
                    box.traps[signal] = code
                case Devour(is_main):
                    box.oom_killed = True
                    if is_main:
                        self.end(box, SIGKILL_CODE, "oom")
                case Exit(code):
                    later(0.0, self._exit, box, pid, code)
                    return

    def _exit(self, box: Box, pid: int, code: int) -> None:
        if box.is_running and box.pid == pid:
            self.end(box, code, "exit")

    def signal(self, box: Box, signal: str) -> None:
        """Deliver a signal to the main process."""
        if not box.is_running:
            return
        if signal == "SIGKILL":
            self.end(box, SIGKILL_CODE, "killed")
        elif signal in box.traps:
            code = box.traps[signal]
            if code is not None:
                later(self.rng.random() * 0.2, self._exit, box, box.pid, code)
        # Without a handler the first process of a container ignores it.

    def end(self, box: Box, code: int, cause: str) -> None:
        box.state, box.exit_code, box.pid = ContainerState.EXITED, code, 0
        box.finished_s = self.clock.wall_s()
        for observer in self.observers:
            observer.ended(self.node, box, cause)
        self._wake(box)
        self._hint(box)

    def remove(self, box: Box) -> None:
        if box.is_running:
            self.end(box, SIGKILL_CODE, "removed")
        self.boxes.pop(box.id, None)

    # What happens to the manager.

    def fail(self, *, kills_containers: bool) -> None:
        """The manager dies; without live-restore its containers do, too."""
        self.is_down = True
        for end in list(self.on_end_of_events):
            end()
        if kills_containers:
            for box in list(self.boxes.values()):
                if box.is_running:
                    self.end(box, LOST_CODE, "manager")

    def come_back(self) -> None:
        self.is_down = self.is_hung = False
        held, self.held = self.held, []
        for request in held:
            later(self.rng.random() * self.most_delay_s, request)

    def reboot(self, *, keeps_dead: bool) -> None:
        """Everything ends at once; what was there is gone, or lies there dead."""
        self.is_down = True
        self.held.clear()
        for end in list(self.on_end_of_events):
            end()
        for box in list(self.boxes.values()):
            if box.is_running:
                self.end(box, LOST_CODE, "reboot")
            if not keeps_dead:
                del self.boxes[box.id]

    def _hint(self, box: Box) -> None:
        if self.events_to_lose:
            self.events_to_lose -= 1
            return
        if not self.is_down:
            for listen in list(self.listeners):
                listen(box)

    @staticmethod
    def _wake(box: Box) -> None:
        for wake in list(box.watchers):
            wake()
