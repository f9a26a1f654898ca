"""One reading of what a container uses: a handful of the kernel's files, in well under a third of a millisecond.

The sources are Documentation/admin-guide/cgroup-v1 and cgroup-v2 of Linux, and accounting/psi for pressure. A file that
this kernel hasn't costs its value and nothing else.
"""

import os
from dataclasses import dataclass

from agent.kernel import PRESSURES, Cgroup, Kernel, pressure_in, read_number, read_text, value_in
from manifests.stats import MachineStats

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Reading:
    """Counters since the cgroup was made, and amounts as of now."""

    at_s: float  # on the clock of the caller
    cpu_us: int
    memory_bytes: int  # the working set
    used_bytes: int
    used_peak_bytes: int | None
    pids: int
    periods: int
    throttled_periods: int
    throttled_us: int
    oom_kills: int
    pressure: tuple[tuple[float, int] | None, ...]  # of PRESSURES: the last ten seconds' share, microseconds in all


def read_usage(cgroup: Cgroup, at_s: float) -> Reading | None:
    """Return what the cgroup says now; None if it is gone."""
    return _read_v2(cgroup, at_s) if cgroup.version == 2 else _read_v1(cgroup, at_s)


def _read_v2(cgroup: Cgroup, at_s: float) -> Reading | None:
    cpu = read_text(cgroup.file("cpu", "cpu.stat"))
    used = read_number(cgroup.file("memory", "memory.current"))
    if cpu is None or used is None:
        return None
    return Reading(
        at_s=at_s,
        cpu_us=value_in(cpu, "usage_usec") or 0,
        memory_bytes=_working_set(used, value_in(read_text(cgroup.file("memory", "memory.stat")), "inactive_file")),
        used_bytes=used,
        used_peak_bytes=read_number(cgroup.file("memory", "memory.peak")),  # Linux 5.19 and later
        pids=read_number(cgroup.file("pids", "pids.current")) or 0,
        periods=value_in(cpu, "nr_periods") or 0,
        throttled_periods=value_in(cpu, "nr_throttled") or 0,
        throttled_us=value_in(cpu, "throttled_usec") or 0,
        oom_kills=value_in(read_text(cgroup.file("memory", "memory.events")), "oom_kill") or 0,
        pressure=_pressure(cgroup),
    )


def _read_v1(cgroup: Cgroup, at_s: float) -> Reading | None:
    cpu_ns = read_number(cgroup.file("cpuacct", "cpuacct.usage"))
    used = read_number(cgroup.file("memory", "memory.usage_in_bytes"))
    if cpu_ns is None or used is None:
        return None
    cpu = read_text(cgroup.file("cpu", "cpu.stat"))
    cached = value_in(read_text(cgroup.file("memory", "memory.stat")), "total_inactive_file")
    return Reading(
        at_s=at_s,
        cpu_us=cpu_ns // 1000,
        memory_bytes=_working_set(used, cached),
        used_bytes=used,
        used_peak_bytes=read_number(cgroup.file("memory", "memory.max_usage_in_bytes")),
        pids=read_number(cgroup.file("pids", "pids.current")) or 0,
        periods=value_in(cpu, "nr_periods") or 0,
        throttled_periods=value_in(cpu, "nr_throttled") or 0,
        throttled_us=(value_in(cpu, "throttled_time") or 0) // 1000,
        oom_kills=value_in(read_text(cgroup.file("memory", "memory.oom_control")), "oom_kill") or 0,
        pressure=_pressure(cgroup),
    )


def _working_set(used_bytes: int, cached_bytes: int | None) -> int:
    return max(0, used_bytes - (cached_bytes or 0))


def _pressure(cgroup: Cgroup) -> tuple[tuple[float, int] | None, ...]:
    if cgroup.v2 is None:
        return (None,) * len(PRESSURES)
    return tuple(pressure_in(read_text(f"{cgroup.v2}/{name}.pressure")) for name in PRESSURES)


def read_cpu_s(kernel: Kernel) -> float | None:
    """Return for how long the machine's processors have worked since its boot."""
    first = (read_text(f"{kernel.proc}/stat") or "").partition("\n")[0].split()
    if len(first) < 9 or first[0] != "cpu":
        return None
    user, nice, system, _idle, _wait, interrupts, soft, stolen = map(int, first[1:9])
    return (user + nice + system + interrupts + soft + stolen) / _TICKS


def read_machine(kernel: Kernel, cpu_m: float | None) -> MachineStats:
    """Return what the whole machine uses; `cpu_m` is the caller's, who knows two readings."""
    memory = {
        words[0]: int(words[1]) * 1024
        for line in (read_text(f"{kernel.proc}/meminfo") or "").splitlines()
        if len(words := line.replace(":", " ").split()) >= 2 and words[1].isdecimal()
    }
    total = memory.get("MemTotal", 0)
    now = (pressure_in(read_text(f"{kernel.proc}/pressure/{name}")) for name in PRESSURES)
    cpu, waits, io = (found[0] if found else None for found in now)
    return MachineStats(
        cpu_m=cpu_m,
        cores=os.cpu_count() or 1,
        memory_bytes=total - memory.get("MemAvailable", total),
        memory_total_bytes=total,
        cpu_pressure_10s=cpu,
        memory_pressure_10s=waits,
        io_pressure_10s=io,
    )
