"""What a container should reserve and be limited to, from what it has used over its allocations' lives. Pure.

Memory that isn't there kills, so its advice leans on peaks; cpu that isn't there only slows, so its leans on what is
used all along. To lower something it must have been watched for long enough; what has hurt already is raised at once.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Literal

LEAST_SEEN_S = 1800.0  # before anything is lowered
LEAST_SAMPLES = 60
LEAST_PERIODS = 100  # of the cpu quota, for a share of them to mean something
THROTTLED_SHARE = 0.05
PRESSURE_SHARE = 0.10
NEAR = 0.9  # of a limit
MEMORY_ROOM, LIMIT_ROOM, CACHE_ROOM = 1.2, 1.5, 1.1  # over a peak: to reserve, to be limited to, with file cache
KILLED_FACTOR = 1.5
MEAN_ROOM, PEAK_SHARE = 1.3, 0.5  # cpu to reserve: so much of the mean, or of the peak if that is more
WORTH = 0.2  # a smaller change of a reservation isn't worth a rollout
MEMORY_STEP, CPU_STEP, PIDS_STEP = 4 * 2**20, 10, 10
LEAST_MEMORY, LEAST_CPU = 8 * 2**20, 10

Resource = Literal["cpu", "memory", "pids"]


@dataclass(frozen=True, slots=True)
class Sizes:
    cpu_m: int
    memory_bytes: int
    pids: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What one container of one allocation has used. Unknown is None, never 0."""

    seen_s: float
    samples: int
    cpu_mean_m: float | None
    cpu_peak_m: float | None
    memory_peak_bytes: int  # the working set
    memory_used_peak_bytes: int | None  # with file cache, by the kernel
    pids_peak: int
    periods: int
    throttled_periods: int
    oom_kills: int
    cpu_pressure: float | None  # share of the time seen
    memory_pressure: float | None


@dataclass(frozen=True, slots=True)
class Finding:
    """One change, and why."""

    resource: Resource
    of: Literal["reservation", "limit"]
    before: int
    after: int
    why: str

    @property
    def is_raise(self) -> bool:
        return self.after > self.before


@dataclass(frozen=True, slots=True)
class Advice:
    """`missing` says what must still be seen before it would lower anything; "" if nothing."""

    reserved: Sizes
    limit: Sizes
    findings: tuple[Finding, ...]
    missing: str


def merged(seen: Iterable[Seen]) -> Seen:
    """Return the hardest life of several replicas: each must fit, so of each number the most counts."""
    found = list(seen)
    throttled = max(found, key=lambda s: (_throttled_share(s), s.periods))
    return Seen(
        seen_s=max(s.seen_s for s in found),
        samples=max(s.samples for s in found),
        cpu_mean_m=_most(s.cpu_mean_m for s in found),
        cpu_peak_m=_most(s.cpu_peak_m for s in found),
        memory_peak_bytes=max(s.memory_peak_bytes for s in found),
        memory_used_peak_bytes=_most_bytes([s.memory_used_peak_bytes for s in found]),
        pids_peak=max(s.pids_peak for s in found),
        periods=throttled.periods,
        throttled_periods=throttled.throttled_periods,
        oom_kills=sum(s.oom_kills for s in found),
        cpu_pressure=_most(s.cpu_pressure for s in found),
        memory_pressure=_most(s.memory_pressure for s in found),
    )


def advise(seen: Seen, reserved: Sizes, limit: Sizes) -> Advice:
    """Return what to reserve and to limit to. The limit is never below the reservation, nor that below a peak seen."""
    missing = _missing(seen)
    may_lower = not missing
    memory = _memory(seen, reserved.memory_bytes, limit.memory_bytes, may_lower=may_lower)
    cpu = _cpu(seen, reserved.cpu_m, limit.cpu_m, may_lower=may_lower)
    findings = (*memory, *cpu, *_pids(seen, limit.pids))
    after_reserved, after_limit = reserved, limit
    for finding in findings:
        name = {"cpu": "cpu_m", "memory": "memory_bytes", "pids": "pids"}[finding.resource]
        if finding.of == "reservation":
            after_reserved = replace(after_reserved, **{name: finding.after})
        else:
            after_limit = replace(after_limit, **{name: finding.after})
    return Advice(after_reserved, after_limit, findings, missing)


def _missing(seen: Seen) -> str:
    if seen.seen_s < LEAST_SEEN_S or seen.samples < LEAST_SAMPLES:
        return f"it was seen for {_minutes(seen.seen_s)} only, and nothing is lowered before {_minutes(LEAST_SEEN_S)}"
    if seen.cpu_mean_m is None:
        return "its use of cpu is not known yet"
    return ""


