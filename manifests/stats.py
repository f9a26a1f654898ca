"""What containers and machines use, as an agent reads it from the kernel; asked for over its session, never stored.

Sizes are bytes, shares are from 0 to 1. `None`: this kernel doesn't tell, or it isn't known yet.
"""

from pydantic import Field

from manifests.base import Model, Timestamp


class Amounts(Model):
    """Plain numbers of what a manifest writes as `250m` and `64Mi`."""

    cpu_m: int = Field(alias="cpuMillicores")
    memory_bytes: int
    pids: int


class Pressure(Model):
    """For how much of the time some process of it waited for the resource (PSI, `some`)."""

    share_10s: float = Field(alias="share10s")  # of the last ten seconds
    total_s: float = Field(alias="totalSeconds")  # over the life of all attempts that were seen


class ContainerStats(Model):
    """One container that runs, and its allocation's life as far as this agent has seen it.

    An agent that restarts reads on from the kernel's counters of what runs; what it had sampled before, and attempts
    that had ended, it has forgotten: `since_s` says from when on it knows.
    """

    allocation: str
    container: str  # its name in the group; `main` where it is alone
    namespace: str
    kind: str
    name: str  # of the workload
    version: int
    attempt: int
    started_s: Timestamp | None = Field(None, alias="startedAt")  # the attempt
    since_s: Timestamp = Field(alias="since")  # of the first sample
    at_s: Timestamp = Field(alias="at")  # of the last one
    samples: int
    reserved: Amounts
    limit: Amounts
    cpu_m: float | None = Field(None, alias="cpuMillicores")  # between the last two samples; None after the first
    cpu_mean_m: float | None = Field(None, alias="cpuMeanMillicores")  # over all samples
    cpu_peak_m: float | None = Field(None, alias="cpuPeakMillicores")  # the most between two samples
    cpu_total_s: float = Field(alias="cpuSeconds")
    memory_bytes: int  # the working set: without file cache that the kernel may drop
    memory_peak_bytes: int  # the largest working set that was sampled
    memory_used_bytes: int  # with all file cache
    memory_used_peak_bytes: int | None = None  # the kernel's own high-water mark, of the attempts that were seen
    pids: int
    pids_peak: int
    periods: int  # in which it had work, of those by which the kernel counts its cpu quota
    throttled_periods: int  # in which the quota was used up
    throttled_s: float = Field(alias="throttledSeconds")
    oom_kills: int
    cpu_pressure: Pressure | None = None
    memory_pressure: Pressure | None = None
    io_pressure: Pressure | None = None


class MachineStats(Model):
    """The whole machine under an agent, with whatever else runs there."""

    cpu_m: float | None = Field(None, alias="cpuMillicores")  # between the last two samples
    cores: int
    memory_bytes: int  # that can't be had by others
    memory_total_bytes: int
    cpu_pressure_10s: float | None = Field(None, alias="cpuPressure10s")
    memory_pressure_10s: float | None = Field(None, alias="memoryPressure10s")
    io_pressure_10s: float | None = Field(None, alias="ioPressure10s")


class NodeStats(Model):
    """An agent's answer: its machine, and each container that runs."""

    node: str
    at_s: Timestamp = Field(alias="at")
    machine: MachineStats
    containers: tuple[ContainerStats, ...]
