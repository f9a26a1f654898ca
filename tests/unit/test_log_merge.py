"""Lines of several logs come out in order of time, none is lost, and a silent log holds up the others only so long."""

from hypothesis import given
from hypothesis import strategies as st

from wherry.cli.log_merge import HOLD_S, MOST_HELD_BYTES, START_S, LogMerge


def texts(merge: LogMerge, now_s: float) -> list[bytes]:
    return [line.text for line in merge.take(now_s)]


def opened(*sources: str) -> LogMerge:
    merge = LogMerge()
    for source in sources:
        merge.open(source, 0.0)
    return merge


def test_lines_of_two_logs_come_in_order_of_time() -> None:
    merge = opened("a", "b")
    merge.add("a", "1", b"a1", 0.0)
    merge.add("a", "3", b"a3", 0.0)
    assert texts(merge, 0.0) == []
    merge.add("b", "2", b"b2", 0.0)
    assert texts(merge, 0.0) == [b"a1", b"b2"]
    merge.close("b")
    assert texts(merge, 0.0) == [b"a3"]


def test_a_log_that_has_not_begun_is_waited_for_and_a_silent_one_less_long() -> None:
    merge = opened("a", "b")
    merge.add("a", "1", b"a1", 0.1)
    assert merge.due_s(0.1) == START_S
    assert texts(merge, START_S) == [b"a1"]
    merge.add("b", "2", b"b2", 5.0)
    assert texts(merge, 5.0) == []
    assert texts(merge, 5.0 + HOLD_S) == [b"b2"]


def test_a_full_log_has_no_room_until_its_lines_went() -> None:
    merge = opened("a", "b")
    merge.add("a", "1", b"x" * MOST_HELD_BYTES, 0.0)
    assert not merge.has_room("a")
    assert merge.has_room("b")
    merge.take(START_S)
    assert merge.has_room("a")


def test_one_log_alone_is_never_held_back() -> None:
    merge = opened("a")
    merge.add("a", "1", b"a1", 0.0)
    assert texts(merge, 0.0) == [b"a1"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 99)), max_size=60), st.data())
def test_what_comes_in_time_comes_out_in_order_and_whole(lines: list[tuple[str, int]], data: st.DataObject) -> None:
    queues = {source: sorted(time for of, time in lines if of == source) for source in "abc"}
    merge = opened("a", "b", "c")
    taken: list[str] = []
    while any(queues.values()):
        source = data.draw(st.sampled_from([name for name, queue in queues.items() if queue]))
        merge.add(source, f"{queues[source].pop(0):02d}", b"line", 0.0)
        taken += [line.time for line in merge.take(0.0)]
    for source in "abc":
        merge.close(source)
    taken += [line.time for line in merge.take(0.0)]
    assert taken == sorted(f"{time:02d}" for _, time in lines)
    assert merge.is_empty
