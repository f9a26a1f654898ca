"""Questions to one agent over its session: each has a number, and waits for the answer that carries it."""

import asyncio
from typing import Literal

from control_plane.sessions import Connection
from manifests.errors import UnavailableError
from manifests.session import Answer, Ask

WAIT_S = 10.0
MOST_WAITING = 64
What = Literal["stats", "layers"]


class Questions:
    """Those of one session. `answered` is what its agent answers, as its Hello says."""

    def __init__(self, node: str, connection: Connection) -> None:
        self.answered: frozenset[str] = frozenset()
        self._node, self._connection = node, connection
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._last_number = 0

    async def ask(self, what: What, allocation: str = "") -> Answer:
        """Return the answer. Raises UnavailableError, in words, if there is none."""
        if what not in self.answered:
            raise UnavailableError(
                f"node {self._node} can't be asked for {what}",
                why="its agent is of an older version, or runs nothing that could be looked into",
                fix="Update the agent.",
            )
        if len(self._waiting) >= MOST_WAITING:
            raise UnavailableError(f"node {self._node} is asked too much at once", fix="Try again in a moment.")
        self._last_number += 1
        number = self._last_number
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            async with asyncio.timeout(WAIT_S):
                await self._connection.send(Ask(number=number, what=what, allocation=allocation))
                answer = await future
        except TimeoutError as error:
            raise UnavailableError(f"node {self._node} did not answer within {WAIT_S:g} s") from error
        finally:
            self._waiting.pop(number, None)
        if answer.error:
            raise UnavailableError(f"node {self._node} could not answer", why=answer.error)
        return answer

    def take(self, answer: Answer) -> None:
        """Hand an answer to who waits for it; nobody does if it is late."""
        future = self._waiting.get(answer.number)
        if future is not None and not future.done():
            future.set_result(answer)

    def end_all(self, why: str) -> None:
        for number, future in list(self._waiting.items()):
            if not future.done():
                future.set_result(Answer(number=number, error=why))
