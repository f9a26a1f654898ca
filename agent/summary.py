"""What is said of an allocation as a whole, out of what its containers are doing. Pure.

Of one that is alone: what is said of its container. Of a group: it runs when all have started; it is in backoff when
one of them is; its attempt rises with each of theirs, so that phases go forward within an attempt.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from agent.tracked import Role, Tracked
from manifests.allocations import NEXT, AllocationStatus, ContainerStatus, Ending, Health, Phase

_GOOD = frozenset({Phase.RUNNING, Phase.SUCCEEDED})


@dataclass(frozen=True, slots=True)
class Fate:
    """How an allocation will have ended once all of its containers have."""

    phase: Phase  # stopped | succeeded | failed
    message: str = ""
    container: str = ""  # the one that decided it
    ending: Ending | None = None  # where it isn't that container's


def summary(before: AllocationStatus, members: Sequence[Tracked], fate: Fate | None) -> AllocationStatus:
    """Return the status of them all; the very one from before if nothing in it has changed."""
    if members[0].role is Role.ALONE:
        return members[0].status
    if before.is_terminal:
        return _with_tail(before, members)
    sandbox, *others = members
    phase = _phase(before, members, fate)
    waits = [m.status.next_attempt_s for m in members if m.status.next_attempt_s is not None]
    status = before.model_copy(
        update={
            "phase": phase,
            "health": _health(others),
            "attempt": 1 + sum(member.status.attempt - 1 for member in members),
            "failures": max(member.strikes for member in members),
            "address": sandbox.status.address,
            "started_s": sandbox.status.started_s,
            "message": _message(phase, members, fate),
            "next_attempt_s": min(waits) if waits and phase is Phase.BACKOFF else None,
            "last_ending": _last_ending(members, fate),
            "images": {i: d for member in members for i, d in (member.status.images or {}).items()} or None,
            "containers": tuple(_container(member) for member in sorted(others, key=lambda m: m.role is not Role.INIT)),
        }
    )
    return before if status == before else status


def _with_tail(ended: AllocationStatus, members: Sequence[Tracked]) -> AllocationStatus:
    """Return the status of a group that has ended, with the last lines of what ended it, which come a moment later."""
    last = ended.last_ending
    found = next((m.status.last_ending for m in members if last is not None and m.name == last.container), None)
    if last is None or found is None or found.attempt != last.attempt or found.log_tail == last.log_tail:
        return ended
    return ended.model_copy(update={"last_ending": last.model_copy(update={"log_tail": found.log_tail})})


def has_let_go(member: Tracked) -> bool:
    """Say whether it has ended for good and nothing of it runs."""
    return member.status.is_terminal and not member.has_running_container


def is_ready(member: Tracked) -> bool:
    """Say whether those that wait for it may start."""
    return (member.status.is_ready and member.role is not Role.INIT) or member.status.phase is Phase.SUCCEEDED


def _phase(before: AllocationStatus, members: Sequence[Tracked], fate: Fate | None) -> Phase:
    if fate is not None:
        if all(has_let_go(member) for member in members):
            return fate.phase
        return Phase.STOPPING if Phase.STOPPING in NEXT[before.phase] else before.phase
    phases = {member.status.phase for member in members}
    if Phase.BACKOFF in phases:
        return Phase.BACKOFF
    if all(is_ready(member) if member.role is Role.INIT else member.status.phase in _GOOD for member in members):
        return Phase.RUNNING
    has_begun = phases != {Phase.PENDING} or any(member.status.attempt > 1 for member in members)
    return Phase.STARTING if has_begun else Phase.PENDING


def _health(others: Sequence[Tracked]) -> Health:
    """Return healthy if all are that run beside each other; those that have succeeded ask for nothing more."""
    found = {m.status.health for m in others if m.role is not Role.INIT and m.status.phase is not Phase.SUCCEEDED}
    if Health.UNHEALTHY in found:
        return Health.UNHEALTHY
    return Health.HEALTHY if found == {Health.HEALTHY} else Health.UNKNOWN


def _message(phase: Phase, members: Sequence[Tracked], fate: Fate | None) -> str:
    if fate is not None:
        return fate.message
    said = next((m for m in members if m.status.message and m.status.phase is not Phase.SUCCEEDED), None)
    if said is not None:
        return _said_by(said, said.status.message)
    if phase is Phase.STARTING:
        behind = next((member for member in members if not is_ready(member)), None)
        return "" if behind is None else _waits_for(behind)
    return ""


def _said_by(member: Tracked, message: str) -> str:
    return message if member.role is Role.SANDBOX else f"container {member.name}: {message}"


def _waits_for(member: Tracked) -> str:
    if member.role is Role.SANDBOX:
        return f"its sandbox is {member.status.phase}"
    noun = {Role.SIDECAR: "sidecar", Role.INIT: "init container"}.get(member.role, "container")
    return f"waits for {noun} {member.name}, which is {member.status.phase}"


def _last_ending(members: Sequence[Tracked], fate: Fate | None) -> Ending | None:
    """Return how the last of them ended that matters: what decided the end, or what went wrong while all goes on."""
    if fate is None:
        wanted = [m for m in members if m.status.phase is not Phase.SUCCEEDED]
    elif fate.ending is not None:
        return fate.ending
    else:
        wanted = [m for m in members if (m.name == fate.container if fate.container else m.role is Role.MEMBER)]
    ends = [_named(m, m.status.last_ending) for m in wanted if m.status.last_ending is not None]
    return max(ends, key=lambda ending: ending.finished_s, default=None)


def _named(member: Tracked, ending: Ending) -> Ending:
    return ending if member.role is Role.SANDBOX else ending.model_copy(update={"container": member.name})


def _container(member: Tracked) -> ContainerStatus:
    status = member.status
    return ContainerStatus(
        name=member.name,
        phase=status.phase,
        health=status.health,
        attempt=status.attempt,
        container_id=status.container_id,
        message=status.message,
        # Of the lines only those of the allocation's last ending are told: a status must stay small.
        last_ending=status.last_ending and status.last_ending.model_copy(update={"log_tail": ()}),
    )
