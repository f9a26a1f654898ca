"""When a CronJob is due: the standard five fields, or @daily and the like, in a time zone. Pure.

A slot is the instant at which a start is due, in seconds since the epoch. Where clocks change, it is as in Debian's
cron: what falls into the hour that is skipped in spring is due right after it, and what falls into the hour that comes
twice in autumn is due once; a schedule with * or */N for its minutes or its hours just follows the hours as they come.
Imported when a CronJob is met, not before.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice, takewhile
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

MOST_LENGTH = 200
ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_LOOKS_BACK_S = (3600.0, 86_400.0)  # where slots are many, the newest is near
_FIELDS = ("minute", "hour", "day-of-month", "month", "day-of-week")
_EXAMPLE = "write for example '15 2 * * MON-FRI' (minute, hour, day of month, month, day of week), or @daily"


@dataclass(frozen=True, slots=True)
class Schedule:
    """A checked schedule: made by `schedule_of`."""

    fields: str
    zone: ZoneInfo

    def slots_after(self, after_s: float) -> Iterator[float]:
        """Yield the slots later than that instant, soonest first; few or none where they end."""
        last = after_s
        for slot in _moments(self.fields, datetime.fromtimestamp(after_s, self.zone)):
            if slot > last:  # the library looks at local times, of which some come twice
                last = slot
                yield slot

    def next_after(self, after_s: float) -> float | None:
        return next(self.slots_after(after_s), None)

    def newest_until(self, until_s: float, *, after_s: float) -> float | None:
        """Return the newest slot up to `until_s` that is later than `after_s`."""
        for back_s in (*_LOOKS_BACK_S, until_s - after_s):
            begin_s = max(after_s, until_s - back_s)
            newest = None
            for slot in takewhile(lambda slot: slot <= until_s, self.slots_after(begin_s)):
                newest = slot
            if newest is not None or begin_s <= after_s:
                return newest
        return None

    def first(self, count: int, after_s: float) -> list[float]:
        return list(islice(self.slots_after(after_s), count))


@lru_cache(maxsize=1024)
def schedule_of(text: str, time_zone: str) -> Schedule:
    """Return the schedule. Raises ValueError in words that show a right example."""
    fields = _checked_fields(text)
    return Schedule(fields, zone_of(time_zone))


def zone_of(name: str) -> ZoneInfo:
    """Return the zone of that name in the IANA database. Raises ValueError with the nearest name."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # a name that is none may also be a folder, or too long for a file
        raise ValueError(
            f"'{name[:40]}' is no time zone: write one such as Europe/Berlin or UTC{_nearest(name)}"
        ) from None


def _nearest(name: str) -> str:
    from difflib import get_close_matches

    by_lower = {zone.lower(): zone for zone in available_timezones()}
    near = get_close_matches(name.lower().replace(" ", "_")[:40], by_lower, n=1, cutoff=0.6)
    return f"; did you mean {by_lower[near[0]]}?" if near else ""


def _checked_fields(text: str) -> str:
    words = text.split()
    if text.strip().startswith("@"):
        if text.strip().lower() not in ALIASES:
            raise ValueError(f"'{text[:40]}' is no schedule: the short forms are {', '.join(ALIASES)}")
        return ALIASES[text.strip().lower()]
    if len(text) > MOST_LENGTH:
        raise ValueError(f"has {len(text)} characters, and the most is {MOST_LENGTH}")
    if len(words) != len(_FIELDS):
        raise ValueError(f"'{text[:40]}' has {len(words)} fields instead of 5: {_EXAMPLE}")
    for place, word in enumerate(words):
        _check_field(place, word)
    fields = " ".join(words)
    try:
        next(CronSim(fields, datetime(2024, 1, 1, tzinfo=UTC)))
    except (CronSimError, StopIteration):
        raise ValueError(f"'{text[:40]}' never comes: no month has such a day") from None
    return fields


def _check_field(place: int, word: str) -> None:
    """Try the field alone, so that the message can name it and its value."""
    alone = " ".join(word if place == other else "*" for other in range(len(_FIELDS)))
    try:
        CronSim(alone, datetime(2024, 1, 1, tzinfo=UTC))
    except (CronSimError, AssertionError, IndexError):
        raise ValueError(f"'{word[:40]}' is no {_FIELDS[place]}: {_EXAMPLE}") from None


def _moments(fields: str, after: datetime) -> Iterator[float]:
    simulated = CronSim(fields, after)
    while True:
        try:
            yield next(simulated).timestamp()
        except (StopIteration, OverflowError, ValueError):  # none within 50 years, or beyond the calendar's end
            return
