"""Whoever stores the events, and however often that changes: each happening is counted once, and none twice."""

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane import keys
from control_plane.controllers.event_writer import BURST, REFILL_S, Allowance
from control_plane.event_log import MOST_TIMES, MOST_WAITING, EventLog, LiveEvent, event_id, record_of
from control_plane.records import EventRecord
from control_plane.state import Batch, ObjectChange
from control_plane.store.protocol import Delete, Put, Revision
from control_plane.told import Told
from manifests.allocations import AllocationStatus, Ending, Phase
from tests.builders import record, seen
from tests.cache import Cache
from tests.clocks import StepClock

WEB = record(replicas=3)


def crash(index: int, attempt: int) -> Put:
    """Return the status of an allocation whose attempt has just ended."""
    found = seen(WEB, index, Phase.BACKOFF).status
    assert found is not None
    ending = Ending(attempt=attempt, exit_code=1, reason="exited", message="exit 1", finished_s=float(attempt))
    status: AllocationStatus = found.model_copy(update={"attempt": attempt, "last_ending": ending})
    return Put(keys.STATUSES + keys.placed_id(status.node, status.id), status.to_bytes())


def flushed(cache: Cache, log: EventLog) -> list[Put]:
    """Return what a leader with this log would store now."""
    puts = []
    for id_, waiting in log.waiting.items():
        stored = record_of(
            waiting.told,
            cache.state.events.get(id_),
            revision=waiting.revision,
            count=sum(waiting.times.values()),
            first_s=waiting.first_s,
            last_s=waiting.last_s,
        )
        puts.append(Put(keys.EVENTS + id_, stored.to_bytes()))
    return puts


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("crash"), st.sets(st.integers(0, 2), min_size=1)),
        st.tuples(st.just("store"), st.integers(0, 2)),
    ),
    max_size=30,
)


@given(STEPS)
@settings(max_examples=100)
def test_each_happening_is_counted_once_whoever_stores_it(steps: list[tuple[str, set[int] | int]]) -> None:
    cache, attempts, happened = Cache(), {0: 0, 1: 0, 2: 0}, 0
    servers = [EventLog(cache.state, StepClock()) for _ in range(3)]
    for _, who in steps:
        if isinstance(who, int):
            cache.write(flushed(cache, servers[who]))
        else:
            attempts.update({index: attempts[index] + 1 for index in who})
            cache.write([crash(index, attempts[index]) for index in sorted(who)])
            happened += len(who)
    cache.write(flushed(cache, servers[0]))
    events = [e for e in cache.state.events.values() if e.reason == "exited"]
    assert sum(e.count for e in events) == happened
    assert len(events) <= 1
    assert all(not server.waiting for server in servers)


def test_a_server_that_hears_of_a_change_again_after_it_was_stored_does_not_count_it_again() -> None:
    cache = Cache()
    first = EventLog(cache.state, StepClock())
    cache.write([crash(0, 1)])
    cache.write(flushed(cache, first))
    late = EventLog(cache.state, StepClock())
    for server in (first, late):
        status = next(cache.state.statuses.values())
        server._on_batch(Batch(cache.revision, (ObjectChange("status", status.id, None, status, Revision(2)),)))
        assert not server.waiting


def test_what_is_stored_of_another_count_of_revisions_covers_nothing_after_it() -> None:
    cache = Cache()
    log = EventLog(cache.state, StepClock())
    told = Told("default/service/web", "exited", "exit 1")
    restored = EventRecord(
        subject="service/web", reason="exited", message="", revision=900_000, count=5, first_s=0.0, last_s=0.0
    )
    cache.write([Put(keys.EVENTS + event_id(told), restored.to_bytes())])
    cache.write([crash(0, 1)])
    assert list(log.waiting) == [event_id(told)]
    cache.write(flushed(cache, log))
    assert [(e.count, e.revision) for e in cache.state.events.values()] == [(6, 3)]
    assert not log.waiting


def test_what_there_was_before_is_no_news() -> None:
    cache = Cache()
    log = EventLog(cache.state, StepClock())
    change = ObjectChange("workload", "default/service/web", None, WEB, Revision(5))
    log._on_batch(Batch(Revision(5), (change,), is_first=True))
    assert not log.waiting


def test_steps_are_told_live_and_wait_for_nothing() -> None:
    cache, heard = Cache(), list[LiveEvent]()
    log = EventLog(cache.state, StepClock())
    stop = log.listen(heard.append)
    running = seen(WEB, 0, Phase.RUNNING).status
    assert running is not None
    key = keys.STATUSES + keys.placed_id(running.node, running.id)
    cache.write([Put(key, running.to_bytes())])
    stop()
    cache.write([Put(key, running.model_copy(update={"attempt": 2}).to_bytes())])
    assert [event.told.reason for event in heard] == ["running"]
    assert not log.waiting


def test_what_waits_is_bounded_however_long_nobody_stores_it() -> None:
    cache = Cache()
    log = EventLog(cache.state, StepClock())
    for number in range(MOST_WAITING + 5):
        log._wait(Told("-/node/n1", "changed", "", str(number)), number, 0.0)
    assert len(log.waiting) == MOST_WAITING
    told = Told("-/node/n1", "lost", "")
    for number in range(3 * MOST_TIMES):
        log._wait(told, number, 0.0)
    waiting = log.waiting[event_id(told)]
    assert len(waiting.times) <= MOST_TIMES
    assert sum(waiting.times.values()) == 3 * MOST_TIMES


def test_deletions_of_records_do_not_end_the_waiting() -> None:
    cache = Cache()
    log = EventLog(cache.state, StepClock())
    cache.write([crash(0, 1)])
    [put] = flushed(cache, log)
    cache.write([put])
    cache.write([crash(0, 2)])
    cache.write([Delete(put.key)])
    assert len(log.waiting) == 1


@given(st.lists(st.floats(0.0, 30.0), max_size=60))
def test_one_event_is_stored_no_more_often_than_its_allowance_lets(gaps_s: Sequence[float]) -> None:
    allowance, now_s, stored = Allowance(), 0.0, list[float]()
    for gap_s in gaps_s:
        now_s += gap_s
        allowance.forget_unused(now_s)
        if allowance.due_in_s("e", now_s) <= 0:
            allowance.use("e", now_s)
            stored.append(now_s)
    for begin in range(len(stored)):
        for end in range(begin, len(stored)):
            assert end - begin <= BURST + (stored[end] - stored[begin]) / REFILL_S


def test_what_has_to_wait_may_be_stored_once_its_time_has_come() -> None:
    allowance = Allowance()
    for _ in range(BURST):
        assert allowance.due_in_s("e", 100.0) == 0.0
        allowance.use("e", 100.0)
    wait_s = allowance.due_in_s("e", 100.0)
    assert 0 < wait_s <= REFILL_S
    assert allowance.due_in_s("e", 100.0 + wait_s) == 0.0
    assert allowance.due_in_s("other", 100.0) == 0.0


def test_the_same_happening_has_the_same_key_everywhere() -> None:
    told = Told("default/service/web", "stop", "web-0 is to stop: node n1 was lost", "node n1 was lost")
    assert event_id(told) == "default/service/web/stop-13c15d3b"  # not Python's own hash, which differs by process
