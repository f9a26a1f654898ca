"""Crash points: a process dies right before or right after its n-th effect on the world outside.

The fakes call `effect` around each commit, driver call, frame and file: whatever is under way then is half done.
"""

import asyncio
from dataclasses import dataclass

from tests.simulation.loop import CURRENT, Process, ProcessKilledError


@dataclass(slots=True)
class CrashPoint:
    """Kills its process at the n-th effect from now on; of one kind, if one is named."""

    countdown: int
    is_before: bool
    kind: str = ""  # commit | driver | frame | file


async def effect(kind: str, *, before: bool) -> None:
    """Return, unless this is where the process dies: then never."""
    process = CURRENT.get(None)
    if process is not None and _hits(process, kind, before=before):
        process.kill()
        await asyncio.get_running_loop().create_future()


def effect_now(kind: str, *, before: bool) -> None:
    """The same in synchronous code, which ends here."""
    process = CURRENT.get(None)
    if process is not None and _hits(process, kind, before=before):
        process.kill()
        raise ProcessKilledError


def _hits(process: Process, kind: str, *, before: bool) -> bool:
    point = process.crash
    if not isinstance(point, CrashPoint) or point.is_before is not before or point.kind not in ("", kind):
        return False
    point.countdown -= 1
    if point.countdown > 0:
        return False
    process.crash = None
    return True
