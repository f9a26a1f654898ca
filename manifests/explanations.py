"""Why something can't be somewhere and what would change that: as data, with sentences for people.

Plain dataclasses, as in `manifests.reasons`: the scheduler makes them, the API carries them, the CLI shows them.
"""

from dataclasses import dataclass
from enum import StrEnum

from manifests.reasons import Choice, Rejection, Unlisted, listing


class Lift(StrEnum):
    """What can be changed so that a node fits. In the order of how easily it is done."""

    RESERVE = "reserve"  # `subject`: cpu, memory, pids, disk or a kind of devices; `value`: the most that fits
    MAX_PER_NODE = "maxPerNode"  # `value`: the least that fits
    TOLERATE = "tolerate"  # `value`: the toleration; `subject`: the taints that it is for
    CONSTRAINT = "constraint"  # `subject`: the one to leave out
    MAX_SKEW = "maxSkew"  # `subject`: what it is spread over; `value`: the least that fits
    APART = "apart"  # `subject`: from what it is kept apart
    TOGETHER = "together"
    HOST_PORT = "hostPort"  # `subject`: the port; `value`: who holds it
    MOVE = "move"  # `subject`: another allocation; `value`: of what it is
    READY = "ready"  # `subject`: what the node is now: cordoned, draining, troubled, suspect, lost
    NODE = "node"  # one more node; `value`: what must be free there; `subject`: which one it must be like, if any

    @property
    def is_of_the_workload(self) -> bool:
        """Say whether the workload's manifest alone is to be changed."""
        return self not in (Lift.HOST_PORT, Lift.MOVE, Lift.READY, Lift.NODE)


@dataclass(frozen=True, slots=True)
class Change:
    lift: Lift
    subject: str = ""
    value: str = ""

    def phrase(self) -> str:
        """Return the condition, to follow `fits n2`.

        >>> Change(Lift.RESERVE, "memory", "410Mi").phrase(), Change(Lift.MAX_PER_NODE, value="3").phrase()
        ('if memory <= 410Mi', 'with maxPerNode 3')
        """
        form = _READY[self.subject] if self.lift is Lift.READY else _PHRASE[self.lift]
        return form.format(subject=self.subject, value=self.value)


@dataclass(frozen=True, slots=True)
class Remedy:
    """Changes which together would let one more allocation fit on the node, while all else stays as it is."""

    node: str  # "" where it is a node that isn't there yet
    changes: tuple[Change, ...]

    def sentence(self) -> str:
        """Return one line.

        >>> Remedy("n2", (Change(Lift.TOLERATE, "gpu:noSchedule", "gpu"),)).sentence()
        'fits n2 if its taint gpu is tolerated'
        """
        first = self.changes[0]
        if first.lift is Lift.NODE:
            like = f" like {first.subject}" if first.subject else ""
            return f"one more node{like} with at least {first.value} free would do"
        return f"fits {self.node} {listing([change.phrase() for change in self.changes])}"

    @property
    def is_of_the_workload(self) -> bool:
        return all(change.lift.is_of_the_workload for change in self.changes)


@dataclass(frozen=True, slots=True)
class NodeFaults:
    """A node, and everything that rules it out."""

    node: str
    faults: tuple[Rejection, ...]

    def sentence(self) -> str:
        return f"{self.node}: {'; '.join(fault.reason() for fault in self.faults)}"


@dataclass(frozen=True, slots=True)
class NodeGroup:
    """All nodes which the same rules out: some by name, with their own amounts; and what they have in common."""

    count: int
    nodes: tuple[NodeFaults, ...]
    faults: tuple[Unlisted, ...]  # for amounts, `found` is the most among them

    def sentence(self) -> str:
        nodes = "1 node" if self.count == 1 else f"{self.count} nodes"
        return f"{nodes} {'; '.join(fault.reason() for fault in self.faults)}"


@dataclass(frozen=True, slots=True)
class Goal:
    """Where one more would go now, and why."""

    node: str
    why: Choice


@dataclass(frozen=True, slots=True)
class Victim:
    """Who would be evicted, and of which priority that is."""

    allocation: str
    workload: str
    priority: int

    def words(self) -> str:
        return f"{self.allocation} ({self.workload}, priority {self.priority})"


@dataclass(frozen=True, slots=True)
class Room:
    """Where room for one more comes or can be made: what leaves there anyhow, and who would be evicted beside that."""

    node: str
    leaving: tuple[str, ...]  # allocations
    evicted: tuple[Victim, ...] = ()
    forbids: str = ""  # why these are not evicted

    def sentence(self) -> str:
        """Return one line.

        >>> Room("n2", (), (Victim("etl-3-1f3a9c2e", "job/etl", 20),)).sentence()
        'n2: would fit once etl-3-1f3a9c2e (job/etl, priority 20) is evicted, which is done for it'
        >>> Room("n2", ("web-0-7c2e1f3a",)).sentence()
        'n2: would fit once web-0-7c2e1f3a has ended, which is under way'
        """
        ended = f"{listing(self.leaving)} {'has' if len(self.leaving) == 1 else 'have'} ended" if self.leaving else ""
        if not self.evicted:
            return f"{self.node}: would fit once {ended}, which is under way"
        gone = listing([victim.words() for victim in self.evicted])
        evicted = f"{gone} {'is' if len(self.evicted) == 1 else 'are'} evicted"
        done = f"which isn't done: {self.forbids}" if self.forbids else "which is done for it"
        return f"{self.node}: would fit once {f'{ended} and ' if ended else ''}{evicted}, {done}"


@dataclass(frozen=True, slots=True)
class Explanation:
    """The scheduler's answer to `why not`: for one more allocation, on all nodes that were in question."""

    fits: int = 0  # so many nodes could take it
    goal: Goal | None = None  # the best of them
    groups: tuple[NodeGroup, ...] = ()  # the nodes that can't: those that lack least first
    more: int = 0  # nodes in groups that are left out
    remedies: tuple[Remedy, ...] = ()  # the best first
    rooms: tuple[Room, ...] = ()  # where priorities make room for it; of a daemon, on a few of its nodes
    note: str = ""  # where no node is to blame


_PHRASE = {
    Lift.RESERVE: "if {subject} <= {value}",
    Lift.MAX_PER_NODE: "with maxPerNode {value}",
    Lift.TOLERATE: "if its taint {value} is tolerated",
    Lift.CONSTRAINT: "without the constraint {subject}",
    Lift.MAX_SKEW: "with maxSkew {value} over {subject}",
    Lift.APART: "if it needn't be apart from {subject}",
    Lift.TOGETHER: "if it needn't be together with {subject}",
    Lift.HOST_PORT: "once host port {subject} is free (held by {value})",
    Lift.MOVE: "once {subject} ({value}) is gone",
    Lift.NODE: "",
}
_READY = {
    "cordoned": "once it is uncordoned",
    "draining": "once it is no longer drained",
    "troubled": "once its container manager answers",
    "suspect": "once it is heard again",
    "lost": "once it is back",
}
