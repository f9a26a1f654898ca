"""Questions to an agent: each gets its own answer, or an error in words."""

import asyncio

import pytest

from control_plane.questions import Questions
from manifests.errors import UnavailableError
from manifests.session import Answer, Ask, FromAgent, FromServer, StreamData


class Line:
    """A connection that keeps what was sent."""

    def __init__(self) -> None:
        self.sent: list[FromServer] = []
        self.has_sent = asyncio.Semaphore(0)

    async def send(self, frame: FromServer) -> None:
        self.sent.append(frame)
        self.has_sent.release()

    async def send_bytes(self, data: bytes) -> None:
        """Nothing is asked in bytes."""

    async def receive(self) -> FromAgent | StreamData | None:
        return None

    async def close(self) -> None:
        """Nothing is open."""


def questions() -> tuple[Questions, Line]:
    line = Line()
    made = Questions("n1", line)
    made.answered = frozenset({"stats"})
    return made, line


async def test_each_gets_its_own_answer() -> None:
    made, line = questions()
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(made.ask("stats"), name="first")
        second = tasks.create_task(made.ask("stats"), name="second")
        await line.has_sent.acquire()
        await line.has_sent.acquire()
        assert [ask.number for ask in line.sent if isinstance(ask, Ask)] == [1, 2]
        made.take(Answer(number=2, error=""))
        made.take(Answer(number=1, error=""))
    assert (first.result().number, second.result().number) == (1, 2)
    made.take(Answer(number=1))  # late: nobody waits any more


async def test_an_error_is_told() -> None:
    made, line = questions()
    task = asyncio.create_task(made.ask("stats"))
    await line.has_sent.acquire()
    made.take(Answer(number=1, error="busy"))
    with pytest.raises(UnavailableError, match="n1 could not answer: busy"):
        await task


async def test_a_lost_connection_is_told() -> None:
    made, line = questions()
    task = asyncio.create_task(made.ask("stats"))
    await line.has_sent.acquire()
    made.end_all("node n1 lost its connection")
    with pytest.raises(UnavailableError, match="n1 lost its connection"):
        await task


async def test_an_agent_that_did_not_offer_it_is_not_asked() -> None:
    made, line = questions()
    made.answered = frozenset()
    with pytest.raises(UnavailableError, match="older version"):
        await made.ask("stats")
    assert line.sent == []
