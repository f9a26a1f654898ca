"""Simulated machines: their clocks, what they have, and the disk of an agent."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.options import AgentOptions
from agent.ownership import Ownership
from manifests.containers import NodeResources, Resources
from tests.simulation.crashes import effect_now

WALL_S = 1_767_225_600.0  # 2026-01-01


@dataclass(eq=False, slots=True)
class Host:
    """A machine's clocks: one begins anew at each boot, the other may jump."""

    name: str
    origin_s: float
    wall_offset_s: float = 0.0
    boots: int = 1

    def reboot(self) -> None:
        self.boots += 1
        self.origin_s = -asyncio.get_running_loop().time()

    def now_s(self) -> float:
        return asyncio.get_running_loop().time() + self.origin_s

    def wall_s(self) -> float:
        return WALL_S + asyncio.get_running_loop().time() + self.wall_offset_s

    def boot_s(self) -> float:
        return self.now_s()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass(frozen=True, slots=True)
class SimMachine:
    """The agent's view of its host."""

    host: Host
    size: NodeResources

    def boot_id(self) -> str:
        return f"{self.host.name}-boot-{self.host.boots}"

    def resources(self) -> NodeResources:
        return self.size

    def cores(self) -> int:
        return 4

    def attributes(self) -> Mapping[str, str]:
        return {"arch": "x86_64", "hostname": self.host.name, "kernel": "6", "os": "linux"}

    def address(self, options: AgentOptions) -> str:
        return f"10.0.0.{self.host.name.lstrip('n')}"

    def cap(self, parent: str, allocatable: Resources) -> bool:
        return True

    def uncap(self, parent: str) -> None:
        pass


@dataclass(eq=False, slots=True)
class SimFolder:
    """An agent's disk. It outlives the agent, and may lose or tear what was written last."""

    node: str
    files: dict[str, bytes] = field(default_factory=dict)
    former: dict[str, bytes] = field(default_factory=dict)  # what each file held before its last write
    is_full: bool = False
    moved_aside: int = 0

    def __str__(self) -> str:
        return f"/disk/of/{self.node}"

    def ownership(self) -> Ownership:
        return Ownership(f"seal of {self.node}".encode().ljust(32, b"."))

    def read(self, name: str) -> bytes:
        if name not in self.files:
            raise FileNotFoundError(name)
        return self.files[name]

    def write(self, name: str, data: bytes) -> None:
        effect_now("file", before=True)
        if self.is_full:
            raise OSError(28, "No space left on device")
        if name in self.files:
            self.former[name] = self.files[name]
        self.files[name] = data
        effect_now("file", before=False)

    def move_aside(self, name: str) -> str:
        self.moved_aside += 1
        aside = f"{name}.damaged-{self.moved_aside}"
        self.files[aside] = self.files.pop(name)
        return aside
