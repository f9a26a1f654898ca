"""Whether an ask makes sense at all.

Manifests let nothing else through; but one bad record must not stop the plan for all others.
"""

from collections.abc import Iterable

from manifests.constraints import parse_attribute
from scheduler.model import Ask, PortAsk

_PORTS = range(1, 65_536)
_MOST_PORTS = 1_000


def unsound(ask: Ask) -> str:
    """Return what makes the ask one that no node could ever take, or "" if it is sound."""
    if note := _unsound_amount(ask):
        return note
    for port in ask.ports:
        if port.protocol not in ("tcp", "udp") or not _is_port(port):
            return f"'{port.name}' is no port that a host has: {port.host}/{port.protocol}"
    if len(ask.ports) > _MOST_PORTS:
        return f"it has {len(ask.ports)} ports"
    attributes = (
        *(c.attribute for c in ask.constraints),
        *(s.over for s in ask.spread),
        *(a.constraint.attribute for a in ask.affinities),
        *(n.over for n in ask.neighbours),
    )
    return _unknown_attribute(attributes)


def _unsound_amount(ask: Ask) -> str:
    reserved = ask.reserved
    amounts = (
        ("cpu", reserved.cpu_m),
        ("memory", reserved.memory_bytes),
        ("pids", reserved.pids),
        ("disk", reserved.disk_bytes),
        *reserved.devices,
    )
    below = next((name for name, amount in amounts if amount < 0), None)
    return f"it reserves less than nothing of {below}" if below else ""


def _is_port(port: PortAsk) -> bool:
    return port.host is None or port.host in _PORTS


def _unknown_attribute(attributes: Iterable[str]) -> str:
    for attribute in attributes:
        try:
            parse_attribute(attribute)
        except ValueError as error:
            return str(error)
    return ""
