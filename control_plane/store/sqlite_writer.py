"""The embedded store's one writing thread, which puts all waiting transactions into one SQLite commit.

Each of them still is all or nothing and has its own revision; none is answered before the commit is on disk. This is
what makes synchronous=FULL fast: the fewer the fsyncs a transaction, the more wait for one.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias, TypeVar

from control_plane.store.protocol import Changes
from control_plane.store.sqlite_file import translated
from control_plane.store.sqlite_log import Log
from manifests.errors import UnavailableError, WherryError

MOST_IN_ONE_COMMIT = 256
WRITE_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 20.0

Result = TypeVar("Result")
_Job: TypeAlias = tuple[Callable[[Log], object], "asyncio.Future[object]"]
_Outcome: TypeAlias = tuple["asyncio.Future[object]", object, Exception | None]


class Writer:
    """Runs functions over the log, in order. The queue is bounded by its callers: each waits for its own answer."""

    def __init__(self, path: Path, log: Log, publish: Callable[[Sequence[Changes]], None]) -> None:
        self._path = path
        self._log = log
        self._publish = publish  # called in the event loop with what was committed, before anybody is answered
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._stopped = False
        self._thread = threading.Thread(target=self._serve, name="store-writer", daemon=True)
        self._thread.start()

    async def run(self, work: Callable[[Log], Result]) -> Result:
        """Return what `work` returned, once that is durable; it must change nothing if it raises.

        Raises UnavailableError if that takes too long or the disk refuses. When cancelled, the work may still be done.
        """
        if self._stopped:
            raise UnavailableError("the store is closed")
        answer: asyncio.Future[object] = self._loop.create_future()
        self._jobs.put((work, answer))
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                return await answer  # type: ignore[return-value]  # the queue can't carry each job's type
        except TimeoutError as error:
            raise UnavailableError(
                f"the store {self._path} did not write in {WRITE_TIMEOUT_S:g} s",
                why="its disk is too slow or hangs; the write may still be done",
            ) from error

    async def stop(self) -> None:
        """End the thread after what is queued."""
        self._stopped = True
        self._jobs.put(None)
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await asyncio.to_thread(self._thread.join)

    def _serve(self) -> None:
        going_on = True
        while going_on:
            jobs, going_on = self._take()
            outcomes, changed = self._commit(jobs)
            try:
                self._loop.call_soon_threadsafe(self._settle, outcomes, changed)
            except RuntimeError:
                return  # the loop is closed: nobody waits any more

    def _take(self) -> tuple[list[_Job], bool]:
        """Wait for a job, and return it with all others that wait too, and whether to go on after them."""
        jobs: list[_Job] = []
        try:
            while len(jobs) < MOST_IN_ONE_COMMIT:
                job = self._jobs.get(block=not jobs)
                if job is None:
                    return jobs, False
                jobs.append(job)
        except queue.Empty:
            pass
        return jobs, True

    def _commit(self, jobs: Sequence[_Job]) -> tuple[list[_Outcome], list[Changes]]:
        waited_for = [job for job in jobs if not job[1].cancelled()]
        if not waited_for:
            return [], []
        try:
            self._log.begin()
            outcomes = [self._do(job) for job in waited_for]
            return outcomes, self._log.end()
        except sqlite3.Error as error:
            self._abandon()
            return [(answer, None, translated(error, self._path)) for _, answer in waited_for], []
        except Exception as error:  # a bug: it reaches the callers, and the thread lives on for the others
            self._abandon()
            return [(answer, None, error) for _, answer in waited_for], []

    def _do(self, job: _Job) -> _Outcome:
        work, answer = job
        try:
            return answer, work(self._log), None
        except WherryError as error:
            return answer, None, error

    def _abandon(self) -> None:
        with suppress(sqlite3.Error):  # the next `begin` fails too, then, and its callers hear of it
            self._log.abandon()

    def _settle(self, outcomes: Sequence[_Outcome], changed: Sequence[Changes]) -> None:
        if changed:
            self._publish(changed)
        for answer, result, error in outcomes:
            if answer.done():
                continue  # cancelled meanwhile
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(result)
