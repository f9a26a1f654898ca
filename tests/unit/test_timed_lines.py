"""Taking the times off log lines, wherever the bytes are cut."""

from hypothesis import given
from hypothesis import strategies as st

from wherry.cli.timed_lines import TimedLines

texts = st.lists(st.text(alphabet="ab 0-:.TZ", max_size=40), max_size=10)
cuts = st.lists(st.integers(1, 50), min_size=1, max_size=20)


def time_of(number: int) -> str:
    return f"2026-11-24T22:15:00.{number:09}Z"


def wire_of(lines: list[str]) -> bytes:
    return "".join(f"{time_of(n)} {line}\n" for n, line in enumerate(lines, start=1)).encode()


def fed(lines: TimedLines, wire: bytes, sizes: list[int]) -> bytes:
    text, at, turn = b"", 0, 0
    while at < len(wire):
        size = sizes[turn % len(sizes)]
        text += lines.feed(wire[at : at + size])
        at, turn = at + size, turn + 1
    return text


@given(texts, cuts)
def test_the_text_comes_out_whole_and_the_newest_time_is_known(lines: list[str], sizes: list[int]) -> None:
    reader = TimedLines()
    text = fed(reader, wire_of(lines), sizes)
    assert text.decode() == "".join(f"{line}\n" for line in lines)
    assert reader.newest == (time_of(len(lines)) if lines else "")


@given(texts, cuts, st.integers(0, 400))
def test_what_breaks_off_goes_on_without_a_whole_line_lost_or_read_twice(
    lines: list[str], sizes: list[int], broken_at: int
) -> None:
    wire = wire_of(lines)
    first = TimedLines()
    before = fed(first, wire[:broken_at], sizes)
    second = TimedLines(first.newest)
    after = fed(second, wire, sizes)
    whole = before[: before.rfind(b"\n") + 1]
    assert (whole + after).decode() == "".join(f"{line}\n" for line in lines)


@given(st.text(alphabet="xyz\n", max_size=60), cuts)
def test_lines_without_times_are_passed_on_as_they_are(text: str, sizes: list[int]) -> None:
    reader = TimedLines()
    assert fed(reader, text.encode(), sizes) + reader.end() == text.encode()


def test_a_line_that_isn_t_whole_is_passed_on_at_once() -> None:
    assert TimedLines().feed(f"{time_of(1)} password: ".encode()) == b"password: "


def test_lines_that_come_again_are_left_out_and_late_ones_of_another_stream_are_not() -> None:
    reader = TimedLines()
    first = b"".join(f"{time_of(n)} {n}\n".encode() for n in (1, 2, 4, 5))
    again = b"".join(f"{time_of(n)} {n}\n".encode() for n in (4, 5, 3, 6))
    assert reader.feed(first) + reader.feed(again) == b"1\n2\n4\n5\n3\n6\n"
