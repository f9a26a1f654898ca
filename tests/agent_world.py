"""A container manager on paper, for one allocation: does what the agent decided, and lets things happen to it."""

from dataclasses import dataclass, field, replace

from agent.driver import Container, ContainerId, ContainerState
from agent.group import Group, listed_of, new_group, with_assigned, with_listed, with_member, withdrawn
from agent.ownership import Identity
from agent.reconcile import Action, Discard, Forget, Remove, Start, Stop
from agent.severed import released
from agent.state_file import SavedAllocation, to_group, to_saved
from agent.steering import next_look_at_group_s, settle
from agent.tracked import (
    Failure,
    Moment,
    Tracked,
    Work,
    condemned,
    with_delay,
    with_failure,
    with_health,
    with_sight,
    without_work,
)
from manifests.allocations import Desired, Health, Phase
from manifests.session import Assigned


@dataclass
class World:
    """`containers` are all that exist, by the id of the record and the attempt."""

    group: Group
    now_s: float = 0.0
    containers: dict[tuple[str, int], Container] = field(default_factory=dict)
    starts: list[tuple[float, str]] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    history: list[tuple[int, Phase]] = field(default_factory=list)
    is_forgotten: bool = False
    silent_s: float = 0.0  # since a server was heard

    @classmethod
    def of(cls, assigned: Assigned) -> "World":
        world = cls(new_group(assigned))
        world.look()
        world.group = with_member(world.group, replace(world.group.first, is_admitted=True))
        world.settle()
        return world

    @property
    def moment(self) -> Moment:
        return Moment(self.now_s, 1000.0 + self.now_s, self.silent_s)

    def member(self, name: str) -> Tracked:
        return next(member for member in self.group.members if member.name == name)

    def settle(self) -> None:
        """Decide, and check that deciding again says nothing."""
        if self.is_forgotten:
            return
        self.group, actions = settle(self.group, self.moment)
        again = settle(self.group, self.moment)
        assert again == (self.group, ()), again
        for action in actions:
            self.actions.append(action)
            self._note(action)
        self.history.append((self.group.status.attempt, self.group.status.phase))

    def _note(self, action: Action) -> None:
        match action:
            case Start(container):
                self.starts.append((self.now_s, container))
            case Discard(gone):
                self.containers = {key: c for key, c in self.containers.items() if c.id not in gone}
            case Forget():
                self.is_forgotten = True
            case Stop() | Remove():
                pass

    # What the machine does.

    def start_works(self, name: str) -> None:
        member = self.member(name)
        if member.work is Work.START:
            attempt = member.status.attempt
            id_, of = ContainerId(f"{name}-{attempt}"), member.network_of or ""
            container = Container(id_, name, {}, "i", ContainerState.RUNNING, network_of=of)
            self.containers[member.id, attempt] = container
            self._keep(with_sight(without_work(member), container, attempt=attempt))

    def start_fails(self, name: str) -> None:
        if self.member(name).work is Work.START:
            self._keep(with_failure(self.member(name), Failure("startFailed", "no"), None))

    def manager_is_away(self, name: str) -> None:
        if self.member(name).work in (Work.START, Work.STOP):
            self._keep(with_delay(self.member(name), retry_s=self.now_s + 1.0, message="away"))

    def exits(self, name: str, code: int = 1) -> None:
        """Its process ends by itself; what works on the container looks for itself."""
        member = self.member(name)
        self._end(member, code)
        if member.work is Work.NONE:
            self._keep(self._seen(member))

    def stop_works(self, name: str, code: int = 143) -> None:
        member = self.member(name)
        if member.work is Work.STOP:
            self._end(member, code)
            self._keep(self._seen(without_work(member)))

    def removal_works(self, name: str) -> None:
        member = self.member(name)
        if member.work is Work.REMOVE:
            self.containers = {key: c for key, c in self.containers.items() if key[0] != member.id}
            self._keep(replace(without_work(member), container=None, earlier=()))

    def _end(self, member: Tracked, code: int) -> None:
        for key, container in self.containers.items():
            if key[0] == member.id and container.state is ContainerState.RUNNING:
                self.containers[key] = replace(container, state=ContainerState.EXITED, exit_code=code)

    def _seen(self, member: Tracked) -> Tracked:
        pairs = [
            (Identity("c", "n1", member.allocation, 1, attempt, member.name), container)
            for (of, attempt), container in self.containers.items()
            if of == member.id
        ]
        return with_listed(member, listed_of(member, pairs))

    def _keep(self, member: Tracked) -> None:
        self.group = with_member(self.group, member)
        self.settle()

    # What is found out, and what is wanted.

    def look(self) -> None:
        for member in self.group.members:
            if member.work is Work.NONE:
                self.group = with_member(self.group, self._seen(member))
        self.settle()

    def is_healthy(self, name: str, health: Health = Health.HEALTHY) -> None:
        if self.member(name).status.phase is Phase.RUNNING:
            self._keep(with_health(self.member(name), health, self.now_s))

    def is_condemned(self, name: str) -> None:
        if self.member(name).status.phase is Phase.RUNNING and not self.member(name).doom:
            self._keep(condemned(self.member(name), "bad"))

    def agent_restarts(self) -> None:
        self.group = to_group(SavedAllocation.read(to_saved(self.group).to_bytes()))
        self.look()

    def state_is_lost(self) -> None:
        """The agent starts without its file; the server says again what is desired."""
        unwanted = self.group.first.is_withdrawn
        self.group = new_group(self.group.first.assigned)
        self.look()
        self.group = with_member(self.group, replace(self.group.first, is_admitted=True))
        if unwanted:
            self.withdraw()
        self.settle()

    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        self.settle()

    def stop(self) -> None:
        assigned = self.group.first.assigned
        allocation = assigned.allocation.model_copy(update={"desired": Desired.STOP})
        self.group = with_assigned(self.group, assigned.model_copy(update={"allocation": allocation}))
        self.settle()

    def withdraw(self) -> None:
        self.group = withdrawn(self.group)
        self.settle()

    def is_cut_off(self, silent_s: float) -> None:
        self.silent_s = silent_s
        self.settle()

    def is_heard_again(self) -> None:
        self.silent_s = 0.0
        for member in self.group.members:
            self.group = with_member(self.group, released(member))
        self.settle()

    # Shortcuts.

    def works(self) -> None:
        """Whatever the machine was asked for it does, until it is asked for nothing more; time stands still."""
        for _ in range(200):
            names = [member.name for member in self.group.members if member.work not in (Work.NONE, Work.FORGOTTEN)]
            if not names:
                return
            for name in names:
                self.start_works(name)
                self.stop_works(name)
                self.removal_works(name)
        raise AssertionError("it never comes to rest")

    def next_look_s(self) -> float | None:
        return next_look_at_group_s(self.group, self.now_s)

    def phase(self) -> Phase:
        return self.group.status.phase

    def health(self) -> Health:
        return self.group.status.health

    def running(self) -> list[str]:
        """Return the names of the containers that run, in alphabetical order."""
        return sorted(c.name for c in self.containers.values() if c.state is ContainerState.RUNNING)

    def stopping(self) -> list[str]:
        return sorted(member.name for member in self.group.members if member.work is Work.STOP)

    def phases(self) -> dict[str, str]:
        return {member.name: member.status.phase.value for member in self.group.members}
