"""What `wherry top` shows: rows of what allocations and nodes use. Pure: the API's JSON in, cells out, cleaned."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from wherry.cli.tables import memory
from wherry.cli.text import clean

Item = Mapping[str, Any]
ALLOCATION_HEADINGS = (
    *("ALLOCATION", "NODE", "CPU", "CPU%", "MEMORY", "MEM%", "PEAK", "PIDS", "THROTTLED", "PRESSURE"),
)
NODE_HEADINGS = (
    *("NODE", "CPU", "CPU%", "MEMORY", "MEM%", "CONTAINERS", "MACHINE-CPU", "MACHINE-MEM", "PRESSURE", "MESSAGE"),
)
_PRESSURES = ("cpu", "memory", "io")
_SUMS = ("cpuMillicores", "memoryBytes", "memoryPeakBytes", "pids", "periods", "throttledPeriods")


def allocation_rows(answer: Item, *, each_container: bool = False) -> list[list[str]]:
    """Return a row for each allocation, or for each container of it, those that use most cpu first.

    What a group uses is the sum of its containers; its throttled share is that of all their periods.
    """
    found: dict[str, list[Item]] = {}
    nodes: dict[str, str] = {}
    for item in answer.get("items") or []:
        for container in item.get("containers") or []:
            is_named = each_container and container.get("container") != "main"
            name = clean(container.get("allocation")) + (f"/{clean(container.get('container'))}" if is_named else "")
            found.setdefault(name, []).append(container)
            nodes[name] = clean(item.get("node"))
    ordered = sorted(found, key=lambda name: (-(_sum(found[name], "cpuMillicores") or 0), name))
    return [_allocation_row(name, nodes[name], found[name]) for name in ordered]


def _allocation_row(name: str, node: str, containers: Sequence[Item]) -> list[str]:
    used = {key: _sum(containers, key) for key in _SUMS}
    limit = {key: sum(c["limit"][key] for c in containers) for key in ("cpuMillicores", "memoryBytes")}
    return [
        name,
        node,
        cpu(used["cpuMillicores"]),
        percent(used["cpuMillicores"], limit["cpuMillicores"]),
        memory(int(used["memoryBytes"] or 0)),
        percent(used["memoryBytes"], limit["memoryBytes"]),
        memory(int(used["memoryPeakBytes"] or 0)),
        str(used["pids"]),
        percent(used["throttledPeriods"], used["periods"]),
        pressure({name: _most(c.get(f"{name}Pressure") for c in containers) for name in _PRESSURES}),
    ]


def node_rows(answer: Item, nodes: Iterable[Item]) -> list[list[str]]:
    """Return a row for each node, those whose containers use most cpu first, and the silent ones last."""
    allocatable = {clean(node.get("name")): node.get("allocatable") or {} for node in nodes}
    items = sorted(answer.get("items") or [], key=lambda item: -(_sum(item["containers"], "cpuMillicores") or 0))
    rows = [_node_row(item, allocatable.get(clean(item.get("node")), {})) for item in items]
    blank = [""] * (len(NODE_HEADINGS) - 2)
    return rows + [[clean(s.get("node")), *blank, clean(s.get("why"))] for s in answer.get("silent") or []]


def _node_row(item: Item, allocatable: Item) -> list[str]:
    from manifests.quantities import parse_bytes, parse_cpu

    machine, containers = item["machine"], item["containers"]
    cpu_m, used = _sum(containers, "cpuMillicores"), _sum(containers, "memoryBytes") or 0
    shares = {name: machine.get(f"{name}Pressure10s") for name in _PRESSURES}
    return [
        clean(item.get("node")),
        cpu(cpu_m if containers else 0),
        percent(cpu_m, parse_cpu(allocatable["cpu"]) if "cpu" in allocatable else 0),
        memory(int(used)),
        percent(used, parse_bytes(allocatable["memory"]) if "memory" in allocatable else 0),
        str(len(containers)),
        percent(machine.get("cpuMillicores"), 1000 * machine["cores"]),
        percent(machine["memoryBytes"], machine["memoryTotalBytes"]),
        pressure(shares),
        "",
    ]


def cpu(amount_m: float | None) -> str:
    """Return millicores for people; "-" before there are two readings.

    >>> cpu(3.14159), cpu(0.0), cpu(250.4), cpu(12345.0), cpu(None)
    ('3.1m', '0m', '250m', '12.3', '-')
    """
    if amount_m is None:
        return "-"
    if amount_m >= 10_000:
        return f"{amount_m / 1000:.1f}"
    return f"{amount_m:.1f}m".replace(".0m", "m") if amount_m < 10 else f"{amount_m:.0f}m"


def percent(part: float | None, whole: float | None) -> str:
    """Return a share for people; "-" where there is nothing that it could be of.

    >>> percent(1, 3), percent(0, 3), percent(1, 3000), percent(None, 1), percent(1, 0)
    ('33%', '0%', '<1%', '-', '-')
    """
    if part is None or not whole:
        return "-"
    share = 100 * part / whole
    return "<1%" if 0 < share < 1 else f"{share:.0f}%"


def pressure(shares: Mapping[str, float | None]) -> str:
    """Return the shares of the last ten seconds in which something waited, the worst first; "-" if nothing did.

    >>> pressure({"cpu": 0.5, "memory": 0.001, "io": 0.75}), pressure({"cpu": None, "io": 0.0})
    ('io 75%, cpu 50%', '-')
    """
    seen = sorted(((share, name) for name, share in shares.items() if share and share >= 0.01), reverse=True)
    return ", ".join(f"{name} {100 * share:.0f}%" for share, name in seen) or "-"


def _sum(containers: Iterable[Item], key: str) -> float | None:
    """Return the sum of what is known; None if nothing is."""
    known = [c[key] for c in containers if c.get(key) is not None]
    return sum(known) if known else None


def _most(found: Iterable[Item | None]) -> float | None:
    return max((each["share10s"] for each in found if each), default=None)
