"""What an agent makes of a store that was restored: it stops nothing of what runs."""

from dataclasses import dataclass, field, replace

from agent.driver import Container, ContainerId, ContainerState
from agent.generations import SETTLE_S, Generations
from agent.group import Group, new_group
from agent.node import Node
from agent.ownership import Identity, order_label
from agent.reconcile import Action, Discard, Start, Stop
from manifests.allocations import Phase, advance
from manifests.containers import Resources
from manifests.session import Assigned, Assignments
from tests.clocks import StepClock
from tests.scripted_server import assigned

ROOM = Resources.of(cpu_m=8000, memory_bytes=2**33, pids=10_000, disk_bytes=2**40)


@dataclass
class Host:
    """A node with two allocations that run, at generation 1, and what it asks for since."""

    clock: StepClock = field(default_factory=StepClock)
    actions: list[Action] = field(default_factory=list)
    told: list[str] = field(default_factory=list)  # allocations whose statuses go to the server
    generations: Generations = field(default_factory=lambda: Generations(1))

    def __post_init__(self) -> None:
        self.node = Node(
            allocatable=ROOM,
            clock=self.clock,
            perform=self.actions.append,
            on_change=self._on_change,
            restored=[running("web-0-a"), running("web-1-a")],
            applied_revision=500,
            generations=self.generations,
        )
        self.see("web-0-a", "web-1-a")

    def _on_change(self, old: Group | None, new: Group | None) -> None:
        if new is not None and (old is None or old.status is not new.status):
            self.told.append(new.id)

    def see(self, *allocations: str, ordered_by: tuple[int, int] | None = None) -> None:
        listed = [(Identity("c", "n1", a, 1, 1), container(a, ordered_by)) for a in allocations]
        self.node.see_all(listed, dict(self.node.tracked))

    def assign(
        self, *wanted: Assigned, revision: int = 5, withdrawn: tuple[str, ...] = (), is_full: bool = True
    ) -> None:
        self.node.assign(Assignments(revision=revision, is_full=is_full, assigned=wanted, withdrawn=withdrawn))

    @property
    def harmed(self) -> list[Action]:
        return [action for action in self.actions if isinstance(action, Stop | Discard)]


def running(allocation: str) -> Group:
    group = new_group(assigned(allocation))
    status = advance(advance(group.status, Phase.STARTING), Phase.RUNNING)
    first = replace(group.first, status=status, is_admitted=True)
    return replace(group, status=status, members=(first,))


def container(allocation: str, ordered_by: tuple[int, int] | None = None) -> Container:
    labels = {"wherry.allocation": allocation, **(order_label(*ordered_by) if ordered_by else {})}
    return Container(ContainerId(f"c-{allocation}"), allocation, labels, "x", ContainerState.RUNNING, pid=7)


def test_what_a_restored_state_does_not_know_is_kept_and_told() -> None:
    host = Host()
    host.node.begin_session()
    host.node.begin_generation(2)
    host.assign(assigned("web-0-a"))
    assert host.harmed == []
    assert [a.id for a in host.node.kept] == ["web-1-a"]


def test_a_later_full_set_of_the_same_generation_keeps_it_as_well() -> None:
    host = Host()
    host.node.begin_generation(2)
    host.assign(assigned("web-0-a"))
    host.node.begin_session()
    host.assign(assigned("web-0-a"), revision=6)
    assert host.harmed == []


def test_only_in_so_many_words_is_it_stopped() -> None:
    host = Host()
    host.node.begin_generation(2)
    host.assign(assigned("web-0-a"))
    host.assign(revision=6, withdrawn=("web-1-a",), is_full=False)
    assert [type(action) for action in host.harmed] == [Stop]
    assert host.node.kept == ()


def test_once_it_is_desired_again_it_is_an_allocation_like_others_and_its_status_is_told() -> None:
    host = Host()
    host.node.begin_generation(2)
    host.assign(assigned("web-0-a"))
    host.told.clear()
    host.assign(assigned("web-1-a"), revision=6, is_full=False)
    assert (host.node.kept, host.told) == ((), ["web-1-a"])
    host.node.begin_session()
    host.assign(assigned("web-0-a"), revision=7)
    assert [type(action) for action in host.harmed] == [Stop]


def test_containers_of_which_nothing_else_is_known_are_kept_too() -> None:
    host = Host()
    host.node.begin_generation(2)
    host.see("web-0-a", "web-1-a", "old-0-x")
    host.assign(assigned("web-0-a"))
    host.see("web-0-a", "web-1-a", "old-0-x")
    assert host.harmed == []


def test_without_a_new_generation_they_end_as_ever() -> None:
    host = Host()
    host.see("web-0-a", "web-1-a", "old-0-x")
    host.node.begin_generation(1)
    host.assign(assigned("web-0-a"), revision=501)
    assert {type(action) for action in host.harmed} == {Stop, Discard}


def test_what_the_restored_state_would_start_waits_for_what_is_kept_to_get_its_slot_back() -> None:
    host = Host()
    host.node.begin_generation(2)
    host.assign(assigned("web-0-a"), assigned("web-1-b"))
    host.see("web-0-a", "web-1-a")
    assert not any(isinstance(action, Start) for action in host.actions)
    host.clock.advance(SETTLE_S)
    host.see("web-0-a", "web-1-a")
    assert [action for action in host.actions if isinstance(action, Start)] == [Start("web-1-b", is_restart=False)]


def test_revisions_begin_anew() -> None:
    host = Host()
    host.node.begin_generation(2)
    assert host.node.applied_revision == 0
    host.assign(assigned("web-0-a"), revision=3)
    assert host.node.applied_revision == 3


def test_a_server_that_is_too_old_to_tell_its_generation_changes_nothing() -> None:
    host = Host()
    host.node.begin_generation(0)
    assert (host.node.generation, host.node.applied_revision) == (1, 500)


def test_nothing_older_is_obeyed_than_what_runs_was_ordered_by_although_that_was_not_written_down() -> None:
    host = Host()
    host.see("web-0-a", "web-1-a", "new-0-a", ordered_by=(1, 507))
    assert (host.node.generation, host.node.applied_revision) == (1, 507)
    host.node.begin_session()
    host.assign(assigned("web-0-a"), assigned("web-1-a"), revision=503)
    assert host.harmed == []


def test_an_agent_without_its_state_file_knows_the_generation_from_what_runs() -> None:
    host = Host(generations=Generations())
    host.node.applied_revision = 0
    host.see("web-0-a", "web-1-a", ordered_by=(3, 40))
    assert (host.node.generation, host.node.applied_revision) == (3, 40)


def test_a_container_of_an_older_generation_says_nothing_of_the_present_one() -> None:
    host = Host(generations=Generations(2))
    host.node.applied_revision = 9
    host.see("web-0-a", "web-1-a", ordered_by=(1, 507))
    assert (host.node.generation, host.node.applied_revision) == (2, 9)
