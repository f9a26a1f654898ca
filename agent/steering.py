"""What the containers of a group have to do with each other: who may start, who must end, and how it all ends. Pure.

Sidecars start first, one after the other, each once the one before it is ready; then init containers, each once the one
before it has succeeded; then all others at once. A restart of one waits for no other and has no one else started anew;
only when the sandbox is lost, and the network with it, does everything begin afresh. The group ends when someone wants
that, when one container has failed for good, or when all but the sidecars have succeeded; sidecars stop last.
"""

from collections.abc import Sequence
from dataclasses import replace

from agent.driver import ContainerId
from agent.group import Group, with_members
from agent.pacing import group_free_again_s, recent
from agent.reconcile import Action, Discard, Forget, begin_stop, decide, late_message, next_look_s
from agent.summary import Fate, has_let_go, is_ready
from agent.tracked import Moment, Role, Tracked, Turn, Work
from manifests.allocations import Ending, Phase, begun_anew


def settle(group: Group, moment: Moment) -> tuple[Group, tuple[Action, ...]]:
    """Return the allocation as it must be now, and what is to be done; itself and nothing once all is well."""
    if group.is_alone:
        member, actions = decide(group.first, moment)
        return (group if member is group.first else with_members(group, (member,))), actions
    done: list[Action] = []
    while True:
        fate = group.fate or _fate(group, moment)
        members = list(_steered(group.members, fate))
        for at, member in enumerate(members):
            paced = _paced(member, members, moment)  # afresh for each: the one before may have started
            members[at], actions = _decided(paced, members[0], moment, has_fate=fate is not None)
            done += actions
        new = tuple(members)
        if fate is group.fate and new == group.members:
            return group, _as_one(done, group)
        group = with_members(group, new, fate)


def next_look_at_group_s(group: Group, now_s: float) -> float | None:
    """Return when time alone will ask for something, if ever."""
    if group.is_alone:
        return next_look_s(group.first, now_s)
    times = [at for member in group.members if (at := next_look_s(member, now_s)) is not None]
    if group.fate is None and group.deadline_s is not None:
        times.append(group.deadline_s)
    return min(times, default=None)


def _as_one(actions: Sequence[Action], group: Group) -> tuple[Action, ...]:
    """Return the actions, with one word that nothing is left once that holds of all containers."""
    kept = [action for action in actions if not isinstance(action, Forget)]
    is_over = len(kept) < len(actions) and all(member.work is Work.FORGOTTEN for member in group.members)
    return (*kept, Forget(group.id)) if is_over else tuple(kept)


def _fate(group: Group, moment: Moment) -> Fate | None:
    if group.first.is_unwanted:
        return Fate(Phase.STOPPED, group.first.assigned.allocation.stop_reason)
    if group.deadline_s is not None and moment.now_s >= group.deadline_s:
        message = late_message(group.first.assigned.workload)
        ending = Ending(attempt=group.status.attempt, reason="timeout", message=message, finished_s=moment.wall_s)
        return Fate(Phase.FAILED, message, ending=ending)
    failed = [member for member in group.members if member.status.phase is Phase.FAILED]
    if failed:
        first = min(failed, key=lambda member: member.status.last_ending.finished_s if member.status.last_ending else 0)
        named = "" if first.role is Role.SANDBOX else f"container {first.name}: "
        return Fate(Phase.FAILED, named + first.status.message, first.name)
    if all(member.status.phase is Phase.SUCCEEDED for member in group.members if member.role is Role.MEMBER):
        return Fate(Phase.SUCCEEDED)
    return None


def _paced(member: Tracked, members: Sequence[Tracked], moment: Moment) -> Tracked:
    """Return the record with the time before which the starts of all of them together forbid another one."""
    free_s = group_free_again_s((other.starts for other in members), moment.now_s)
    paced_s = free_s if recent(member.starts, moment.now_s) else 0.0
    return member if member.paced_s == paced_s else replace(member, paced_s=paced_s)


def _steered(members: Sequence[Tracked], fate: Fate | None) -> tuple[Tracked, ...]:
    """Return the records with their turns, and with the sandbox that they belong to."""
    sandbox = members[0]
    found = [sandbox, *(_in_round(member, sandbox) for member in members[1:])]
    if fate is not None:
        return tuple(_ending(member, found, fate) for member in found)
    return (_with_turn(sandbox, Turn.FREE), *(_in_turn(member, found) for member in found[1:]))


