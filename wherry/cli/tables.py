"""The columns of each kind. Pure: the API's JSON in, cells out, cleaned."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from wherry.cli.kinds import (
    ALLOCATIONS,
    CONFIGS,
    CRON_JOBS,
    DAEMONS,
    EVENTS,
    JOBS,
    NAMESPACES,
    NODES,
    SERVICES,
    VOLUMES,
    WORKLOADS,
)
from wherry.cli.schedule_text import cells_of
from wherry.cli.text import age, clean, until

Item = Mapping[str, Any]
_UNITS = (("Ti", 2**40), ("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10))


class View(NamedTuple):
    """What a table shows of its kind."""

    kind: str
    is_wide: bool
    has_namespace: bool  # all namespaces are listed
    now_s: float

    def headings(self) -> list[str]:
        columns = _HEADINGS[self.kind] + (_WIDE_HEADINGS[self.kind] if self.is_wide else ())
        return (
            (["NAMESPACE"] if self._shows_namespace() else [])
            + list(columns)
            + ["WHY" if self.is_wide and self.kind == ALLOCATIONS else "MESSAGE"]
        )

    def row(self, item: Item) -> list[str]:
        """Return the cells of one item, as many as there are headings."""
        cells = _ROWS[self.kind](item, self)
        return ([clean(item.get("namespace"))] if self._shows_namespace() else []) + [clean(cell) for cell in cells]

    def _shows_namespace(self) -> bool:
        return self.has_namespace and self.kind not in (NODES, EVENTS, NAMESPACES)


def name_of(kind: str, item: Item) -> str:
    """Return what the user calls an item: its name, or its id, or the subject of an event."""
    return clean(item.get("id") if kind == ALLOCATIONS else item.get("subject") if kind == EVENTS else item.get("name"))


def kind_and_name(kind: str, item: Item) -> str:
    """Return `service/web`: what other commands take."""
    if kind == EVENTS:
        return name_of(kind, item)
    prefix = {NODES: "node", ALLOCATIONS: "allocation"}.get(kind) or clean(item.get("kind")).lower()
    return f"{prefix}/{name_of(kind, item)}"


def message_of(item: Item) -> str:
    """Return the one thing about a workload that its user should know: what blocks it, else what it waits for."""
    said = [b.get("sentence", "") for b in item.get("blocked") or []] + list(item.get("messages") or [])
    return clean("; ".join(said))


def trouble_of(item: Item) -> str:
    """Return what an allocation is doing or waiting for, and how its last attempt ended where that still matters."""
    message, ending = clean(item.get("message")), item.get("lastEnding")
    is_well = item.get("phase") == "succeeded" or (item.get("phase") == "running" and item.get("health") == "healthy")
    if is_well:
        return ""
    if not ending or (ending.get("message") and clean(ending["message"]) in message):
        return message
    said = f": {clean(ending['message'])}" if ending.get("message") else ""
    return "; ".join(filter(None, (message, f"attempt {ending.get('attempt')} ended: {exit_of(ending)}{said}")))


def exit_of(ending: Item | None) -> str:
    """Return how an attempt ended, in short: `exited (1)`, `oomKilled (137)`, `imageFailed`."""
    if not ending:
        return ""
    code = ending.get("exitCode")
    return clean(ending.get("reason")) + (f" ({code})" if code is not None else "")


def times_of(event: Item) -> str:
    return f"{event.get('count') or 1}x"


def said_of(event: Item) -> str:
    """Return what an event says, and who did it."""
    by = f", by {clean(event['by'])}" if event.get("by") else ""
    return clean(event.get("message")) + by


def ports_of(item: Item, *, host: str = "") -> str:
    """Return published ports as `8080->80/tcp, ...`."""
    return ", ".join(
        f"{host}{p.get('host')}->{p.get('container')}/{p.get('protocol', 'tcp')}" for p in item.get("ports") or []
    )


def memory(amount: object) -> str:
    """Return an exact amount of memory as people read it, to three digits: `8218304Ki` is `7.84Gi`."""
    from manifests.quantities import parse_bytes

    try:
        amount_bytes = 0 if str(amount) == "0" else parse_bytes(amount)
    except ValueError:
        return clean(amount)
    for unit, size in _UNITS:
        if amount_bytes >= size:
            return f"{amount_bytes / size:.3g}{unit}" if amount_bytes < 1000 * size else f"{amount_bytes // size}{unit}"
    return str(amount_bytes)


def _node(item: Item, view: View) -> list[object]:
    reserved, allocatable = item.get("reserved") or {}, item.get("allocatable") or {}
    cells: list[object] = [
        item.get("name"),
        item.get("state"),
        f"{reserved.get('cpu', '?')}/{allocatable.get('cpu', '?')}",
        f"{memory(reserved.get('memory', '?'))}/{memory(allocatable.get('memory', '?'))}",
        item.get("allocations"),
        age(item.get("changedAt"), view.now_s),
    ]
    if view.is_wide:
        labels = ",".join(f"{k}={v}" for k, v in (item.get("labels") or {}).items())
        cells += [item.get("address") or "-", item.get("agentVersion") or "-", labels or "-"]
    return [*cells, item.get("message")]


def _workload(item: Item, view: View) -> list[object]:
    counts = item.get("counts") or {}
    kind = clean(item.get("kind")).lower()
    name = f"{kind}/{item.get('name')}" if view.kind == WORKLOADS else item.get("name")
    done = counts.get("succeeded" if kind == "job" else "ready", 0)
    progress: list[object] = ["-" if kind == "cronjob" else f"{done}/{counts.get('desired', 0)}"]
    if view.kind == CRON_JOBS:
        progress = cells_of(item, view.now_s)
    if view.kind in (SERVICES, DAEMONS):
        progress.append(counts.get("updated", 0))
    if view.kind == JOBS:
        progress += [counts.get("running", 0), counts.get("failed", 0)]
    owner = [item.get("owner") or "-"] if view.kind == JOBS else []
    cells: list[object] = [name, *progress, item.get("state"), *owner, age(item.get("createdAt"), view.now_s)]
    if view.is_wide:
        spec = (item.get("manifest") or {}).get("spec") or {}
        cells += [item.get("version"), _images_of(spec)]
    return [*cells, message_of(item)]


def _images_of(spec: Item) -> str:
    """Return the image, or those of a group, each once."""
    images = [spec.get("image"), *(container.get("image") for container in spec.get("containers") or [])]
    return ",".join(dict.fromkeys(str(image) for image in images if image))


def _allocation(item: Item, view: View) -> list[object]:
    cells: list[object] = [
        item.get("id"),
        item.get("node"),
        item.get("phase"),
        item.get("health"),
        item.get("restarts"),
        age(item.get("createdAt"), view.now_s),
    ]
    if view.is_wide:
        cells += [
            item.get("version"),
            item.get("address") or "-",
            ports_of(item) or "-",
            exit_of(item.get("lastEnding")) or "-",
        ]
        return [*cells, item.get("whySentence")]
    soon = f"next attempt {until(item['nextAttemptAt'], view.now_s)}" if item.get("nextAttemptAt") else ""
    return [*cells, "; ".join(filter(None, (trouble_of(item), soon)))]


def _event(item: Item, view: View) -> list[object]:
    cells: list[object] = [age(item.get("at"), view.now_s), times_of(item), item.get("subject"), item.get("reason")]
    if view.is_wide:
        return [*cells, age(item.get("firstAt"), view.now_s), item.get("revision"), said_of(item)]
    return [*cells, said_of(item)]


def _config(item: Item, view: View) -> list[object]:
    users = item.get("users") or []
    cells: list[object] = [
        item.get("name"),
        item.get("version"),
        item.get("bytes"),
        age(item.get("createdAt"), view.now_s),
    ]
    if view.is_wide:
        cells.append(",".join(map(str, item.get("keptVersions") or [])) or "-")
    return [*cells, f"used by {', '.join(map(str, users))}" if users else "used by nothing"]


def _namespace(item: Item, view: View) -> list[object]:
    cells: list[object] = [item.get("name"), item.get("workloads"), item.get("configs")]
    if view.is_wide:
        cells.append(item.get("changedBy") or "-")
    said = [*([] if item.get("preempts", True) else ["evicts nothing"])]
    if item.get("isolation", "baseline") != "baseline":
        said.append(f"isolation is {item['isolation']}")
    return [*cells, "; ".join(said)]


def _volume(item: Item, view: View) -> list[object]:
    users = item.get("users") or []
    return [item.get("name"), f"used by {', '.join(map(str, users))}" if users else "used by nothing"]


_ROWS = {
    VOLUMES: _volume,
    NAMESPACES: _namespace,
    CONFIGS: _config,
    NODES: _node,
    SERVICES: _workload,
    DAEMONS: _workload,
    JOBS: _workload,
    CRON_JOBS: _workload,
    WORKLOADS: _workload,
    ALLOCATIONS: _allocation,
    EVENTS: _event,
}
_HEADINGS: Mapping[str, tuple[str, ...]] = {
    NODES: ("NAME", "STATE", "CPU", "MEMORY", "ALLOCATIONS", "SINCE"),
    SERVICES: ("NAME", "READY", "UP-TO-DATE", "STATE", "AGE"),
    DAEMONS: ("NAME", "READY", "UP-TO-DATE", "STATE", "AGE"),
    JOBS: ("NAME", "SUCCEEDED", "RUNNING", "FAILED", "STATE", "OWNER", "AGE"),
    CRON_JOBS: ("NAME", "SCHEDULE", "ZONE", "SUSPEND", "LAST", "NEXT", "ACTIVE", "STATE", "AGE"),
    WORKLOADS: ("NAME", "DONE", "STATE", "AGE"),
    ALLOCATIONS: ("ID", "NODE", "PHASE", "HEALTH", "RESTARTS", "AGE"),
    EVENTS: ("AGE", "TIMES", "SUBJECT", "REASON"),
    NAMESPACES: ("NAME", "WORKLOADS", "CONFIGS"),
    CONFIGS: ("NAME", "VERSION", "BYTES", "AGE"),
    VOLUMES: ("NODE/NAME",),
}
_WIDE_HEADINGS: Mapping[str, tuple[str, ...]] = {
    NODES: ("ADDRESS", "AGENT", "LABELS"),
    SERVICES: ("VERSION", "IMAGE"),
    DAEMONS: ("VERSION", "IMAGE"),
    JOBS: ("VERSION", "IMAGE"),
    CRON_JOBS: ("VERSION", "IMAGE"),
    WORKLOADS: ("VERSION", "IMAGE"),
    ALLOCATIONS: ("VERSION", "ADDRESS", "PORTS", "LAST-ENDING"),
    EVENTS: ("FIRST", "REVISION"),
    NAMESPACES: ("CHANGED-BY",),
    CONFIGS: ("KEPT-VERSIONS",),
    VOLUMES: (),
}
