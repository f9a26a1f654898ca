"""This node's allocations: takes in assignments and facts, lets reconcile decide, and passes its actions on.

All methods but `run_timers` are synchronous, so that a fact and what follows from it are one step. It knows no driver
and no session; agent.actions, agent.watch_runtime, agent.health and agent.session call it.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from agent.admission import admit
from agent.driver import Container, ContainerId
from agent.generations import SETTLE_S, Generations
from agent.group import (
    Group,
    Listed,
    changed_members,
    listed_of,
    new_group,
    not_before,
    strays,
    with_assigned,
    with_listed,
    with_member,
    withdrawn,
)
from agent.ownership import order_of
from agent.reconcile import Action, Discard, Forget
from agent.severed import is_severed, released
from agent.steering import next_look_at_group_s, settle
from agent.tracked import (
    Failure,
    Moment,
    Tracked,
    Work,
    condemned,
    with_delay,
    with_digest,
    with_failure,
    with_health,
    with_log_tail,
    with_sight,
    without_work,
)
from foundation.clock import Clock
from foundation.logs import Log
from manifests.allocations import NEXT, Allocation, Health, Phase, advance
from manifests.containers import Resources
from manifests.permissions import Permission
from manifests.session import Assignments

LOOK_AGAIN_S = 30.0  # at everything, should a wake-up have been lost
Perform = Callable[[Action], None]
OnChange = Callable[[Group | None, Group | None], None]
_log = Log(__name__)


class Node:
    """`perform` begins an action and returns at once; `on_change` hears of each new, changed and forgotten record,
    `on_kept` of what is kept from before a restore."""

    def __init__(
        self,
        *,
        allocatable: Resources,
        allowed: frozenset[Permission] = frozenset(),
        clock: Clock,
        perform: Perform,
        on_change: OnChange,
        silent_s: Callable[[], float] = lambda: 0.0,
        on_kept: Callable[[], None] = lambda: None,
        restored: Iterable[Group] = (),
        applied_revision: int = 0,
        generations: Generations | None = None,
    ) -> None:
        self._allocatable = allocatable
        self._allowed = allowed
        self._silent_s = silent_s
        self._clock = clock
        self._perform = perform
        self._on_change = on_change
        self._on_kept = on_kept
        self._groups = {group.id: group for group in restored}
        self._by_container: dict[ContainerId, str] = {}
        self._unclaimed: dict[str, Listed] | None = None  # of unknown allocations; None until the first full list
        self._has_full = False
        self._untold: frozenset[str] = frozenset()  # the server has them and can't read them
        self._wake = asyncio.Event()
        self._generations = generations or Generations()
        self.applied_revision = applied_revision
        self.has_looked = asyncio.Event()  # the container manager has said once what there is

    @property
    def groups(self) -> Mapping[str, Group]:
        """The allocations, by id."""
        return self._groups

    @property
    def tracked(self) -> Mapping[str, Tracked]:
        """All of their containers, by id."""
        return {member.id: member for group in self._groups.values() for member in group.members}

    @property
    def has_full(self) -> bool:
        """Whether this session's server has said all that is desired."""
        return self._has_full

    def wanted_images(self) -> set[str] | None:
        """Return the images that assignments name, by tag and by digest; None until a server has said all of them."""
        return {name for t in self._members() for name in (t.spec.image, t.image)} if self._has_full else None

    def find(self, container: str) -> Tracked | None:
        group = self._groups.get(container.partition("/")[0])
        return None if group is None else group.member(container)

    def known(self, container: str) -> Tracked:
        """Return the record of a container for which work is under way, so that it can't be forgotten."""
        tracked = self.find(container)
        assert tracked is not None
        return tracked

    def container_of(self, seen: ContainerId) -> Tracked | None:
        return self.find(self._by_container.get(seen, ""))

    # What the server says.

    def begin_session(self) -> None:
        """Orphans are left alone until this session's server has said what is desired."""
        self._has_full = False

    @property
    def generation(self) -> int:
        return self._generations.present

    @property
    def kept(self) -> tuple[Allocation, ...]:
        """What is kept from before the present generation, as far as more of it is known than its containers."""
        kept = (self._groups.get(allocation) for allocation in sorted(self._generations.kept))
        return tuple(group.first.assigned.allocation for group in kept if group)

    def begin_generation(self, generation: int) -> None:
        """Obey a server of that generation of the store from now on."""
        if self._generations.begin(generation):
            _log.warning("a new generation of the store has begun: what runs is kept", generation=generation)
            self.applied_revision = 0
            self._on_kept()

    def assign(self, frame: Assignments) -> bool:
        """Obey what the server desires; False if the frame is older than what is obeyed already."""
        if frame.revision < self.applied_revision:
            _log.warning("old assignments were ignored", revision=frame.revision, applied=self.applied_revision)
            return False
        self.applied_revision = frame.revision
        touched = [assigned.allocation.id for assigned in frame.assigned]
        adopted = self._generations.let_go((*touched, *frame.withdrawn))
        is_first = frame.is_full and self._generations.is_fresh
        gone = set(frame.withdrawn)
        if frame.is_full:
            absent = self._groups.keys() - set(touched) - set(frame.untold) - self._generations.kept
            if is_first:
                self._generations.keep(absent)
            else:
                gone |= absent
        for assigned in frame.assigned:
            old = self._groups.get(assigned.allocation.id)
            new = self._claimed(new_group(assigned)) if old is None else with_assigned(old, assigned)
            if old is None and is_first:
                new = not_before(new, self._clock.now_s() + SETTLE_S)
            if new.id in adopted:  # the server doesn't know yet how it is
                new = replace(new, status=new.status.model_copy())
            self._put(new)
        for allocation in gone:
            if (old := self._groups.get(allocation)) is not None:
                self._put(withdrawn(old))
        self._settle([*touched, *gone])
        if frame.is_full:
            self._has_full = True
            self._untold = frozenset(frame.untold)
            self._end_orphans()
            self.release_severed()
        if adopted or self._generations.kept:
            self._on_kept()
        return True

    def look_for_severed(self) -> None:
        """End what has had no word for too long, also if the word comes right now."""
        moment = self._moment()
        self._settle([t.allocation for t in self._members() if is_severed(t, moment) and not t.awaits_word])

    def release_severed(self) -> None:
        """Let go on what waits for a server's word, once this session's server has said all that is desired.

        It has said nothing of what it can't read, or what is kept from before a restore: that goes on as well, unless
        it may run only under a server's eyes.
        """
        if self._has_full:
            moment, unsaid = self._moment(), self._generations.kept | self._untold
            waiting = [t for t in self._members() if t.awaits_word and not is_severed(t, moment)]
            self._release([t for t in waiting if t.stop_after_s is None or t.allocation not in unsaid])

    def go_on_unheard(self) -> None:
        """Let go on without a word what isn't to end without one."""
        self._release([t for t in self._members() if t.awaits_word and t.stop_after_s is None])

    def _release(self, waiting: Sequence[Tracked]) -> None:
        for tracked in waiting:
            self._keep(released(tracked))
        if waiting:
            self._settle([t.allocation for t in waiting])

    def _members(self) -> list[Tracked]:
        return [member for group in self._groups.values() for member in group.members]

    def _claimed(self, group: Group) -> Group:
        """Return a new record with what the last full list showed of it."""
        if self._unclaimed is None:
            return group
        found = self._unclaimed.pop(group.id, ())
        for member in group.members:
            group = with_member(group, with_listed(member, listed_of(member, found)))
        return group

    # What the container manager says.

    def lose_sight(self) -> None:
        """The manager went away: what is found ended when it is back may have been ended by that."""
        for tracked in self.tracked.values():
            self._keep(replace(tracked, has_lost_sight=True))

    def see_all(self, listed: Listed, before: Mapping[str, Tracked]) -> None:
        """Take in a full list. `before` is what was tracked when it was asked for: what changed since is not judged."""
        self._recall_orders(listed)
        found: dict[str, Listed] = {}
        for identity, container in listed:
            found[identity.allocation] = (*found.get(identity.allocation, ()), (identity, container))
        for tracked in self.tracked.values():
            known = before.get(tracked.id)
            if known is not None and tracked.work is Work.NONE and _stage(known) == _stage(tracked):
                of_it = listed_of(tracked, found.get(tracked.allocation, ()))
                seen = with_listed(tracked, of_it)
                self._keep(seen)
                if running := strays(seen, of_it):
                    self._perform(Discard(running))
        self._unclaimed = {allocation: of_it for allocation, of_it in found.items() if allocation not in self._groups}
        self.has_looked.set()
        self._settle(self._groups)
        self._end_orphans()

    def _recall_orders(self, listed: Listed) -> None:
        """Obey nothing older than what runs here was ordered by: an agent may die before it has written that down."""
        newest = max((order_of(container.labels) for _, container in listed), default=(0, 0))
        if newest > (self._generations.present, self.applied_revision):
            generation, self.applied_revision = newest
            self._generations.recall(generation)

    def see(self, before: Tracked, container: Container | None) -> None:
        """Take in how the current container is now, unless things have moved on since it was asked for."""
        tracked = self.find(before.id)
        if tracked is not None and tracked.work is Work.NONE and _stage(before) == _stage(tracked):
            self._keep(with_sight(tracked, container, attempt=tracked.status.attempt))
            self._settle([tracked.allocation])

    def _end_orphans(self) -> None:
        """Stop and remove containers with our seal that nothing desires, once a server has said what is desired."""
        if not self._has_full or self._unclaimed is None:
            return
        if self._generations.is_fresh:
            self._generations.keep(self._unclaimed)
            self._generations.is_fresh = False
            self._on_kept()
        spared = self._untold | self._generations.kept
        for allocation, found in self._unclaimed.items():
            if allocation in spared:
                continue
            _log.info("orphans removed", allocation=allocation, containers=len(found))
            for _, container in found:  # at once: each may take its time to end
                self._perform(Discard((container.id,)))
        self._unclaimed = {a: found for a, found in self._unclaimed.items() if a in spared}

    # What becomes of actions.

    def progress(self, container: str, phase: Phase, message: str = "") -> None:
        """A start goes on: its image is being made ready, or its container.

        One that is begun again, by a new agent or after a failure of the manager, stays as far on as it was.
        """
        tracked = self.known(container)
        if tracked.work is Work.START and phase in NEXT[tracked.status.phase]:
            self._keep(replace(tracked, status=advance(tracked.status, phase, message=message)))

    def tell_pulled(self, container: str, message: str) -> None:
        """Its image is being pulled, and has come so far."""
        tracked = self.find(container)
        if tracked is not None and tracked.status.phase is Phase.PULLING and message:
            self._keep(replace(tracked, status=tracked.status.model_copy(update={"message": message})))

    def resolve(self, container: str, digest: str) -> None:
        """Its image was found to have this digest."""
        self._keep(with_digest(self.known(container), digest))

    def finish(self, container: str, work: Work, seen: Container | None) -> None:
        """Work is done, and this is how the container is now."""
        if (tracked := self.find(container)) is None:
            return
        if tracked.work is work:
            tracked = without_work(tracked)
        self._keep(with_sight(tracked, seen, attempt=tracked.status.attempt))
        self._settle([tracked.allocation])

    def finish_removal(self, container: str) -> None:
        tracked = without_work(self.known(container))
        self._keep(replace(tracked, container=None, earlier=()))
        self._settle([tracked.allocation])

    def fail_start(self, container: str, failure: Failure, seen: Container | None) -> None:
        tracked = self.known(container)
        if tracked.work is Work.START:
            self._keep(with_failure(tracked, failure, seen))
            self._settle([tracked.allocation])

    def delay(self, container: str, work: Work, *, delay_s: float, message: str) -> None:
        """Work failed because the manager doesn't answer: it is tried again later."""
        tracked = self.known(container)
        if tracked.work is work:
            self._keep(with_delay(tracked, retry_s=self._clock.now_s() + delay_s, message=message))
            self._wake.set()

    def retry_now(self) -> None:
        """The manager answers again."""
        for tracked in self.tracked.values():
            if tracked.retry_s:
                self._keep(replace(tracked, retry_s=0.0))
        self._settle(self._groups)

    def tell_all(self, message: str, *, instead_of: str) -> None:
        """Put a message, or its end, on what runs and has nothing else to say."""
        for group in list(self._groups.values()):
            first = group.first
            if first.status.phase is Phase.RUNNING and first.status.message == instead_of:
                self._keep(replace(first, status=first.status.model_copy(update={"message": message})))

    # What the checks say.

    def set_health(self, container: str, attempt: int, health: Health) -> None:
        tracked = self.find(container)
        if tracked is not None and _runs(tracked, attempt) and tracked.status.health is not health:
            self._keep(with_health(tracked, health, self._clock.now_s()))
            self._settle([tracked.allocation])  # others of its group may wait for it

    def condemn(self, container: str, attempt: int, message: str) -> None:
        """Its liveness check has failed for good."""
        tracked = self.find(container)
        if tracked is not None and _runs(tracked, attempt) and not tracked.doom:
            self._keep(condemned(tracked, message))
            self._settle([tracked.allocation])

    def add_log_tail(self, container: str, attempt: int, lines: tuple[str, ...]) -> None:
        """Take in the last lines of an attempt that has ended."""
        if (tracked := self.find(container)) is not None:
            self._keep(with_log_tail(tracked, attempt, lines))

    # The machinery.

    async def run_timers(self) -> None:
        """Look again at what only time moves on: backoffs, timeouts, retries."""
        while True:
            now_s = self._clock.now_s()
            times = [at for g in self._groups.values() if (at := next_look_at_group_s(g, now_s)) is not None]
            delay_s = min([LOOK_AGAIN_S, *(at - now_s for at in times)])
            self._wake.clear()
            try:
                async with asyncio.timeout(max(delay_s, 0.001)):
                    await self._wake.wait()
            except TimeoutError:
                self._settle(self._groups)

    def _settle(self, allocations: Iterable[str]) -> None:
        """Decide on these, and on those who wait for room, and begin what that asks for."""
        moment = self._moment()
        wanted = set(allocations)
        if self._someone_waits():
            wanted |= self._admit(moment)
        for allocation in sorted(wanted):
            self._decide(allocation, moment)
        if self._someone_waits():
            for allocation in sorted(self._admit(moment)):  # room may just have been made
                self._decide(allocation, moment)
        self._wake.set()

    def _moment(self) -> Moment:
        return Moment(self._clock.now_s(), self._clock.wall_s(), self._silent_s())

    def _someone_waits(self) -> bool:
        return any(not g.first.is_admitted and not g.status.is_terminal for g in self._groups.values())

    def _admit(self, moment: Moment) -> set[str]:
        changed = admit([group.first for group in self._groups.values()], self._allocatable, moment, self._allowed)
        for tracked in changed:
            self._keep(tracked)
        return {tracked.allocation for tracked in changed}

    def _decide(self, allocation: str, moment: Moment) -> None:
        old = self._groups.get(allocation)
        if old is None:
            return
        new, actions = settle(old, moment)
        if new is not old:
            _log_transition(old, new)
            self._put(new)
        for action in actions:
            if isinstance(action, Forget):
                del self._groups[allocation]
                self._on_change(new, None)
            self._perform(action)

    def _keep(self, new: Tracked) -> None:
        self._put(with_member(self._groups[new.allocation], new))

    def _put(self, new: Group) -> None:
        old = self._groups.get(new.id)
        for before, after in changed_members(old, new):
            if before is not None and before.container is not None:
                self._by_container.pop(before.container.id, None)
            if after is not None and after.container is not None:
                self._by_container[after.container.id] = after.id
        self._groups[new.id] = new
        self._on_change(old, new)


def _runs(tracked: Tracked, attempt: int) -> bool:
    return tracked.status.phase is Phase.RUNNING and tracked.status.attempt == attempt


def _stage(tracked: Tracked) -> tuple[object, ...]:
    """Return what must not have changed while the manager was being asked, for the answer to be believed."""
    container = tracked.container
    seen = None if container is None else (container.id, container.state)
    return tracked.status.phase, tracked.status.attempt, tracked.work, seen


def _log_transition(old: Group, new: Group) -> None:
    if old.status.phase is new.status.phase and old.status.attempt == new.status.attempt:
        return
    status = new.status
    fields: dict[str, object] = {"allocation": new.id, "attempt": status.attempt}
    if status.message:
        fields["message"] = status.message
    _log.info(f"allocation became {status.phase}", **fields)