def _memory(seen: Seen, reserved: int, limit: int, *, may_lower: bool) -> Sequence[Finding]:
    peak = seen.memory_peak_bytes
    wanted, why = _up(peak * MEMORY_ROOM, MEMORY_STEP, LEAST_MEMORY), ""
    if peak > reserved:
        why = "it takes more than it reserves, which nobody has kept for it"
    elif may_lower and wanted < reserved * (1 - WORTH):
        why = f"of its reservation it has used {peak / reserved:.0%} at most"
    else:
        wanted = reserved
    most, why_limit = _memory_limit(seen, limit)
    if may_lower and not why_limit and seen.memory_used_peak_bytes is not None:
        cached = _up(seen.memory_used_peak_bytes * CACHE_ROOM, MEMORY_STEP)
        enough = max(_up(peak * LIMIT_ROOM, MEMORY_STEP), cached, wanted)
        if enough < limit * (1 - WORTH):
            most, why_limit = enough, "with all its file cache it has never come near it"
    if wanted > most:
        most, why_limit = wanted, "it can't be below the reservation"
    found = []
    if wanted != reserved:
        found.append(Finding("memory", "reservation", reserved, wanted, why))
    if most != limit:
        found.append(Finding("memory", "limit", limit, most, why_limit))
    return found


def _memory_limit(seen: Seen, limit: int) -> tuple[int, str]:
    """Return the limit, raised if it has hurt, and why."""
    peak, used = seen.memory_peak_bytes, seen.memory_used_peak_bytes
    enough, more = _up(peak * LIMIT_ROOM, MEMORY_STEP), _up(limit * KILLED_FACTOR, MEMORY_STEP)
    if seen.oom_kills:
        return max(enough, more), f"the kernel killed {_times(seen.oom_kills)} for it"
    if peak > limit * NEAR:
        return max(enough, limit), f"its peak was at {peak / limit:.0%} of the limit"
    if (seen.memory_pressure or 0.0) > PRESSURE_SHARE and (used is None or used > limit * NEAR):
        return more, f"something in it waited for memory in {seen.memory_pressure:.0%} of the time, at its limit"
    return limit, ""


def _cpu(seen: Seen, reserved: int, limit: int, *, may_lower: bool) -> Sequence[Finding]:
    found, most, share = [], limit, _throttled_share(seen)
    if seen.periods >= LEAST_PERIODS and share >= THROTTLED_SHARE:
        most = _up(limit * min(2.0, 1.0 + 2.0 * share), CPU_STEP)
    mean_m, peak_m = seen.cpu_mean_m or 0.0, seen.cpu_peak_m or 0.0
    needed = min(_up(max(mean_m * MEAN_ROOM, peak_m * PEAK_SHARE), CPU_STEP, LEAST_CPU), max(most, reserved))
    # What waits for cpu without being throttled waits for others on its node: it must not reserve less.
    is_spare = may_lower and (seen.cpu_pressure or 0.0) <= PRESSURE_SHARE and needed < reserved * (1 - WORTH)
    if seen.cpu_mean_m is not None and (needed > reserved * (1 + WORTH) or is_spare):
        why = f"it uses {mean_m:.0f}m on average and {peak_m:.0f}m at its peak"
        found.append(Finding("cpu", "reservation", reserved, needed, why))
    if most != limit:
        why = f"it was throttled in {share:.0%} of the periods in which it ran"
        found.append(Finding("cpu", "limit", limit, most, why))
    return found


def _pids(seen: Seen, limit: int) -> Sequence[Finding]:
    if seen.pids_peak <= limit * NEAR:
        return ()
    most = _up(seen.pids_peak * LIMIT_ROOM, PIDS_STEP)
    why = f"it had {seen.pids_peak} at once, near its limit"
    return (Finding("pids", "limit", limit, most, why),) if most > limit else ()


def _throttled_share(seen: Seen) -> float:
    return seen.throttled_periods / seen.periods if seen.periods else 0.0


def _most(found: Iterable[float | None]) -> float | None:
    return max((each for each in found if each is not None), default=None)


def _most_bytes(found: Sequence[int | None]) -> int | None:
    """Return the most; None if one isn't known: then the most isn't either."""
    known = [each for each in found if each is not None]
    return max(known) if len(known) == len(found) else None


def _up(amount: float, step: int, least: int = 0) -> int:
    """Return the amount rounded up to a step.

    >>> _up(41, 10), _up(40, 10), _up(1, 10, 30)
    (50, 40, 30)
    """
    return max(least, ceil(round(amount / step, 6)) * step)


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
