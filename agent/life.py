"""What a container has used over its allocation's life: readings folded into a few numbers. Pure.

A restart is a new cgroup whose counters begin at zero, so what the earlier attempts had counted is carried over. What
an attempt used after its last reading is not seen.
"""

from dataclasses import dataclass, replace

from agent.kernel import PRESSURES
from agent.usage import Reading

LEAST_SPAN_S = 1.0  # between two readings for a rate: over less, the clocks' steps would show


@dataclass(frozen=True, slots=True)
class Counters:
    """What only grows."""

    cpu_us: int = 0
    periods: int = 0
    throttled_periods: int = 0
    throttled_us: int = 0
    oom_kills: int = 0
    pressure_us: tuple[int, ...] = (0,) * len(PRESSURES)

    def __add__(self, other: "Counters") -> "Counters":
        return Counters(
            self.cpu_us + other.cpu_us,
            self.periods + other.periods,
            self.throttled_periods + other.throttled_periods,
            self.throttled_us + other.throttled_us,
            self.oom_kills + other.oom_kills,
            tuple(a + b for a, b in zip(self.pressure_us, other.pressure_us, strict=True)),
        )


@dataclass(frozen=True, slots=True)
class Life:
    """`base` is the reading against which the present rate is told; `latest` the newest. Both are of one attempt."""

    attempt: int
    since_s: float  # of the first reading, by the wall clock
    base: Reading | None
    latest: Reading
    samples: int = 1
    earlier: Counters = Counters()  # of attempts that have ended
    seen_us: int = 0  # of cpu time, between the first and the last reading of each attempt
    seen_s: float = 0.0  # the time between them
    cpu_peak_m: float | None = None
    memory_peak_bytes: int = 0
    used_peak_bytes: int | None = None
    pids_peak: int = 0

    @property
    def totals(self) -> Counters:
        return self.earlier + counters_of(self.latest)

    @property
    def cpu_m(self) -> float | None:
        return None if self.base is None else rate_m(self.base, self.latest)

    @property
    def cpu_mean_m(self) -> float | None:
        return None if self.seen_s <= 0 else self.seen_us / self.seen_s / 1000


def first_seen(reading: Reading, *, attempt: int, wall_s: float) -> Life:
    return _with_peaks(Life(attempt, wall_s, None, reading), reading)


def with_reading(life: Life, reading: Reading, *, attempt: int) -> Life:
    """Return the life with one more reading, perhaps the first of another attempt."""
    if attempt != life.attempt:
        anew = replace(life, attempt=attempt, base=None, latest=reading, earlier=life.totals, samples=life.samples + 1)
        return _with_peaks(anew, reading)
    known = life.latest
    # An answer on demand may come right after a regular reading: then the one before that stays the base.
    base = known if life.base is None or reading.at_s - known.at_s >= LEAST_SPAN_S else life.base
    rate = rate_m(base, reading)
    peak = life.cpu_peak_m
    if rate is not None:
        peak = rate if peak is None else max(peak, rate)
    seen_us, seen_s = max(0, reading.cpu_us - known.cpu_us), max(0.0, reading.at_s - known.at_s)
    grown = replace(
        life,
        base=base,
        latest=reading,
        samples=life.samples + 1,
        seen_us=life.seen_us + seen_us,
        seen_s=life.seen_s + seen_s,
        cpu_peak_m=peak,
    )
    return _with_peaks(grown, reading)


def with_oom_kill(life: Life) -> Life:
    """Return the life after an attempt ended by the kernel, whose last count went with its cgroup, mostly unread."""
    if life.latest.oom_kills:
        return life
    return replace(life, earlier=life.earlier + Counters(oom_kills=1))


def counters_of(reading: Reading) -> Counters:
    return Counters(
        reading.cpu_us,
        reading.periods,
        reading.throttled_periods,
        reading.throttled_us,
        reading.oom_kills,
        tuple(found[1] if found else 0 for found in reading.pressure),
    )


def rate_m(base: Reading, latest: Reading) -> float | None:
    """Return the millicores between two readings of one cgroup; None if they are too near to tell.

    >>> a = Reading(0.0, 0, 0, 0, None, 0, 0, 0, 0, 0, ())
    >>> rate_m(a, Reading(2.0, 500_000, 0, 0, None, 0, 0, 0, 0, 0, ()))
    250.0
    """
    span_s = latest.at_s - base.at_s
    return None if span_s < LEAST_SPAN_S else max(0, latest.cpu_us - base.cpu_us) / span_s / 1000


def _with_peaks(life: Life, reading: Reading) -> Life:
    used = life.used_peak_bytes
    if reading.used_peak_bytes is not None:
        used = max(reading.used_peak_bytes, used or 0)
    return replace(
        life,
        memory_peak_bytes=max(life.memory_peak_bytes, reading.memory_bytes),
        used_peak_bytes=used,
        pids_peak=max(life.pids_peak, reading.pids),
    )
