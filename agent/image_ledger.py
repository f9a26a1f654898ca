"""Which images this agent pulled, and when each was last needed: what the garbage collection of images goes by.

One small file in the agent's folder. If it is lost, what was pulled before counts as somebody else's, and stays.
"""

import asyncio
from collections.abc import Iterable

from pydantic import Field, ValidationError

from agent.folder import Folder
from agent.references import normalized
from foundation.logs import Log
from manifests.base import Model

LEDGER_FILE = "images.json"
_log = Log(__name__)


class _Saved(Model):
    used_s: dict[str, float] = Field(default_factory=dict)  # by reference, seconds since the epoch


class ImageLedger:
    """Reads its file at once; `save` writes it."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._saving = asyncio.Lock()
        self._used_s: dict[str, float] = {}
        try:
            self._used_s = dict(_Saved.read(folder.read(LEDGER_FILE)).used_s)
        except FileNotFoundError:
            pass
        except (ValidationError, ValueError) as error:
            aside = folder.move_aside(LEDGER_FILE)
            _log.warning("list of images was damaged and moved aside", aside=aside, error=str(error)[:200])

    def used(self, reference: str, now_s: float, *, was_pulled: bool = False) -> None:
        """Note that the image is needed now; one that this agent didn't pull is nothing to it."""
        name = normalized(reference)
        if was_pulled or name in self._used_s:
            self._used_s[name] = now_s

    def last_used_s(self, reference: str) -> float | None:
        """Return when it was needed last; None if this agent didn't pull it."""
        return self._used_s.get(normalized(reference))

    def forget(self, reference: str) -> None:
        self._used_s.pop(normalized(reference), None)

    def keep_only(self, references: Iterable[str], asked_s: float) -> None:
        """Forget what the manager hadn't any more when it was asked."""
        there = set(map(normalized, references))
        self._used_s = {name: used_s for name, used_s in self._used_s.items() if name in there or used_s >= asked_s}

    async def save(self) -> None:
        """A full disk is reported and stops nothing."""
        async with self._saving:
            saved = _Saved(used_s=self._used_s).to_bytes()
            try:
                await asyncio.to_thread(self._folder.write, LEDGER_FILE, saved)
            except OSError as error:
                _log.warning("list of images could not be saved", why=str(error))
