"""Reads what the node's containers use, every ten seconds and when somebody asks, and keeps what their lives add up to.

Some hundred bytes a container, in memory alone: nothing is stored, here or in the cluster, so a cluster in which
nothing happens writes nothing. Files are read in a thread; the numbers belong to the event loop.
"""

import asyncio
from dataclasses import dataclass

from agent.kernel import PRESSURES, Cgroup, Kernel, cgroup_of
from agent.life import Life, first_seen, with_oom_kill, with_reading
from agent.node import Node
from agent.tracked import Role, Tracked
from agent.usage import Reading, read_cpu_s, read_machine, read_usage
from foundation.clock import Clock
from manifests.allocations import Allocation
from manifests.containers import Resources
from manifests.stats import Amounts, ContainerStats, MachineStats, NodeStats, Pressure

EVERY_S = 10.0
FRESH_S = 1.0  # a reading so young answers who asks


@dataclass(slots=True)
class _Metered:
    """One container of an allocation. Its cgroup is looked up once for each container that it has."""

    container: str = ""
    cgroup: Cgroup | None = None
    life: Life | None = None


class Meter:
    """`run` it, and call `follow` with each record before and after a change."""

    def __init__(self, node: Node, kernel: Kernel, clock: Clock, *, name: str) -> None:
        self._node, self._kernel, self._clock, self._name = node, kernel, clock, name
        self._metered: dict[str, _Metered] = {}
        self._machine_cpu: tuple[float, float] | None = None  # when it was read, and seconds of work since the boot
        self._machine_cpu_m: float | None = None
        self._machine: MachineStats | None = None
        self._read_s: float | None = None
        self._reading = asyncio.Lock()

    async def run(self) -> None:
        while True:
            await self._read()
            await self._clock.sleep(EVERY_S)

    def follow(self, old: Tracked | None, new: Tracked | None) -> None:
        """Forget what is gone, and note who was killed for its memory: its cgroup says so no more."""
        if new is None:
            if old is not None:
                self._metered.pop(old.id, None)
            return
        known, ending = self._metered.get(new.id), new.status.last_ending
        if known is None or known.life is None or ending is None:
            return
        was_told = old is not None and old.status.last_ending is ending
        if not was_told and ending.reason == "oomKilled" and ending.attempt == known.life.attempt:
            known.life = with_oom_kill(known.life)

    async def stats(self) -> NodeStats:
        """Return what is used now, from a reading that isn't older than a moment."""
        if self._read_s is None or self._clock.now_s() - self._read_s >= FRESH_S:
            await self._read()
        assert self._machine is not None
        now_s, wall_s = self._clock.now_s(), self._clock.wall_s()
        found = [
            _stats_of(tracked, life, now_s=now_s, wall_s=wall_s)
            for tracked in self._running()
            if (metered := self._metered.get(tracked.id)) and (life := metered.life) and _is_of(life, tracked)
        ]
        return NodeStats(node=self._name, at_s=wall_s, machine=self._machine, containers=tuple(found))

    def _running(self) -> list[Tracked]:
        """Return the containers that run, but for sandboxes, in which nothing does."""
        members = (member for group in self._node.groups.values() for member in group.members)
        return [m for m in members if m.has_running_container and m.role is not Role.SANDBOX]

    async def _read(self) -> None:
        async with self._reading:
            running = self._running()
            for tracked in running:
                self._place(tracked)
            asked = [(t, self._metered[t.id]) for t in running]
            jobs = [(m, t.container.pid if t.container else 0, t.status.attempt) for t, m in asked]
            readings, cpu_s = await asyncio.to_thread(self._read_all, [(m, pid) for m, pid, _ in jobs])
            now_s, wall_s = self._clock.now_s(), self._clock.wall_s()
            for (metered, _, attempt), reading in zip(jobs, readings, strict=True):
                if reading is None:
                    continue
                life = metered.life
                metered.life = (
                    first_seen(reading, attempt=attempt, wall_s=wall_s)
                    if life is None
                    else with_reading(life, reading, attempt=attempt)
                )
            self._note_machine(now_s, cpu_s)
            self._read_s = now_s

    def _place(self, tracked: Tracked) -> None:
        """Have a place for the container's numbers; a new attempt has a new cgroup."""
        assert tracked.container is not None
        metered = self._metered.setdefault(tracked.id, _Metered())
        if metered.container != tracked.container.id:
            metered.container, metered.cgroup = tracked.container.id, None

    def _read_all(self, asked: list[tuple[_Metered, int]]) -> tuple[list[Reading | None], float | None]:
        readings: list[Reading | None] = []
        for metered, pid in asked:
            if metered.cgroup is None and pid:
                metered.cgroup = cgroup_of(self._kernel, pid, metered.container)
            readings.append(read_usage(metered.cgroup, self._clock.boot_s()) if metered.cgroup else None)
        return readings, read_cpu_s(self._kernel)

    def _note_machine(self, now_s: float, cpu_s: float | None) -> None:
        known = self._machine_cpu
        if cpu_s is not None and (known is None or now_s - known[0] >= FRESH_S):
            if known is not None:
                self._machine_cpu_m = 1000 * (cpu_s - known[1]) / (now_s - known[0])
            self._machine_cpu = (now_s, cpu_s)
        self._machine = read_machine(self._kernel, self._machine_cpu_m)


def _is_of(life: Life, tracked: Tracked) -> bool:
    return life.attempt == tracked.status.attempt


def _stats_of(tracked: Tracked, life: Life, *, now_s: float, wall_s: float) -> ContainerStats:
    allocation: Allocation = tracked.assigned.allocation
    latest, totals = life.latest, life.totals
    pressures = [
        None if found is None else Pressure(share_10s=found[0], total_s=total / 1e6)
        for found, total in zip(latest.pressure, totals.pressure_us, strict=True)
    ]
    cpu, memory, io = pressures[: len(PRESSURES)]
    return ContainerStats(
        allocation=allocation.id,
        container=tracked.name,
        namespace=allocation.workload.namespace,
        kind=allocation.workload.kind.lower(),
        name=allocation.workload.name,
        version=allocation.version,
        attempt=tracked.status.attempt,
        started_s=tracked.status.started_s,
        since_s=life.since_s,
        at_s=wall_s,
        samples=life.samples,
        reserved=_amounts(tracked.spec.resources),
        limit=_amounts(tracked.spec.limit()),
        cpu_m=life.cpu_m,
        cpu_mean_m=life.cpu_mean_m,
        cpu_peak_m=life.cpu_peak_m,
        cpu_total_s=totals.cpu_us / 1e6,
        memory_bytes=latest.memory_bytes,
        memory_peak_bytes=life.memory_peak_bytes,
        memory_used_bytes=latest.used_bytes,
        memory_used_peak_bytes=life.used_peak_bytes,
        pids=latest.pids,
        pids_peak=life.pids_peak,
        periods=totals.periods,
        throttled_periods=totals.throttled_periods,
        throttled_s=totals.throttled_us / 1e6,
        oom_kills=totals.oom_kills,
        cpu_pressure=cpu,
        memory_pressure=memory,
        io_pressure=io,
    )


def _amounts(resources: Resources) -> Amounts:
    return Amounts(cpu_m=resources.cpu_m, memory_bytes=resources.memory_bytes, pids=resources.pids)
