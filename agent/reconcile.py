"""What to do next for each container on this node, as data. Pure: no I/O, no clock, no chance.

`decide` looks at one container afresh and says how its record changes and which actions that asks for; asked again
about its own result it says nothing. What those of a group have to do with each other is agent.steering's, which calls
this for each of them; agent.node applies the changes and hands the actions to agent.actions.
"""

from dataclasses import dataclass, replace
from typing import TypeAlias

from agent.driver import ContainerId, ContainerState
from agent.endings import DISCONNECTED, end_attempt, ending_of, finish
from agent.pacing import recent
from agent.severed import is_severed, sever
from agent.tracked import Moment, Tracked, Work, forgiven, timeout_of
from manifests.allocations import Health, Phase, advance, next_attempt
from manifests.quantities import render_duration
from manifests.workloads import Workload


@dataclass(frozen=True, slots=True)
class Start:
    """Make the image ready, create the attempt's container and start it."""

    container: str  # its id in the agent's records
    is_restart: bool  # of what others may rely upon already


@dataclass(frozen=True, slots=True)
class Stop:
    """End the container by its stop signal, and a start that is under way."""

    container: str
    signal: str
    grace_s: float


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove all that is left of a container, over all its attempts: its allocation isn't desired any more."""

    container: str
    containers: tuple[ContainerId, ...]


@dataclass(frozen=True, slots=True)
class Discard:
    """Remove exited containers of earlier attempts. Nothing waits for it."""

    containers: tuple[ContainerId, ...]


@dataclass(frozen=True, slots=True)
class Forget:
    """Nothing is left of the allocation: say so and drop the record."""

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
    times = [tracked.retry_s, tracked.deadline_s or 0.0]
    if tracked.status.phase is not Phase.RUNNING:
        times.append(_next_start_s(tracked, now_s))
    elif tracked.strikes:
        times.append(_steady_again_s(tracked))
    return min((at for at in times if at > now_s), default=None)


def _next_start_s(tracked: Tracked, now_s: float) -> float:
    if tracked.is_held or tracked.work is not Work.NONE:
        return 0.0
    match tracked.status.phase:
        case Phase.BACKOFF:
            return max(tracked.due_s, tracked.may_start_s(now_s))
        case Phase.PENDING | Phase.PULLING | Phase.STARTING:
            return tracked.may_start_s(now_s)
        case _:
            return 0.0


def _steady_again_s(tracked: Tracked) -> float:
    if not tracked.strikes or tracked.healthy_since_s is None:
        return 0.0
    return tracked.healthy_since_s + tracked.steady_s


def _step(tracked: Tracked, moment: Moment) -> _Step:
    if is_severed(tracked, moment) and not tracked.must_end and not tracked.awaits_word:
        return sever(tracked, moment), None
    if tracked.work is not Work.NONE:
        is_over = tracked.must_end or _is_late(tracked, moment) or is_severed(tracked, moment)
        return begin_stop(tracked) if tracked.work is Work.START and is_over else None
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
        return finish(tracked, Phase.STOPPED, None, tracked.end_reason), None
    if tracked.doom == DISCONNECTED:
        return end_attempt(tracked, moment), None
    if tracked.doom:
        return finish(tracked, Phase.FAILED, ending_of(tracked, moment)), None
    now_s = moment.now_s
    if not tracked.is_admitted or tracked.is_held or tracked.awaits_word or now_s < tracked.may_start_s(now_s):
        return None
    starts = (*recent(tracked.starts, now_s), now_s)
    return replace(tracked, work=Work.START, starts=starts), Start(tracked.id, is_restart=status.attempt > 1)


