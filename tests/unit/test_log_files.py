"""Log files in the CRI's format: read whole, from the end, from a time on, while they grow, and while they rotate."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.driver import LogChunk
from agent.drivers.log_files import read_log, remove_logs, rotate
from agent.drivers.log_lines import LogLines
from foundation.clock import SystemClock
from tests.lab.waiting import wait_until


def time(number: int) -> str:
    return f"2026-11-24T22:{number // 60 % 60:02}:{number % 60:02}.{number:09}Z"


def entry(number: int, text: str, *, stream: str = "stdout", tag: str = "F") -> str:
    return f"{time(number)} {stream} {tag} {text}\n"


async def read(path: Path, *, tail: int | None = None, timed: bool = False, since: str = "") -> list[tuple[str, bytes]]:
    log = read_log(path, clock=SystemClock(), has_ended=None, tail=tail, timed=timed, since=since)
    return [(chunk.stream, chunk.data) async for chunk in log]


def joined(chunks: list[LogChunk], stream: str) -> bytes:
    return b"".join(chunk.data for chunk in chunks if chunk.stream == stream)


@given(st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.text(alphabet="ab c", max_size=6))), st.data())
def test_whatever_pieces_bytes_and_lines_come_in_the_text_is_whole(
    written: list[tuple[str, str]], data: st.DataObject
) -> None:
    expected = {"stdout": "", "stderr": ""}
    file = ""
    for number, (stream, text) in enumerate(written):
        is_full = data.draw(st.booleans())
        expected[stream] += text + ("\n" if is_full else "")
        file += entry(number, text, stream=stream, tag="F" if is_full else "P")
    lines, chunks, left = LogLines(), list[LogChunk](), file.encode()
    while left:
        size = data.draw(st.integers(1, len(left)))
        chunks += lines.feed(left[:size])
        left = left[size:]
    assert {stream: joined(chunks, stream).decode() for stream in expected} == expected


def test_a_time_stands_before_a_line_and_not_before_its_later_pieces() -> None:
    chunks = LogLines(is_timed=True).feed((entry(1, "one ", tag="P") + entry(2, "line") + entry(3, "two")).encode())
    assert joined(chunks, "stdout").decode() == f"{time(1)} one line\n{time(3)} two\n"


def test_a_line_that_began_before_the_time_is_left_out_whole() -> None:
    text = entry(1, "a", tag="P") + entry(1, "b", stream="stderr", tag="P") + entry(3, "a") + entry(4, "c")
    chunks = LogLines(since=time(2)).feed(text.encode())
    assert (joined(chunks, "stdout"), joined(chunks, "stderr")) == (b"c\n", b"")


def test_times_of_any_length_and_zone_are_compared_as_times() -> None:
    lines = "2026-11-24T23:00:00.5+01:00 stdout F a\n2026-11-24T22:00:00.25Z stdout F b\n"
    chunks = LogLines(is_timed=True, since="2026-11-24T22:00:00.300000000Z").feed(lines.encode())
    assert joined(chunks, "stdout") == b"2026-11-24T22:00:00.500000000Z a\n"


async def test_a_reader_goes_on_from_any_of_lines_that_came_together(tmp_path: Path) -> None:
    path = tmp_path / "c.log"
    path.write_text(entry(0, "first") + "".join(f"{time(1)} stdout F {number}\n" for number in range(3)))
    lines = b"".join(data for _, data in await read(path, timed=True)).decode().splitlines()
    times = [line.split()[0] for line in lines]
    assert times == sorted(set(times))
    for number in range(3):
        found = b"".join(data for _, data in await read(path, since=times[1 + number])).decode()
        assert found == "".join(f"{later}\n" for later in range(number, 3))


@given(
    pieces=st.lists(st.lists(st.booleans(), max_size=8), min_size=1, max_size=3),
    wanted=st.integers(0, 20),
)
async def test_the_tail_is_the_end_of_the_whole_over_all_files(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[list[bool]], wanted: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "c.log"
    whole, number = "", 0
    for is_full_of in pieces:
        rotate(path)
        text = ""
        for is_full in [*is_full_of, True]:  # a file may end within a line only in what is read as its own line
            text += entry(number, f"n{number} ", tag="F" if is_full else "P")
            whole += f"n{number} " + ("\n" if is_full else "")
            number += 1
        path.write_text(text)
    expected = "".join(whole.splitlines(keepends=True)[-wanted:] if wanted else [])
    assert b"".join(data for _, data in await read(path, tail=wanted)).decode() == expected
    assert b"".join(data for _, data in await read(path)).decode() == whole


@pytest.mark.parametrize("first", [0, 1, 1000, 1999])
async def test_from_a_time_on_in_a_long_file(tmp_path: Path, first: int) -> None:
    path = tmp_path / "c.log"
    path.write_text("".join(entry(number, f"{number} {'x' * 50}") for number in range(2000)))
    found = b"".join(data for _, data in await read(path, since=time(first))).decode().splitlines()
    assert [int(line.split()[0]) for line in found] == list(range(first, 2000))
    assert await read(path, since="2027-01-01T00:00:00.000000000Z") == []


@pytest.mark.parametrize("wanted", [1, 1000, 1999, 2000, 3000])
async def test_a_tail_longer_than_a_block(tmp_path: Path, wanted: int) -> None:
    path = tmp_path / "c.log"
    path.write_text("".join(entry(number, f"{number} {'x' * 200}") for number in range(2000)))
    found = b"".join(data for _, data in await read(path, tail=wanted)).decode().splitlines()
    assert [int(line.split()[0]) for line in found] == list(range(max(0, 2000 - wanted), 2000))


async def test_following_goes_over_rotations_until_the_container_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "c.log"
    path.write_text(entry(0, "0"))
    ended, chunks = asyncio.Event(), list[LogChunk]()

    async def has_ended() -> bool:
        return ended.is_set()

    async def lines_seen() -> int:
        return joined(chunks, "stdout").count(b"\n")

    async def follow() -> None:
        log = read_log(path, clock=SystemClock(), has_ended=has_ended, tail=None, timed=False, since="")
        async for chunk in log:
            chunks.append(chunk)

    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        tasks.create_task(follow())
        for number in range(1, 6):
            await wait_until(lines_seen, 10, f"{number} lines came", number.__le__)
            rotate(path)
            path.write_text(entry(number, str(number)))
        ended.set()
    assert joined(chunks, "stdout") == b"0\n1\n2\n3\n4\n5\n"


async def test_two_older_files_are_kept_and_all_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "c.log"
    for number in range(5):
        rotate(path)
        path.write_text(entry(number, str(number)))
    assert b"".join(data for _, data in await read(path)) == b"2\n3\n4\n"
    remove_logs(path)
    assert await read(path) == []