def _in_round(member: Tracked, sandbox: Tracked) -> Tracked:
    """Return the record with the round that its container tells of by the network in which it lives."""
    of = sandbox.container.id if sandbox.container is not None else None
    is_joined = member.container is not None and member.container.network_of == of
    begun = member.has_begun or member.container is not None
    attempt = sandbox.status.attempt if is_joined or not begun else member.round
    network_of = ContainerId(of) if of is not None and sandbox.has_running_container else None
    found = (begun, attempt, network_of, sandbox.status.address)
    if found == (member.has_begun, member.round, member.network_of, member.group_address):
        return member
    return replace(member, has_begun=begun, round=attempt, network_of=network_of, group_address=sandbox.status.address)


def _ending(member: Tracked, members: Sequence[Tracked], fate: Fate) -> Tracked:
    """Return the record with the order to end, once those have ended that must do so before it."""
    match member.role:
        case Role.SANDBOX:
            before = [other for other in members if other is not member]
        case Role.SIDECAR:
            before = [other for other in members if other.role in (Role.INIT, Role.MEMBER)]
        case _:
            before = []
    turn = Turn.END if all(has_let_go(other) for other in before) else Turn.LAST
    return _with_turn(member, turn, fate.message or "the other containers have ended")


def _in_turn(member: Tracked, members: Sequence[Tracked]) -> Tracked:
    if not members[0].has_running_container or members[0].status.phase is not Phase.RUNNING:
        return _with_turn(member, Turn.WAIT)
    round_ = members[0].status.attempt
    is_its_turn = all(is_ready(other) and other.round == round_ for other in _before(member, members))
    if not member.has_begun and not is_its_turn:
        return _with_turn(member, Turn.WAIT)
    return replace(_with_turn(member, Turn.FREE), has_begun=True, is_admitted=True)


def _before(member: Tracked, members: Sequence[Tracked]) -> list[Tracked]:
    """Return those that must be ready, or have succeeded, before its first start."""
    sidecars = [other for other in members if other.role is Role.SIDECAR]
    inits = [other for other in members if other.role is Role.INIT]
    match member.role:
        case Role.SIDECAR:
            return sidecars[: sidecars.index(member)]
        case Role.INIT:
            return sidecars + inits[: inits.index(member)]
        case _:
            return sidecars + inits


def _with_turn(member: Tracked, turn: Turn, message: str = "") -> Tracked:
    if member.turn is turn and member.turn_message == message:
        return member
    return replace(member, turn=turn, turn_message=message)


def _decided(
    member: Tracked, sandbox: Tracked, moment: Moment, *, has_fate: bool
) -> tuple[Tracked, tuple[Action, ...]]:
    if not has_fate and member.role is not Role.SANDBOX and _is_of_the_past(member, sandbox):
        return _renewed(member, moment)
    return decide(member, moment)


def _is_of_the_past(member: Tracked, sandbox: Tracked) -> bool:
    """Say whether it lives in, or has ended in, a network that is gone."""
    is_lost = sandbox.status.phase is Phase.BACKOFF or member.round != sandbox.status.attempt
    return member.is_seen and member.has_begun and is_lost


def _renewed(member: Tracked, moment: Moment) -> tuple[Tracked, tuple[Action, ...]]:
    """Return the record on its way to a first start in a new network: what runs in the old one is stopped before."""
    if member.work is Work.START or (member.work is Work.NONE and member.has_running_container):
        stopped, action = begin_stop(member)
        return stopped, (action,)
    if member.work is not Work.NONE or moment.now_s < member.retry_s:
        return member, ()
    container, status = member.container, member.status
    is_untouched = container is None and status.phase is Phase.PENDING
    gone = () if container is None else (container.id,)
    new = replace(
        member,
        status=status if is_untouched else begun_anew(status),
        container=None,
        earlier=gone or member.earlier,
        has_begun=False,
        failure=None,
        doom="",
        doom_message="",
        due_s=0.0,
    )
    return new, (Discard(member.earlier),) if gone and member.earlier else ()
