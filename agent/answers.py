"""Answers a server's questions over a session. A slow answer holds up neither the session nor the next question."""

import asyncio

from agent.glass import Glass
from agent.transport import Channel
from foundation.tasks import TaskGroup
from manifests.errors import TimedOutError, UnavailableError, WherryError
from manifests.session import Answer, Ask

MOST_AT_ONCE = 16
ANSWER_S = 8.0


class Answers:
    """The questions of one session; what is under way ends with its task group."""

    def __init__(self, glass: Glass | None, channel: Channel, tasks: TaskGroup) -> None:
        self._glass, self._channel, self._tasks = glass, channel, tasks
        self._open: set[asyncio.Task[None]] = set()

    def take(self, ask: Ask) -> None:
        is_full = len(self._open) >= MOST_AT_ONCE
        task = self._tasks.create_task(self._serve(ask, is_full=is_full), name=f"answer {ask.what}")
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _serve(self, ask: Ask, *, is_full: bool) -> None:
        try:
            if is_full:
                raise UnavailableError(f"this node answers {MOST_AT_ONCE} questions already")
            answer = await self._answer(ask)
        except WherryError as failure:
            error = f"{failure.what}: {failure.why}" if failure.why else failure.what
            answer = Answer(number=ask.number, error=error)
        except (OSError, ValueError) as odd:  # of a file of the kernel or of an engine; no reason to end the session
            answer = Answer(number=ask.number, error=f"something that was found could not be read: {odd}")
        await self._channel.send(answer)

    async def _answer(self, ask: Ask) -> Answer:
        if self._glass is None:
            raise UnavailableError("this agent doesn't look into its containers")
        try:
            async with asyncio.timeout(ANSWER_S):
                if ask.what == "layers":
                    return Answer(number=ask.number, layers=await self._glass.layers(ask.allocation))
                return Answer(number=ask.number, stats=await self._glass.stats())
        except TimeoutError as error:
            raise TimedOutError(f"the node did not find its answer within {ANSWER_S:g} s") from error
