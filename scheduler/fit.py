"""Whether a node can take an allocation, and if not, the first thing that rules it out. In this order: whether it takes
any, taints, constraints, maxPerNode, cpu, memory, pids, host ports."""

from collections.abc import Iterable

from manifests.constraints import parse_attribute
from manifests.reasons import Code, Rejection, render_amount
from manifests.taints import Toleration, untolerated
from scheduler.eligible import failed_constraint
from scheduler.ledger import NodeLedger
from scheduler.model import Ask, Eligibility, PortAsk
from scheduler.ports import missing_port

NOT_SET = "not set"
_CLOSED = {
    Eligibility.CORDONED: Code.CORDONED,
    Eligibility.DRAINING: Code.DRAINING,
    Eligibility.TROUBLED: Code.TROUBLED,
    Eligibility.SUSPECT: Code.SUSPECT,
    Eligibility.LOST: Code.LOST,
}
_MEBIBYTE = 2**20
_PORTS = range(1, 65_536)


def rejection_of(ask: Ask, node: NodeLedger, running: int) -> Rejection | None:
    """Return why the node can't take one more allocation, or None if it can.

    `running` counts the wanted allocations of the ask's workload on the node.
    """
    if node.view.eligibility is not Eligibility.READY:
        return Rejection(node.name, _CLOSED[node.view.eligibility])
    if node.view.taints and (taint := next(untolerated(node.view.taints, ask.tolerations), None)):
        return Rejection(node.name, Code.TAINT, str(Toleration(taint.key, taint.value or None)), str(taint))
    if ask.constraints and (failed := failed_constraint(node.view, ask.constraints)):
        constraint, found = failed
        return Rejection(node.name, Code.CONSTRAINT, str(constraint), NOT_SET if found is None else found)
    if ask.max_per_node is not None and running >= ask.max_per_node:
        return Rejection(node.name, Code.MAX_PER_NODE, str(ask.max_per_node), str(running))
    if not ask.reserved.fits(node.free):
        return _lacking(ask, node)
    if ask.ports and (missing := missing_port(ask.ports, node)):
        return Rejection(node.name, Code.HOST_PORT, *missing)
    return None


def _lacking(ask: Ask, node: NodeLedger) -> Rejection:
    amounts = (
        (Code.CPU, ask.reserved.cpu_m, node.free.cpu_m),
        (Code.MEMORY, ask.reserved.memory_bytes, node.free.memory_bytes),
        (Code.PIDS, ask.reserved.pids, node.free.pids),
    )
    code, needed, free = next(a for a in amounts if a[1] > a[2])
    return Rejection(node.name, code, render_amount(code, needed), render_amount(code, _readable(code, free)))


def _readable(code: Code, free: int) -> int:
    """Return free memory in whole mebibytes, rounded down: `15612Mi` says more to people than `16370364416`."""
    return free - free % _MEBIBYTE if code is Code.MEMORY and free > _MEBIBYTE else free


def malformed(ask: Ask) -> str:
    """Return what makes the ask one that no node could ever take, or "" if it is sound.

    Manifests let none of this through; but one such record must not stop the plan for all others.
    """
    amounts = (("cpu", ask.reserved.cpu_m), ("memory", ask.reserved.memory_bytes), ("pids", ask.reserved.pids))
    if below := next((name for name, amount in amounts if amount < 0), None):
        return f"it reserves less than nothing of {below}"
    for port in ask.ports:
        if port.protocol not in ("tcp", "udp") or not _is_port(port):
            return f"'{port.name}' is no port that a host has: {port.host}/{port.protocol}"
    return _unknown_attribute((*(c.attribute for c in ask.constraints), *ask.spread))


def _is_port(port: PortAsk) -> bool:
    return port.host is None or port.host in _PORTS


def _unknown_attribute(attributes: Iterable[str]) -> str:
    for attribute in attributes:
        try:
            parse_attribute(attribute)
        except ValueError as error:
            return str(error)
    return ""
