"""What to do next for each allocation on this node, as data. Pure: no I/O, no clock, no chance.

`decide` looks at one allocation afresh and says how its record changes and which actions that asks for; asked again
about its own result it says nothing. `admit` is the last line of defence against more than the node can hold.
Called by agent.node, which applies the changes and hands the actions to agent.actions.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import TypeAlias

from agent.driver import ContainerId, ContainerState
from agent.endings import DISCONNECTED, end_attempt, ending_of, finish
from agent.severed import is_severed, sever
from agent.tracked import Moment, Tracked, Work
from manifests.allocations import Ending, Health, Phase, advance, next_attempt
from manifests.containers import Resources
from manifests.quantities import render_bytes, render_cpu, render_duration
from manifests.workloads import Job


@dataclass(frozen=True, slots=True)
class Start:
    """Make the image ready, create the attempt's container and start it."""

    allocation: str
    is_restart: bool  # of what others may rely upon already


@dataclass(frozen=True, slots=True)
class Stop:
    """End the allocation's container by its stop signal, and a start that is under way."""

    allocation: str
    signal: str
    grace_s: float


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove all containers of an allocation that has ended and isn't desired any more."""

    allocation: str
    containers: tuple[ContainerId, ...]


@dataclass(frozen=True, slots=True)
class Discard:
    """Remove exited containers of earlier attempts. Nothing waits for it."""

    containers: tuple[ContainerId, ...]


@dataclass(frozen=True, slots=True)
class Forget:
    """Nothing is left of it: say so and drop the record."""

    allocation: str


Action: TypeAlias = Start | Stop | Remove | Discard | Forget
_Step: TypeAlias = tuple[Tracked, Action | None] | None


def decide(tracked: Tracked, moment: Moment) -> tuple[Tracked, tuple[Action, ...]]:
    """Return the record as it must be now, and what is to be done; the record itself and nothing once all is well."""
    actions: list[Action] = []
    while (step := _step(tracked, moment)) is not None:
        tracked, action = step
        if action is not None:
            actions.append(action)
    return tracked, tuple(actions)


def next_look_s(tracked: Tracked, now_s: float) -> float | None:
    """Return when time alone will ask for something, if ever."""
    if tracked.status.is_terminal and tracked.retry_s <= now_s:
        return None
    times = [
        tracked.retry_s,
        tracked.due_s if tracked.status.phase is Phase.BACKOFF else 0.0,
        tracked.deadline_s or 0.0,
    ]
    return min((at for at in times if at > now_s), default=None)


def _step(tracked: Tracked, moment: Moment) -> _Step:
    if is_severed(tracked, moment) and not tracked.must_end and not tracked.awaits_word:
        return sever(tracked, moment), None
    if tracked.work is not Work.NONE:
        is_over = tracked.must_end or _is_late(tracked, moment) or is_severed(tracked, moment)
        return _stop(tracked) if tracked.work is Work.START and is_over else None
    if not tracked.is_seen or moment.now_s < tracked.retry_s:
        return None
    if tracked.status.is_terminal:
        return _clear_away(tracked)
    if _is_late(tracked, moment) and not tracked.must_end and not tracked.doom:
        return _doom_late(tracked), None
    match tracked.status.phase:
        case Phase.RUNNING:
            return _step_running(tracked, moment)
        case Phase.STOPPING:
            return _step_stopping(tracked, moment)
        case Phase.BACKOFF:
            return _step_backoff(tracked, moment)
        case _:
            return _step_starting(tracked, moment)


def _step_starting(tracked: Tracked, moment: Moment) -> _Step:
    """PENDING, PULLING and STARTING, also after an agent's restart in the middle of them."""
    if tracked.failure is not None:
        return end_attempt(tracked, moment), None
    container, status = tracked.container, tracked.status
    if container is not None and container.state is not ContainerState.CREATED:
        if status.phase is not Phase.STARTING:
            changes = {"container_id": container.id, "message": status.message}
            return replace(tracked, status=advance(status, Phase.STARTING, **changes)), None
        return _arrive(tracked, moment) if tracked.has_running_container else (end_attempt(tracked, moment), None)
    if tracked.must_end:
        return finish(tracked, Phase.STOPPED, None, tracked.assigned.allocation.stop_reason), None
    if tracked.doom == DISCONNECTED:
        return end_attempt(tracked, moment), None
    if tracked.doom:
        return finish(tracked, Phase.FAILED, ending_of(tracked, moment)), None
    if not tracked.is_admitted or tracked.awaits_word:
        return None
    return replace(tracked, work=Work.START), Start(tracked.id, is_restart=status.attempt > 1)


def _arrive(tracked: Tracked, moment: Moment) -> _Step:
    """The container runs: say so, and let go of all but the last of the earlier ones."""
    container = tracked.container
    assert container is not None
    health = Health.UNKNOWN if tracked.spec.health.readiness else Health.HEALTHY
    status = advance(
        tracked.status,
        Phase.RUNNING,
        health=health,
        container_id=container.id,
        address=container.address,
        started_s=container.started_s,
    )
    first_s = tracked.first_start_s if tracked.first_start_s is not None else moment.now_s
    discard = Discard(tracked.earlier[:-1]) if len(tracked.earlier) > 1 else None
    return replace(tracked, status=status, first_start_s=first_s, earlier=tracked.earlier[-1:]), discard