def _arrive(tracked: Tracked, moment: Moment) -> _Step:
    """The container runs: say so, and let go of all but the last of the earlier ones."""
    container = tracked.container
    assert container is not None
    checks = tracked.spec.health
    health = Health.UNKNOWN if checks.readiness or checks.startup else Health.HEALTHY
    status = advance(
        tracked.status,
        Phase.RUNNING,
        health=health,
        container_id=container.id,
        address=container.address,
        started_s=container.started_s,
    )
    discard = Discard(tracked.earlier[:-1]) if len(tracked.earlier) > 1 else None
    arrived = replace(
        tracked,
        status=status,
        first_start_s=tracked.first_start_s if tracked.first_start_s is not None else moment.now_s,
        healthy_since_s=moment.now_s if health is Health.HEALTHY else None,
        earlier=tracked.earlier[-1:],
    )
    return arrived, discard


def _step_running(tracked: Tracked, moment: Moment) -> _Step:
    if not tracked.has_running_container:
        return end_attempt(tracked, moment), None
    if tracked.must_end:
        return replace(tracked, status=advance(tracked.status, Phase.STOPPING, message=tracked.end_reason)), None
    if tracked.doom:
        return begin_stop(tracked)
    return (forgiven(tracked), None) if tracked.strikes and tracked.is_steady(moment.now_s) else None


def _step_stopping(tracked: Tracked, moment: Moment) -> _Step:
    if tracked.has_running_container:
        return begin_stop(tracked)
    if tracked.doom == "timeout":
        return finish(tracked, Phase.FAILED, ending_of(tracked, moment)), None
    ending = ending_of(tracked, moment) if tracked.container is not None else None
    return finish(tracked, Phase.STOPPED, ending), None


def _step_backoff(tracked: Tracked, moment: Moment) -> _Step:
    if tracked.must_end:
        return finish(tracked, Phase.STOPPED, None, tracked.end_reason), None
    if tracked.doom:
        return finish(tracked, Phase.FAILED, ending_of(tracked, moment)), None
    if tracked.has_running_container:
        return begin_stop(tracked)  # its start was given up, and then it came up after all
    now_s = moment.now_s
    if now_s < tracked.due_s or tracked.is_held or tracked.awaits_word or now_s < tracked.may_start_s(now_s):
        return None
    gone = () if tracked.container is None else (tracked.container.id,)
    old = tracked.earlier if gone else ()  # the last one's logs are worth most: only that is kept
    changed = replace(tracked, status=next_attempt(tracked.status), container=None, earlier=gone or tracked.earlier)
    return changed, Discard(old) if old else None


def begin_stop(tracked: Tracked) -> tuple[Tracked, Action]:
    """Return the record while its container is being stopped, and the order to do so."""
    stop = tracked.spec.stop
    action = Stop(tracked.id, stop.signal, stop.grace_s)
    return replace(tracked, work=Work.STOP), action


def _clear_away(tracked: Tracked) -> _Step:
    """A terminal allocation keeps its container, for the logs, until it is withdrawn; but never a running one."""
    if tracked.has_running_container:
        return begin_stop(tracked)
    if not tracked.is_withdrawn:
        return None
    ids = tracked.earlier if tracked.container is None else (*tracked.earlier, tracked.container.id)
    if ids:
        return replace(tracked, work=Work.REMOVE), Remove(tracked.id, ids)
    return replace(tracked, work=Work.FORGOTTEN), Forget(tracked.allocation)


def _is_late(tracked: Tracked, moment: Moment) -> bool:
    deadline_s = tracked.deadline_s
    return deadline_s is not None and moment.now_s >= deadline_s and not tracked.status.is_terminal


def _doom_late(tracked: Tracked) -> Tracked:
    message = late_message(tracked.assigned.workload)
    status = tracked.status
    if status.phase is Phase.RUNNING:
        status = advance(status, Phase.STOPPING, message=message)
    return replace(tracked, status=status, doom="timeout", doom_message=message)


def late_message(workload: Workload) -> str:
    took = render_duration(timeout_of(workload) or 0.0)
    return f"it took longer than its timeout of {took}: raise spec.timeout, or split it"
