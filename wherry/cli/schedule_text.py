"""How a CronJob's schedule and its jobs are told. Pure: the API's JSON in, text out, cleaned."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from wherry.cli.text import age, clean, span

Item = Mapping[str, Any]
MOST_JOBS = 12


def cron_of(item: Item) -> Item:
    """Return what the API says of the schedule; empty of any other kind than a CronJob."""
    return item.get("cron") or {}


def cells_of(item: Item, now_s: float) -> list[object]:
    """Return the cells of `wherry get cronjobs` between name and state."""
    cron = cron_of(item)
    upcoming = cron.get("next") or []
    return [
        cron.get("schedule"),
        cron.get("timeZone"),
        "yes" if cron.get("suspend") else "no",
        age(cron.get("lastSlot"), now_s),
        until(upcoming[0], now_s) if upcoming else "-",
        len(cron.get("active") or []),
    ]


def lines_of(item: Item, now_s: float) -> Iterator[str]:
    """Yield what `wherry describe cronjob` says of the schedule: when it was due, when it is, and the jobs."""
    cron = cron_of(item)
    yield f"  {clean(cron.get('schedule'))}, in {clean(cron.get('timeZone'))}" + (
        ", suspended" if cron.get("suspend") else ""
    )
    if cron.get("lastSlot"):
        job = f", job/{clean(cron.get('lastJob'))}"
        yield f"  last started for {clean(cron['lastSlot'])}, {age(cron['lastSlot'], now_s)} ago{job}"
    for slot in cron.get("next") or []:
        yield f"  next {clean(slot)}, in {until(slot, now_s)}"


def job_lines(item: Item, now_s: float) -> list[str]:
    """Return a line for each of its jobs, the newest first."""
    jobs = cron_of(item).get("jobs") or []
    lines = [
        f"  job/{clean(j.get('name'))}: {clean(j.get('state'))}, {age(j.get('createdAt'), now_s)} old" for j in jobs
    ]
    more = [f"  and {len(lines) - MOST_JOBS} more"] if len(lines) > MOST_JOBS else []
    return [*lines[:MOST_JOBS], *more] or ["  none"]


def until(timestamp: object, now_s: float) -> str:
    """Return how long it is until then."""
    return span(datetime.fromisoformat(str(timestamp)).timestamp() - now_s)
