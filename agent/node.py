"""This node's allocations: takes in assignments and facts, lets reconcile decide, and passes its actions on.

All methods but `run_timers` are synchronous, so that a fact and what follows from it are one step. It knows no driver
and no session; agent.actions, agent.watch_runtime, agent.health and agent.session call it.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from agent.driver import Container, ContainerId, ContainerState
from agent.ownership import Identity
from agent.reconcile import Action, Discard, Forget, admit, decide, next_look_s
from agent.severed import is_severed, released
from agent.tracked import (
    Failure,
    Moment,
    Tracked,
    Work,
    condemned,
    newly_assigned,
    with_delay,
    with_failure,
    with_health,
    with_sight,
    without_work,
)
from foundation.clock import Clock
from foundation.logs import Log
from manifests.allocations import Health, Phase, advance
from manifests.containers import Resources
from manifests.session import Assignments

LOOK_AGAIN_S = 30.0  # at everything, should a wake-up have been lost
Perform = Callable[[Action], None]
OnChange = Callable[[Tracked | None, Tracked | None], None]
Listed = Sequence[tuple[Identity, Container]]
_log = Log(__name__)


class Node:
    """`perform` begins an action and returns at once; `on_change` hears of each new, changed and forgotten record."""

    def __init__(
        self,
        *,
        allocatable: Resources,
        clock: Clock,
        perform: Perform,
        on_change: OnChange,
        silent_s: Callable[[], float] = lambda: 0.0,
        restored: Iterable[Tracked] = (),
        applied_revision: int = 0,
    ) -> None:
        self._allocatable = allocatable
        self._silent_s = silent_s
        self._clock = clock
        self._perform = perform
        self._on_change = on_change
        self._tracked = {tracked.id: tracked for tracked in restored}
        self._by_container: dict[ContainerId, str] = {}
        self._unclaimed: dict[str, Listed] | None = None  # of unknown allocations; None until the first full list
        self._has_full = False
        self._untold: frozenset[str] = frozenset()  # the server has them and can't read them
        self._wake = asyncio.Event()
        self.applied_revision = applied_revision
        self.has_looked = asyncio.Event()  # the container manager has said once what there is

    @property
    def tracked(self) -> Mapping[str, Tracked]:
        return self._tracked

    def allocation_of(self, container: ContainerId) -> Tracked | None:
        return self._tracked.get(self._by_container.get(container, ""))

    # What the server says.

    def begin_session(self) -> None:
        """Orphans are left alone until this session's server has said what is desired."""
        self._has_full = False

    def assign(self, frame: Assignments) -> bool:
        """Obey what the server desires; False if the frame is older than what is obeyed already."""
        if frame.revision < self.applied_revision:
            _log.warning("old assignments were ignored", revision=frame.revision, applied=self.applied_revision)
            return False
        self.applied_revision = frame.revision
        touched = [assigned.allocation.id for assigned in frame.assigned]
        gone = set(frame.withdrawn)
        if frame.is_full:
            gone |= self._tracked.keys() - set(touched) - set(frame.untold)
        for assigned in frame.assigned:
            old = self._tracked.get(assigned.allocation.id)
            new = self._claimed(newly_assigned(assigned)) if old is None else replace(old, assigned=assigned)
            self._keep(replace(new, is_withdrawn=False))
        for allocation in gone:
            if (old := self._tracked.get(allocation)) is not None:
                self._keep(replace(old, is_withdrawn=True))
        self._settle([*touched, *gone])
        if frame.is_full:
            self._has_full = True
            self._untold = frozenset(frame.untold)
            self._end_orphans()
            self.release_severed()
        return True

    def look_for_severed(self) -> None:
        """End what has had no word for too long, also if the word comes right now."""
        self._settle([t.id for t in self._tracked.values() if is_severed(t, self._moment()) and not t.awaits_word])

    def release_severed(self) -> None:
        """Let go on what waits for a server's word, once this session's server has said all that is desired."""
        moment = self._moment()
        waiting = [t for t in self._tracked.values() if t.awaits_word and not is_severed(t, moment)]
        if self._has_full and waiting:
            for tracked in waiting:
                self._keep(released(tracked))
            self._settle([t.id for t in waiting])

    def _claimed(self, tracked: Tracked) -> Tracked:
        """Return a new record with what the last full list showed of it."""
        if self._unclaimed is None:
            return tracked
        return _with_listed(tracked, self._unclaimed.pop(tracked.id, ()))

    # What the container manager says.

    def lose_sight(self) -> None:
        """The manager went away: what is found ended when it is back may have been ended by that."""
        for tracked in list(self._tracked.values()):
            self._keep(replace(tracked, has_lost_sight=True))

    def see_all(self, listed: Listed, before: Mapping[str, Tracked]) -> None:
        """Take in a full list. `before` is what was tracked when it was asked for: what changed since is not judged."""
        groups: dict[str, Listed] = {}
        for identity, container in listed:
            groups[identity.allocation] = (*groups.get(identity.allocation, ()), (identity, container))
        for allocation, tracked in list(self._tracked.items()):
            found = groups.pop(allocation, ())
            known = before.get(allocation)
            if known is not None and tracked.work is Work.NONE and _stage(known) == _stage(tracked):
                seen = _with_listed(tracked, found)
                self._keep(seen)
                if strays := _running_strays(seen, found):
                    self._perform(Discard(strays))
        self._unclaimed = groups
        self.has_looked.set()
        self._settle(self._tracked)
        self._end_orphans()

    def see(self, before: Tracked, container: Container | None) -> None:
        """Take in how the current container is now, unless things have moved on since it was asked for."""
        tracked = self._tracked.get(before.id)
        if tracked is not None and tracked.work is Work.NONE and _stage(before) == _stage(tracked):
            self._keep(with_sight(tracked, container, attempt=tracked.status.attempt))
            self._settle([tracked.id])

    def _end_orphans(self) -> None:
        """Stop and remove containers with our seal that nothing desires, once a server has said what is desired."""
        if not self._has_full or not self._unclaimed:
            return
        for allocation, found in self._unclaimed.items():
            if allocation in self._untold:
                continue
            _log.info("orphans removed", allocation=allocation, containers=len(found))
            self._perform(Discard(tuple(container.id for _, container in found)))
        self._unclaimed = {a: found for a, found in self._unclaimed.items() if a in self._untold}

    # What becomes of actions.

    def progress(self, allocation: str, phase: Phase, message: str = "") -> None:
        """A start goes on: its image is being made ready, or its container."""
        tracked = self._tracked[allocation]
        if tracked.work is Work.START and tracked.status.phase is not phase and not tracked.status.is_terminal:
            self._keep(replace(tracked, status=advance(tracked.status, phase, message=message)))

    def finish(self, allocation: str, work: Work, container: Container | None) -> None:
        """Work is done, and this is how the container is now."""
        if (tracked := self._tracked.get(allocation)) is None:
            return
        if tracked.work is work:
            tracked = without_work(tracked)
        self._keep(with_sight(tracked, container, attempt=tracked.status.attempt))
        self._settle([allocation])

    def finish_removal(self, allocation: str) -> None:
        tracked = without_work(self._tracked[allocation])
        self._keep(replace(tracked, container=None, earlier=()))
        self._settle([allocation])

    def fail_start(self, allocation: str, failure: Failure, container: Container | None) -> None:
        tracked = self._tracked[allocation]
        if tracked.work is Work.START:
            self._keep(with_failure(tracked, failure, container))
            self._settle([allocation])

    def delay(self, allocation: str, work: Work, *, delay_s: float, message: str) -> None:
        """Work failed because the manager doesn't answer: it is tried again later."""
        tracked = self._tracked[allocation]
        if tracked.work is work:
            self._keep(with_delay(tracked, retry_s=self._clock.now_s() + delay_s, message=message))
            self._wake.set()

    def retry_now(self) -> None:
        """The manager answers again."""
        for tracked in list(self._tracked.values()):
            if tracked.retry_s:
                self._keep(replace(tracked, retry_s=0.0))
        self._settle(self._tracked)

    def tell_all(self, message: str, *, instead_of: str) -> None:
        """Put a message, or its end, on what runs and has nothing else to say."""
        for tracked in list(self._tracked.values()):
            if tracked.status.phase is Phase.RUNNING and tracked.status.message == instead_of:
                status = tracked.status.model_copy(update={"message": message})
                self._keep(replace(tracked, status=status))

    # What the checks say.

    def set_health(self, allocation: str, attempt: int, health: Health) -> None:
        tracked = self._tracked.get(allocation)
        if tracked is not None and _runs(tracked, attempt) and tracked.status.health is not health:
            self._keep(with_health(tracked, health))

    def condemn(self, allocation: str, attempt: int, message: str) -> None:
        """Its liveness check has failed for good."""
        tracked = self._tracked.get(allocation)
        if tracked is not None and _runs(tracked, attempt) and not tracked.doom:
            self._keep(condemned(tracked, message))
            self._settle([allocation])

    # The machinery.

    async def run_timers(self) -> None:
        """Look again at what only time moves on: backoffs, timeouts, retries."""
        while True:
            now_s = self._clock.now_s()
            times = [at for t in self._tracked.values() if (at := next_look_s(t, now_s)) is not None]
            delay_s = min([LOOK_AGAIN_S, *(at - now_s for at in times)])
            self._wake.clear()
            try:
                async with asyncio.timeout(max(delay_s, 0.001)):
                    await self._wake.wait()
            except TimeoutError:
                self._settle(self._tracked)

    def _settle(self, allocations: Iterable[str]) -> None:
        """Decide on these, and on those who wait for room, and begin what that asks for."""
        moment = self._moment()
        wanted = set(allocations)
        if any(not t.is_admitted and not t.status.is_terminal for t in self._tracked.values()):
            wanted |= self._admit(moment)
        for allocation in sorted(wanted):
            self._decide(allocation, moment)
        if any(not t.is_admitted and not t.status.is_terminal for t in self._tracked.values()):
            for allocation in sorted(self._admit(moment)):  # room may just have been made
                self._decide(allocation, moment)
        self._wake.set()

    def _moment(self) -> Moment:
        return Moment(self._clock.now_s(), self._clock.wall_s(), self._silent_s())

    def _admit(self, moment: Moment) -> set[str]:
        changed = admit(self._tracked.values(), self._allocatable, moment)
        for tracked in changed:
            self._keep(tracked)
        return {tracked.id for tracked in changed}

    def _decide(self, allocation: str, moment: Moment) -> None:
        old = self._tracked.get(allocation)
        if old is None:
            return
        new, actions = decide(old, moment)
        if new is not old:
            _log_transition(old, new)
            self._keep(new)
        for action in actions:
            if isinstance(action, Forget):
                del self._tracked[allocation]
                self._on_change(new, None)
            else:
                self._perform(action)

    def _keep(self, new: Tracked) -> None:
        old = self._tracked.get(new.id)
        if old is not None and old.container is not None and old.container is not new.container:
            self._by_container.pop(old.container.id, None)
        if new.container is not None:
            self._by_container[new.container.id] = new.id
        self._tracked[new.id] = new
        self._on_change(old, new)


