"""Circles among what waits for each other, and what a frozen cluster's leader says instead of acting."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from control_plane.controllers.decision import Decision, NewSlot, Stop
from control_plane.controllers.freeze import NOT_FROZEN, held_back
from control_plane.controllers.reconcile import Sight, reconcile
from control_plane.controllers.writes import Unit, transactions
from control_plane.dependencies import cycle_through, told
from control_plane.store.protocol import CreatedAt, Put, Revision
from manifests.allocations import Desired, Phase
from scheduler.model import Plan
from tests.builders import record, seen

NAMES = st.sampled_from("abcdef")
GRAPHS = st.dictionaries(NAMES, st.lists(NAMES, max_size=3), max_size=6)


def test_a_circle_is_found_and_told_from_where_one_looks() -> None:
    edges = {"ns/job/a": ["ns/job/b"], "ns/job/b": ["ns/job/c"], "ns/job/c": ["ns/job/a"]}
    cycle = cycle_through("ns/job/b", lambda name: edges.get(name, ()))
    assert told(cycle) == "job/b waits for job/c, which waits for job/a, which waits for job/b"


def test_who_waits_for_a_circle_is_not_in_it() -> None:
    edges = {"x": ["a"], "a": ["b"], "b": ["a"]}
    assert cycle_through("x", lambda name: edges.get(name, ())) == ()


@given(GRAPHS, NAMES)
def test_a_circle_is_one_and_is_found_if_there_is_one(graph: dict[str, list[str]], start: str) -> None:
    cycle = cycle_through(start, lambda name: graph.get(name, ()))
    assert bool(cycle) == (start in _reachable(graph, start))
    assert all(there in graph[here] for here, there in pairwise(cycle))
    assert not cycle or cycle[0] == cycle[-1] == start


def _reachable(graph: dict[str, list[str]], start: str) -> set[str]:
    found: set[str] = set()
    waiting = list(graph.get(start, ()))
    while waiting:
        here = waiting.pop()
        if here not in found:
            found.add(here)
            waiting += graph.get(here, ())
    return found


def sight(of: object, *, waits_for: tuple[str, ...], allocations: tuple[object, ...] = ()) -> Sight:
    return Sight(
        record=of,  # type: ignore[arg-type]  # tests give records
        seen=allocations,  # type: ignore[arg-type]
        nodes=(),
        said=None,
        versions={},
        kept=(),
        was_blocked=False,
        waits_for=waits_for,
    )


def test_what_waits_asks_for_nothing_and_says_what_it_waits_for() -> None:
    decision = reconcile(sight(record("Job"), waits_for=("waits for job migrate, which failed",)))
    assert (decision.asks, decision.is_waiting) == ((), True)
    assert decision.messages == ("waits for job migrate, which failed",)


def test_what_has_begun_waits_for_nothing_any_more() -> None:
    job = record("Job", completions=2)
    for begun in (seen(job, 0), seen(job, 0, Phase.FAILED, desired=Desired.STOP, ended_for_s=1e6)):
        decision = reconcile(sight(job, waits_for=("waits for job migrate",), allocations=(begun,)))
        assert not decision.is_waiting


def test_held_back_decisions_say_what_they_would_do() -> None:
    web = record()
    stop = Stop(seen(web, 0).allocation, "why")
    decision = Decision(stops=(stop, stop), messages=("as before",), new_slot=NewSlot("backup", 0.0))
    told = held_back(decision, Plan((), ()), "default/service/web", None)
    assert told.messages == (
        "the cluster is frozen: 2 to be stopped and its next job is due once it is unfrozen",
        "as before",
    )
    assert held_back(Decision(), Plan((), ()), "default/service/web", None).messages == ()


def test_every_transaction_compares_that_the_cluster_is_not_frozen() -> None:
    units = [Unit((Put(f"/wherry/{n}", b"x"),)) for n in range(300)]
    made = list(transactions(CreatedAt("/wherry/leader", Revision(1)), units, also=(NOT_FROZEN,)))
    assert len(made) > 1
    assert all(NOT_FROZEN in txn.compares for txn in made)