def _step_running(tracked: Tracked, moment: Moment) -> _Step:
    if not tracked.has_running_container:
        return end_attempt(tracked, moment), None
    if tracked.must_end:
        reason = tracked.assigned.allocation.stop_reason
        return replace(tracked, status=advance(tracked.status, Phase.STOPPING, message=reason)), None
    return _stop(tracked) if tracked.doom else None


def _step_stopping(tracked: Tracked, moment: Moment) -> _Step:
    if tracked.has_running_container:
        return _stop(tracked)
    if tracked.doom == "timeout":
        return finish(tracked, Phase.FAILED, ending_of(tracked, moment)), None
    ending = ending_of(tracked, moment) if tracked.container is not None else None
    return finish(tracked, Phase.STOPPED, ending), None


def _step_backoff(tracked: Tracked, moment: Moment) -> _Step:
    if tracked.must_end:
        return finish(tracked, Phase.STOPPED, None, tracked.assigned.allocation.stop_reason), None
    if tracked.doom:
        return finish(tracked, Phase.FAILED, ending_of(tracked, moment)), None
    if tracked.has_running_container:
        return _stop(tracked)  # its start was given up, and then it came up after all
    if moment.now_s < tracked.due_s or tracked.awaits_word:
        return None
    gone = () if tracked.container is None else (tracked.container.id,)
    old = tracked.earlier if gone else ()  # the last one's logs are worth most: only that is kept
    changed = replace(tracked, status=next_attempt(tracked.status), container=None, earlier=gone or tracked.earlier)
    return changed, Discard(old) if old else None


def _stop(tracked: Tracked) -> _Step:
    stop = tracked.spec.stop
    action = Stop(tracked.id, stop.signal, stop.grace_s)
    return replace(tracked, work=Work.STOP), action


def _clear_away(tracked: Tracked) -> _Step:
    """A terminal allocation keeps its container, for the logs, until it is withdrawn; but never a running one."""
    if tracked.has_running_container:
        return _stop(tracked)
    if not tracked.is_withdrawn:
        return None
    ids = tracked.earlier if tracked.container is None else (*tracked.earlier, tracked.container.id)
    if ids:
        return replace(tracked, work=Work.REMOVE), Remove(tracked.id, ids)
    return replace(tracked, work=Work.FORGOTTEN), Forget(tracked.id)


def _is_late(tracked: Tracked, moment: Moment) -> bool:
    deadline_s = tracked.deadline_s
    return deadline_s is not None and moment.now_s >= deadline_s and not tracked.status.is_terminal


def _doom_late(tracked: Tracked) -> Tracked:
    workload = tracked.assigned.workload
    timeout_s = workload.spec.timeout_s if isinstance(workload, Job) else None
    message = f"it took longer than its timeout of {render_duration(timeout_s or 0.0)}: raise spec.timeout, or split it"
    status = tracked.status
    if status.phase is Phase.RUNNING:
        status = advance(status, Phase.STOPPING, message=message)
    return replace(tracked, status=status, doom="timeout", doom_message=message)


def admit(tracked: Collection[Tracked], allocatable: Resources, moment: Moment) -> tuple[Tracked, ...]:
    """Return the records that are newly admitted or refused, oldest assignment first; others wait for what is ending.

    Refused is what the node can't hold even when all that is on its way out has gone.
    """
    holding = [t for t in tracked if t.is_admitted and not _has_let_go(t)]
    staying = [t for t in holding if not t.must_end]
    changed: list[Tracked] = []
    for newcomer in sorted(tracked, key=lambda t: (t.assigned.allocation.created_s, t.id)):
        if newcomer.is_admitted or newcomer.must_end or not newcomer.is_seen or newcomer.status.is_terminal:
            continue
        if lack := _lack(newcomer, staying, allocatable):
            changed.append(_refuse(newcomer, lack, moment))
        elif not _lack(newcomer, holding, allocatable):
            admitted = replace(newcomer, is_admitted=True)
            changed.append(admitted)
            holding.append(admitted)
            staying.append(admitted)
    return tuple(changed)


def _has_let_go(tracked: Tracked) -> bool:
    return tracked.status.is_terminal and not tracked.has_running_container


def _lack(newcomer: Tracked, others: Iterable[Tracked], allocatable: Resources) -> str:
    """Return what the node lacks for the newcomer beside the others, "" if nothing."""
    others = tuple(others)
    for name, render in (("cpu_m", render_cpu), ("memory_bytes", render_bytes), ("pids", str)):
        needed: int = getattr(newcomer.reserved, name)
        free: int = getattr(allocatable, name) - sum(getattr(other.reserved, name) for other in others)
        if needed > free:
            word = name.split("_")[0]
            return f"it needs {render(needed)} {word}, and {render(free) if free > 0 else 0} is free"
    taken = {(port.host, port.protocol): other.id for other in others for port in other.ports}
    clash = next((port for port in newcomer.ports if (port.host, port.protocol) in taken), None)
    return f"host port {clash.host} is held by {taken[clash.host, clash.protocol]}" if clash else ""


def _refuse(tracked: Tracked, lack: str, moment: Moment) -> Tracked:
    message = f"the node can't hold it: {lack}"
    ending = Ending(attempt=tracked.status.attempt, reason="refused", message=message, finished_s=moment.wall_s)
    return finish(tracked, Phase.FAILED, ending)
