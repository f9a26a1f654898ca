"""Host ports: whether a node has those that an ask wants, and which ones an allocation gets."""

from collections import Counter
from collections.abc import Sequence

from manifests.allocations import HostPort
from scheduler.ledger import NodeLedger, hash_of
from scheduler.model import AUTO_PORTS, Ask, PortAsk

OWN_PORT = "another port of its own"
OTHERS = "other allocations"


def missing_port(ports: Sequence[PortAsk], node: NodeLedger) -> tuple[str, str] | None:
    """Return the first port that the node can't give and who holds it, or None if it can give them all."""
    own: set[tuple[int, str]] = set()
    autos: Counter[str] = Counter()
    for port in ports:
        if port.host is None:
            autos[port.protocol] += 1
            continue
        wanted = (port.host, port.protocol)
        if wanted in node.held or wanted in own:
            return f"{port.host}/{port.protocol}", node.held.get(wanted, OWN_PORT)
        own.add(wanted)
    for protocol, count in autos.items():
        own_autos = sum(host in AUTO_PORTS and p == protocol for host, p in own)
        if count > len(AUTO_PORTS) - node.auto_held[protocol] - own_autos:
            return f"{AUTO_PORTS.start}-{AUTO_PORTS.stop - 1}/{protocol}", OTHERS
    return None


def assign_ports(ask: Ask, index: int, node: NodeLedger, *, seed: int) -> tuple[HostPort, ...]:
    """Return the allocation's host ports, in the ask's order. The node has them: `missing_port` said so."""
    taken = {(p.host, p.protocol) for p in ask.ports if p.host is not None}
    assigned = []
    for port in ask.ports:
        host = port.host
        if host is None:
            host = _free_port(port, node, taken, start=hash_of(seed, node.name, ask.workload.uid, index, port.name))
            taken.add((host, port.protocol))
        protocol = "udp" if port.protocol == "udp" else "tcp"
        assigned.append(HostPort(name=port.name, container=port.container, host=host, protocol=protocol))
    return tuple(assigned)


def _free_port(port: PortAsk, node: NodeLedger, taken: set[tuple[int, str]], *, start: int) -> int:
    """Return the first free port from a hashed place on, going round.

    Not the lowest: a port that was just freed would be given away again while clients still connect to its old owner.
    """
    turned = (AUTO_PORTS[(start + step) % len(AUTO_PORTS)] for step in range(len(AUTO_PORTS)))
    return next(p for p in turned if (p, port.protocol) not in node.held and (p, port.protocol) not in taken)