def _runs(tracked: Tracked, attempt: int) -> bool:
    return tracked.status.phase is Phase.RUNNING and tracked.status.attempt == attempt


def _stage(tracked: Tracked) -> tuple[object, ...]:
    """Return what must not have changed while the manager was being asked, for the answer to be believed."""
    container = tracked.container
    seen = None if container is None else (container.id, container.state)
    return tracked.status.phase, tracked.status.attempt, tracked.work, seen


def _with_listed(tracked: Tracked, found: Listed) -> Tracked:
    """Return the record with the newest attempt's container as the current one, and the others as earlier ones."""
    ordered = sorted(found, key=lambda pair: pair[0].attempt)
    attempt, current = tracked.status.attempt, None
    if ordered and ordered[-1][0].attempt >= attempt:
        attempt, current = ordered[-1][0].attempt, ordered[-1][1]
    earlier = tuple(container.id for _, container in ordered if container is not current)
    return with_sight(tracked, current, attempt=attempt, earlier=earlier)


def _running_strays(tracked: Tracked, found: Listed) -> tuple[ContainerId, ...]:
    """Return earlier attempts' containers that run beside the current one: their starts were given up too soon."""
    return tuple(c.id for _, c in found if c.state is ContainerState.RUNNING and c.id in tracked.earlier)


def _log_transition(old: Tracked, new: Tracked) -> None:
    if old.status.phase is new.status.phase and old.status.attempt == new.status.attempt:
        return
    status = new.status
    fields: dict[str, object] = {"allocation": new.id, "attempt": status.attempt}
    if status.message:
        fields["message"] = status.message
    _log.info(f"allocation became {status.phase}", **fields)
