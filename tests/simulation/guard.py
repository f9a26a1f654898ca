"""The guard process of a simulated node. It is part of the world: it goes on whatever becomes of the agent."""

from collections.abc import Collection
from dataclasses import dataclass, field

from agent.driver import ContainerId
from agent.guard import POLL_S
from agent.leash import Lease
from tests.simulation.hosts import Host
from tests.simulation.loop import SimLoop
from tests.simulation.runtime import SIGKILL_CODE, Runtime


@dataclass(eq=False, slots=True)
class SimGuard:
    """Implements agent.leash.Guard, with what agent.guard does."""

    loop: SimLoop
    host: Host
    runtime: Runtime
    leases: tuple[Lease, ...] = ()
    heard_s: float = 0.0
    boot: int = 0
    killed: list[str] = field(default_factory=list)
    _is_watching: bool = False

    def load(self) -> tuple[float | None, tuple[Lease, ...]]:
        if self.boot != self.host.boots:
            return None, ()
        alive = tuple(lease for lease in self.leases if self._runs(lease))
        return self.heard_s, alive

    async def keep(self, leases: Collection[Lease], heard_s: float) -> None:
        self.leases, self.heard_s, self.boot = tuple(leases), heard_s, self.host.boots
        if not self._is_watching:
            self._is_watching = True
            self.loop.in_world(POLL_S, self._look)

    async def hear(self, heard_s: float) -> None:
        self.heard_s = heard_s

    def _look(self) -> None:
        self._is_watching = bool(self.leases) and self.boot == self.host.boots
        if not self._is_watching:
            return
        silent_s = self.host.boot_s() - self.heard_s
        for lease in self.leases:
            if silent_s >= lease.silent_s and self._runs(lease):
                self.killed.append(lease.container)
                self.runtime.end(self.runtime.boxes[ContainerId(lease.container)], SIGKILL_CODE, "guard")
        self.loop.in_world(POLL_S, self._look)

    def _runs(self, lease: Lease) -> bool:
        box = self.runtime.boxes.get(ContainerId(lease.container))
        return box is not None and box.is_running
