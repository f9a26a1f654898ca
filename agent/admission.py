"""The last line of defence against more than the node can hold: who may start, who waits, and who is refused. Pure.

Called by agent.node, with one record for each allocation: its only container, or the sandbox of a group, which is the
first to start and the last to end.
"""

from collections.abc import Collection, Iterable
from dataclasses import replace

from agent.endings import finish
from agent.tracked import Moment, Tracked
from manifests.allocations import Ending, Phase
from manifests.containers import Resources
from manifests.permissions import Permission, lacking
from manifests.quantities import render_bytes, render_cpu


def admit(
    tracked: Collection[Tracked], allocatable: Resources, moment: Moment, allowed: Collection[Permission] = ()
) -> tuple[Tracked, ...]:
    """Return the records that are newly admitted or refused, oldest assignment first; others wait for what is ending.

    Refused is what needs a permission that the node's operator hasn't given (`allowed`), whatever servers say; and what
    the node can't hold even when all that is on its way out has gone.
    """
    holding = [t for t in tracked if t.is_admitted and not _has_let_go(t)]
    staying = [t for t in holding if not t.is_leaving]
    changed: list[Tracked] = []
    for newcomer in sorted(tracked, key=lambda t: (t.assigned.allocation.created_s, t.id)):
        if newcomer.is_admitted or newcomer.is_leaving or not newcomer.is_seen or newcomer.status.is_terminal:
            continue
        if forbidden := lacking(newcomer.assigned.workload.spec.all_permissions(), allowed):
            changed.append(_refuse(newcomer, not_allowed(forbidden), moment))
        elif lack := _lack(newcomer, staying, allocatable):
            changed.append(_refuse(newcomer, f"the node can't hold it: {lack}", moment))
        elif not _lack(newcomer, holding, allocatable):
            admitted = replace(newcomer, is_admitted=True)
            changed.append(admitted)
            holding.append(admitted)
            staying.append(admitted)
    return tuple(changed)


_AMOUNTS = (("cpu_m", render_cpu), ("memory_bytes", render_bytes), ("pids", str), ("disk_bytes", render_bytes))


def _has_let_go(tracked: Tracked) -> bool:
    return tracked.status.is_terminal and not tracked.has_running_container


def _lack(newcomer: Tracked, others: Iterable[Tracked], allocatable: Resources) -> str:
    """Return what the node lacks for the newcomer beside the others, "" if nothing."""
    others = tuple(others)
    for name, render in _AMOUNTS:
        needed: int = getattr(newcomer.reserved, name)
        free: int = getattr(allocatable, name) - sum(getattr(other.reserved, name) for other in others)
        if needed > free:
            word = name.split("_")[0]
            return f"it needs {render(needed)} {word}, and {render(free) if free > 0 else 0} is free"
    taken = {(port.host, port.protocol): other.allocation for other in others for port in other.ports}
    clash = next((port for port in newcomer.ports if (port.host, port.protocol) in taken), None)
    if clash:
        return f"host port {clash.host} is held by {taken[clash.host, clash.protocol]}"
    holders = {device: other.allocation for other in others for device in _devices(other)}
    held = next((device for device in _devices(newcomer) if device in holders), None)
    return f"device {held[1]} is held by {holders[held]}" if held else ""


def _devices(tracked: Tracked) -> list[tuple[str, str]]:
    devices = tracked.assigned.allocation.devices
    return [(kind, instance) for kind, instances in devices.items() for instance in instances]


def not_allowed(permissions: Iterable[Permission]) -> str:
    listed = " and ".join(permissions)
    flags = " ".join(f"--allow {permission}" for permission in permissions)
    return f"the node doesn't allow {listed}: only its operator can, with `wherry agent {flags}`"


def _refuse(tracked: Tracked, message: str, moment: Moment) -> Tracked:
    ending = Ending(attempt=tracked.status.attempt, reason="refused", message=message, finished_s=moment.wall_s)
    return finish(tracked, Phase.FAILED, ending)
