"""The last lines of a container: what they are made of, and when they are read."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import log_tails
from agent.driver import Container, ContainerId, ContainerState, LogChunk
from agent.drivers.docker import DockerDriver
from agent.group import Group, changed_members
from agent.log_tails import LogTails, tail_of
from agent.node import Node
from agent.tracked import Work
from foundation.clock import SystemClock
from foundation.tasks import TaskGroup
from manifests.allocations import MOST_LOG_TAIL_BYTES, Desired, Ending
from manifests.containers import Resources
from manifests.errors import UnavailableError
from manifests.session import Assignments
from tests.scripted_server import assigned

ROOM = Resources.of(cpu_m=1000, memory_bytes=2**30, pids=1000, disk_bytes=2**40)


@given(st.binary(max_size=6000))
def test_whatever_was_written_becomes_little_plain_text(data: bytes) -> None:
    lines = tail_of(data)
    assert sum(len(line.encode()) + 1 for line in lines) <= MOST_LOG_TAIL_BYTES
    assert all(line.isprintable() for line in lines)


def test_the_last_lines_are_kept_in_order_and_whole() -> None:
    lines = tail_of(b"".join(b"line %d\n" % number for number in range(1000)))
    assert lines[-1] == "line 999"
    assert list(lines) == [f"line {number}" for number in range(1000 - len(lines), 1000)]


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", ()),
        (b"\n\n\n", ()),
        (b"no newline", ("no newline",)),
        (b"one\n\ntwo\n", ("one", "", "two")),
        (b"\x1b[1;31mred\x1b[0m \x1b]8;;http://x\x07link\x1b]8;;\x07\n", ("red link",)),
        (b"\x1b]52;c;c2VjcmV0\x07pasted\n", ("pasted",)),
        ("turn \u202e round\n".encode(), ("turn  round",)),
        (b"\xff\xfe broken\n", ("\ufffd\ufffd broken",)),
        (b" 10 %\r 99 %\r\n", (" 99 %",)),
    ],
)
def test_what_steers_a_terminal_is_gone(data: bytes, lines: tuple[str, ...]) -> None:
    assert tail_of(data) == lines


def test_of_one_endless_line_the_end_is_kept() -> None:
    (line,) = tail_of(b"x" * 9000 + b"the end\n")
    assert line.endswith("xthe end")
    assert len(line) <= MOST_LOG_TAIL_BYTES


class Logs(DockerDriver):
    """A driver whose containers have written that."""

    def __init__(self, *chunks: bytes, hangs: bool = False, fails: bool = False) -> None:
        super().__init__("/nonexistent/docker.sock")
        self.chunks, self.hangs, self.fails, self.reads = chunks, hangs, fails, 0

    async def logs(
        self, container: ContainerId, *, follow: bool, tail: int | None, timed: bool = False, since: str = ""
    ) -> AsyncGenerator[LogChunk, None]:
        self.reads += 1
        for chunk in self.chunks:
            yield LogChunk("stdout", chunk)
        if self.fails:
            raise UnavailableError("docker is away")
        if self.hangs:
            await asyncio.Event().wait()


async def ending_with(driver: Logs, *, is_asked: bool = False, **spec: Any) -> Ending | None:
    """Return how an allocation's ending is told in the end, of one that exits with 1."""
    followers: list[LogTails] = []

    def follow(old: Group | None, new: Group | None) -> None:
        for before, after in changed_members(old, new):
            for tails in followers:
                tails.follow(before, after)

    node = Node(allocatable=ROOM, clock=SystemClock(), perform=lambda action: None, on_change=follow)
    async with TaskGroup() as tasks:
        followers.append(LogTails(node, driver, tasks=tasks))
        node.see_all((), {})
        desired = Desired.STOP if is_asked else Desired.RUN
        node.assign(Assignments(revision=1, is_full=True, assigned=(assigned("web-0-a", **spec),)))
        running = Container(ContainerId("c1"), "c1", {}, "i", ContainerState.RUNNING)
        node.finish("web-0-a", Work.START, running)
        node.assign(Assignments(revision=2, is_full=True, assigned=(assigned("web-0-a", desired=desired, **spec),)))
        ended = Container(ContainerId("c1"), "c1", {}, "i", ContainerState.EXITED, exit_code=1)
        if is_asked:
            node.finish("web-0-a", Work.STOP, ended)
        else:
            node.see(node.tracked["web-0-a"], ended)
    return node.tracked["web-0-a"].status.last_ending


async def test_an_attempt_that_ended_says_what_it_wrote_last() -> None:
    ending = await ending_with(Logs(b"out of ", b"luck\n"), restart={"policy": "never"})
    assert ending is not None
    assert ending.log_tail == ("out of luck",)


async def test_a_restart_keeps_the_lines_of_the_attempt_before() -> None:
    ending = await ending_with(Logs(b"out of luck\n"))
    assert ending is not None
    assert (ending.attempt, ending.log_tail) == (1, ("out of luck",))


async def test_a_stop_that_was_asked_for_needs_no_explanation() -> None:
    driver = Logs(b"bye\n")
    ending = await ending_with(driver, is_asked=True)
    assert ending is not None
    assert (ending.log_tail, driver.reads) == ((), 0)


async def test_a_manager_that_hangs_or_is_away_costs_the_rest_of_the_lines_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(log_tails, "READ_TIMEOUT_S", 0.05)
    for driver in (Logs(b"one\n", hangs=True), Logs(b"one\n", fails=True)):
        ending = await ending_with(driver)
        assert ending is not None
        assert ending.log_tail == ("one",)
