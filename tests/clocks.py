"""Clocks for tests whose time of day is set by hand, while timers run as ever."""

from datetime import UTC, datetime

from foundation.clock import SystemClock


class SetClock(SystemClock):
    """Goes on by itself from the time it was set to last, forwards or back. Needs a running loop."""

    def __init__(self, text: str) -> None:
        self.set(text)

    def set(self, text: str) -> None:
        """Set it to a time in UTC, such as `2026-11-24 22:14:59`."""
        self._base_s = datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() - self.now_s()

    def wall_s(self) -> float:
        return self._base_s + self.now_s()
