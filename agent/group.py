"""One allocation as its node sees it: a container alone, or a group around a sandbox; and how its facts are folded in.

Pure values. agent.steering decides for them, agent.summary says how they stand, agent.node keeps them. The order of the
members is that of their starts: the sandbox, sidecars, init containers, and then the others.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from agent.driver import Container, ContainerId, ContainerState
from agent.ownership import Identity
from agent.summary import Fate, summary
from agent.tracked import SANDBOX, Role, Tracked, newly_assigned, reminded, timeout_of, with_sight
from manifests.allocations import AllocationStatus
from manifests.session import Assigned

Listed = Sequence[tuple[Identity, Container]]


@dataclass(frozen=True, slots=True)
class Group:
    """`status` is what servers hear. `fate`, once known, is how the allocation will have ended."""

    status: AllocationStatus
    members: tuple[Tracked, ...]
    fate: Fate | None = None

    @property
    def id(self) -> str:
        return self.first.allocation

    @property
    def first(self) -> Tracked:
        """The first to start and the last to end: the only container, or the sandbox."""
        return self.members[0]

    @property
    def is_alone(self) -> bool:
        return self.first.role is Role.ALONE

    @property
    def deadline_s(self) -> float | None:
        """When a job's time is up."""
        timeout_s, first_s = timeout_of(self.first.assigned.workload), self.first.first_start_s
        return None if timeout_s is None or first_s is None else first_s + timeout_s

    def member(self, container: str) -> Tracked | None:
        return next((member for member in self.members if member.id == container), None)


def new_group(assigned: Assigned) -> Group:
    """Return the record of an allocation of which nothing is known but that it is desired."""
    fresh = newly_assigned(assigned)
    spec = assigned.workload.spec
    if not spec.is_group:
        return Group(fresh.status, (fresh,))
    roles = [
        (SANDBOX, Role.SANDBOX),
        *((member.name, Role.SIDECAR) for member in spec.containers if member.sidecar),
        *((init.name, Role.INIT) for init in spec.init_containers),
        *((name, Role.MEMBER) for name, member in spec.members.items() if not getattr(member, "sidecar", False)),
    ]
    members = tuple(replace(fresh, name=name, role=role) for name, role in roles)
    fate = Fate(fresh.status.phase, fresh.status.message) if fresh.status.is_terminal else None
    return with_members(Group(fresh.status, ()), members, fate)


def with_members(group: Group, members: tuple[Tracked, ...], fate: Fate | None = None) -> Group:
    """Return the group with these records, and what is to be said of it then."""
    fate = fate or group.fate
    return Group(summary(group.status, members, fate), members, fate)


def with_member(group: Group, new: Tracked) -> Group:
    return with_members(group, tuple(new if old.id == new.id else old for old in group.members))


def with_assigned(group: Group, assigned: Assigned) -> Group:
    """Return the group as it is desired now; ended, if the server knows that it has and this agent has forgotten it.

    Configs and digests that came before and not again are kept: they never change.
    """
    if group.first.assigned.configs.keys() - assigned.configs.keys():
        configs = {**group.first.assigned.configs, **assigned.configs}
        assigned = assigned.model_copy(update={"configs": configs})
    if group.first.assigned.images.keys() - assigned.images.keys():
        images = {**group.first.assigned.images, **assigned.images}
        assigned = assigned.model_copy(update={"images": images})
    ended = assigned.ended
    members = (reminded(replace(member, assigned=assigned, is_withdrawn=False)) for member in group.members)
    is_news = ended is not None and not group.is_alone and not group.status.is_terminal
    return with_members(group, tuple(members), Fate(ended.phase, ended.message) if ended and is_news else None)


def not_before(group: Group, time_s: float) -> Group:
    """Return the group with nothing of it being started before that time."""
    waiting = (m if m.container else replace(m, retry_s=time_s) for m in group.members)
    return with_members(group, tuple(waiting))


def withdrawn(group: Group) -> Group:
    return with_members(group, tuple(replace(member, is_withdrawn=True) for member in group.members))


def changed_members(old: Group | None, new: Group | None) -> Iterator[tuple[Tracked | None, Tracked | None]]:
    """Yield each container's record before and after, where it isn't the same one."""
    if old is not None and new is not None and old.is_alone:
        if old.first is not new.first:
            yield old.first, new.first
        return
    before = {member.id: member for member in old.members} if old else {}
    for member in new.members if new else ():
        if (known := before.pop(member.id, None)) is not member:
            yield known, member
    for gone in before.values():
        yield gone, None


def with_listed(tracked: Tracked, found: Listed) -> Tracked:
    """Return the record with the newest attempt's container as the current one, and the others as earlier ones."""
    ordered = sorted(found, key=lambda pair: pair[0].attempt)
    attempt, current = tracked.status.attempt, None
    if ordered and ordered[-1][0].attempt >= attempt:
        attempt, current = ordered[-1][0].attempt, ordered[-1][1]
    earlier = tuple(container.id for _, container in ordered if container is not current)
    return with_sight(tracked, current, attempt=attempt, earlier=earlier)


def listed_of(tracked: Tracked, found: Listed) -> Listed:
    return tuple(pair for pair in found if pair[0].container == tracked.name)


def strays(tracked: Tracked, found: Listed) -> tuple[ContainerId, ...]:
    """Return earlier attempts' containers that run beside the current one: their starts were given up too soon."""
    return tuple(c.id for _, c in found if c.state is ContainerState.RUNNING and c.id in tracked.earlier)
