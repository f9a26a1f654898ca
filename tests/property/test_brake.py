"""The brake on mass loss: whatever falls silent, comes back or is confirmed, never are too many nodes lost at once."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from control_plane.controllers.brake import AT_ONCE_S, HOLD_S, Episode, NodeSilence, Verdict, judge
from manifests.nodes import Liveness

LOST_AFTER_S = 5.0
SUSPECT_AFTER_S = 2.5


@dataclass
class Cluster:
    """Nodes, the servers that mark them suspect, and a leader that obeys the brake, on a clock of its own."""

    names: list[str]
    now: float = 0.0
    silent_since: dict[str, float] = field(default_factory=dict)
    lost: dict[str, float] = field(default_factory=dict)  # when, of those that are
    confirmed: set[str] = field(default_factory=set)
    members: frozenset[str] = frozenset()
    braked_since: float = 0.0
    history: list[tuple[float, Verdict]] = field(default_factory=list)

    def nodes(self) -> list[NodeSilence]:
        return [self._node(name) for name in self.names]

    def _node(self, name: str) -> NodeSilence:
        silent_s = self.now - self.silent_since.get(name, self.now)
        if name in self.lost:
            return NodeSilence(name, Liveness.LOST, silent_s)
        liveness = Liveness.SUSPECT if silent_s >= SUSPECT_AFTER_S else Liveness.READY
        return NodeSilence(name, liveness, silent_s, name in self.confirmed)

    def look(self) -> Verdict:
        """Do as the leader does at each look."""
        episode = Episode(self.members, self.now - self.braked_since) if self.members else None
        verdict = judge(self.nodes(), episode, lost_after_s=LOST_AFTER_S)
        self.check(verdict)
        self.lost |= dict.fromkeys(verdict.lost, self.now)
        if verdict.is_new:
            self.braked_since = self.now
        self.members = verdict.members if verdict.is_new or not verdict.members else self.members | verdict.members
        self.history.append((self.now, verdict))
        return verdict

    def check(self, verdict: Verdict) -> None:
        """Count by hand: of those there a minute ago, how many are silent now, or were lost meanwhile?"""
        is_over = self.members and self.now - self.braked_since >= HOLD_S
        freed = self.members if is_over else frozenset[str]()
        nodes = self.nodes()
        ready = [n.name for n in nodes if n.liveness is Liveness.READY]
        silent = [n.name for n in nodes if n.liveness is Liveness.SUSPECT and n.name not in freed]
        silent += [n.name for n in nodes if n.liveness is Liveness.LOST and n.silent_for_s <= AT_ONCE_S]
        if set(verdict.lost) - self.confirmed - freed:
            assert len(silent) < 3 or len(silent) / (len(silent) + len(ready)) <= 0.55, (silent, ready)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += 0.5
            self.look()

    def happen(self, event: str, number: int) -> None:
        name = self.names[number % len(self.names)]
        match event:
            case "silent":
                self.silent_since.setdefault(name, self.now)
            case "many":
                for other in self.names[: number % len(self.names) + 1]:
                    self.silent_since.setdefault(other, self.now)
            case "back":
                self.silent_since.pop(name, None)
                self.lost.pop(name, None)
                self.confirmed.discard(name)
            case "confirm":
                self.confirmed |= {name} & self.silent_since.keys()
            case "wait":
                self.run(number)


EVENTS = st.lists(
    st.tuples(st.sampled_from(["silent", "silent", "many", "back", "confirm", "wait", "wait"]), st.integers(0, 40)),
    max_size=20,
)
SIZES = st.integers(1, 12)


def cluster_of(size: int) -> Cluster:
    return Cluster([f"n{i:02}" for i in range(size)])


@given(SIZES, EVENTS)
def test_too_many_are_never_lost_at_once_unless_confirmed_or_held_for_long(
    size: int, events: list[tuple[str, int]]
) -> None:
    cluster = cluster_of(size)
    for event, number in events:
        cluster.happen(event, number)
        cluster.look()
    cluster.run(90)


@given(SIZES, EVENTS)
def test_only_silent_nodes_are_ever_lost_and_never_too_early(size: int, events: list[tuple[str, int]]) -> None:
    cluster = cluster_of(size)
    for event, number in events:
        cluster.happen(event, number)
        verdict = cluster.look()
        silent = {n.name: n.silent_for_s for n in cluster.nodes()}
        assert all(silent[name] >= LOST_AFTER_S for name in (*verdict.lost, *verdict.held))
        assert not set(verdict.lost) & set(verdict.held)


@given(SIZES, EVENTS)
def test_in_the_end_every_silent_node_is_lost_and_the_brake_is_off(size: int, events: list[tuple[str, int]]) -> None:
    cluster = cluster_of(size)
    for event, number in events:
        cluster.happen(event, number)
        cluster.look()
    cluster.run(HOLD_S * 2 + 60)
    assert cluster.lost.keys() == cluster.silent_since.keys()
    assert cluster.members == frozenset()


@given(SIZES, st.data())
def test_whatever_the_order_of_the_nodes_the_verdict_is_the_same(size: int, data: st.DataObject) -> None:
    cluster = cluster_of(size)
    for event, number in data.draw(EVENTS):
        cluster.happen(event, number)
    nodes = cluster.nodes()
    shuffled = data.draw(st.permutations(nodes))
    assert judge(nodes, None, lost_after_s=LOST_AFTER_S) == judge(shuffled, None, lost_after_s=LOST_AFTER_S)


@given(st.integers(0, 2), st.integers(0, 12))
def test_one_or_two_silent_nodes_never_brake(silent: int, ready: int) -> None:
    cluster = cluster_of(silent + ready)
    cluster.silent_since = dict.fromkeys(cluster.names[:silent], 0.0)
    cluster.run(6)
    assert set(cluster.lost) == set(cluster.names[:silent])
