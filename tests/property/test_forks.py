"""A fork of the cache and its ledger goes its own way, and so does what it was made from."""

from typing import Any

from hypothesis import given, settings

from control_plane.controllers.standing import Standing
from control_plane.rehearsal.fork import Fork
from control_plane.state import ClusterState
from tests.cache import Cache
from tests.property.test_standing import NAMES, NODES, events, told, write

Event = tuple[str, int, str, bool]


def contents(state: ClusterState) -> dict[str, Any]:
    """Return all that can be read from a cache, also by its indexes."""
    found: dict[str, Any] = {t.name: {id_: t.stored(id_) for id_ in sorted(t.ids())} for t in state._tables}
    workloads = [f"default/service/{name}" for name in NAMES]
    found["by workload"] = {w: [a.id for a in state.allocations_of(w)] for w in workloads}
    found["by node"] = {node: [a.id for a in state.allocations_on(node)] for node in NODES}
    found["counts"] = {w: state.count_of(w) for w in workloads}
    found["with allocations"] = sorted(state.workloads_with_allocations())
    found["unreadable"] = dict(state.quarantined)
    return found


@given(events, events, events)
@settings(max_examples=150)
def test_neither_sees_what_becomes_of_the_other(
    before: list[Event], original: list[Event], forked: list[Event]
) -> None:
    cache = Cache()
    standing = Standing(cache.state)
    cache.state.subscribe(standing.on_batch)
    for event in before:
        cache.write([write(event)])
    first = contents(cache.state)
    fork = Fork(cache.state, standing, 0.0)
    assert contents(fork.state) == first
    assert told(fork.standing.ledger()) == told(standing.ledger())
    for event in original:
        cache.write([write(event)])
    assert contents(fork.state) == first
    second = contents(cache.state)
    for event in forked:
        fork.write([write(event)])
    assert contents(cache.state) == second
    for state, kept in ((fork.state, fork.standing), (cache.state, standing)):
        anew = Standing(state)
        assert told(kept.ledger()) == told(anew.ledger())
        assert sorted(kept.restless()) == sorted(anew.restless())
