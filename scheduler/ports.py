"""Host ports and devices: whether a node has those that an ask wants, and which ones an allocation gets."""

from collections import Counter
from collections.abc import Sequence

from manifests.allocations import HostPort
from scheduler.hashing import hash_of
from scheduler.holdings import Holdings, PortKey
from scheduler.model import AUTO_PORTS, Ask, DeviceShare, NodeView, PortAsk

OWN_PORT = "another port of its own"
OTHERS = "other allocations"


def has_ports(ports: Sequence[PortAsk], holdings: Holdings, row: int) -> bool:
    """Say whether the node can give them all once more. (What is missing is told by the rulings.)"""
    static = [(port.host, port.protocol) for port in ports if port.host is not None]
    if len(set(static)) < len(static) or any(row in holdings.rows_with_port(port) for port in static):
        return False
    for protocol, count in Counter(port.protocol for port in ports if port.host is None).items():
        own_autos = sum(host in AUTO_PORTS and p == protocol for host, p in static)
        if count > len(AUTO_PORTS) - holdings.autos(protocol).get(row, 0) - own_autos:
            return False
    return True


def auto_range(protocol: str) -> str:
    return f"{AUTO_PORTS.start}-{AUTO_PORTS.stop - 1}/{protocol}"


def assign_ports(ask: Ask, index: int, node: str, holdings: Holdings, row: int, *, seed: int) -> tuple[HostPort, ...]:
    """Return the allocation's host ports, in the ask's order. The node has them."""
    taken = {(p.host, p.protocol) for p in ask.ports if p.host is not None}
    assigned = []
    for port in ask.ports:
        host = port.host
        if host is None:
            start = hash_of(seed, node, ask.workload.uid, index, port.name)
            host = _free_port(port.protocol, holdings, row, taken, start=start)
            taken.add((host, port.protocol))
        protocol = "udp" if port.protocol == "udp" else "tcp"
        assigned.append(HostPort(name=port.name, container=port.container, host=host, protocol=protocol))
    return tuple(assigned)


def _free_port(protocol: str, holdings: Holdings, row: int, taken: set[PortKey], *, start: int) -> int:
    """Return the first free port from a hashed place on, going round.

    Not the lowest: a port that was just freed would be given away again while clients still connect to its old owner.
    """
    turned = (AUTO_PORTS[(start + step) % len(AUTO_PORTS)] for step in range(len(AUTO_PORTS)))
    return next(p for p in turned if row not in holdings.rows_with_port((p, protocol)) and (p, protocol) not in taken)


def assign_devices(ask: Ask, node: NodeView, holdings: Holdings, row: int) -> tuple[DeviceShare, ...]:
    """Return which instances of each kind the allocation gets: the first free ones. The node has enough of them."""
    held = holdings.devices(row)
    return tuple(
        (kind, tuple([i for i in node.devices.get(kind, ()) if (kind, i) not in held][:count]))
        for kind, count in ask.reserved.devices
    )
