"""Groups of tasks, as asyncio has them, less two faults of theirs."""

import asyncio
import sys
from types import TracebackType


class TaskGroup(asyncio.TaskGroup):
    """asyncio's TaskGroup, which takes back the cancel request that it makes of its own parent, and loses no other.

    When a task fails while its group is being left, asyncio cancels the parent to interrupt its wait. Before Python
    3.13 that request stays counted. In Python 3.11.2, which Debian 12 has, no `asyncio.timeout` of that parent then
    raises TimeoutError any more: the next one to expire ends the parent as cancelled, without a word.

    When someone else cancels the parent while the group ends for another reason, the errors of the group go first, and
    before Python 3.13 the cancellation was forgotten: who handles those errors went on for ever. Here it comes next.
    """

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if sys.version_info >= (3, 13):
            await super().__aexit__(kind, error, traceback)
            return
        parent = asyncio.current_task()
        was_taken_back = self._has_cancelled_parent()
        try:
            await super().__aexit__(kind, error, traceback)
        finally:
            if parent is not None and self._has_cancelled_parent() and not was_taken_back:
                parent.uncancel()
            if parent is not None and parent.cancelling() and isinstance(sys.exc_info()[1], BaseExceptionGroup):
                parent.uncancel()
                parent.cancel()  # it comes with the next await

    def _has_cancelled_parent(self) -> bool:
        return bool(getattr(self, "_parent_cancel_requested", False))
