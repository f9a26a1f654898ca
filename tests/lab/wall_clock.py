"""The wall clock of one host's Wherry daemon, which a test may set wrong: libfaketime, driven by a file.

Only what tells people the time jumps; the monotonic clock, by which a daemon decides, goes on as ever.
"""

from collections.abc import Mapping
from pathlib import Path

from tests.lab.host import REPOSITORY

# `$LIB` is the loader's own word for this architecture's folder.
LIBRARY = "/usr/$LIB/faketime/libfaketimeMT.so.1"
PRELOADED = Path(__file__).parent / "preloaded"


class WallClock:
    def __init__(self, file: Path) -> None:
        self._file = file
        self.set_right()

    def environment(self) -> Mapping[str, str]:
        """Return what makes a process follow this clock from its start."""
        return {
            "LD_PRELOAD": LIBRARY,
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_NO_CACHE": "1",
            "NO_FAKE_STAT": "1",
            "PYTHONPATH": f"{PRELOADED}:{REPOSITORY}",
        }

    def set_wrong(self, seconds: float) -> None:
        """Let it jump to so many seconds after the right time, or before it."""
        self._write(f"{seconds:+.0f}")

    def set_right(self) -> None:
        self._write("+0")

    def _write(self, offset: str) -> None:
        draft = self._file.with_suffix(".draft")
        draft.write_text(f"{offset}\n")
        draft.replace(self._file)


def why_no_wall_clock() -> str:
    """Return why no clock can be set here, or nothing."""
    if any(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")):
        return ""
    return "setting a daemon's wall clock needs libfaketime (apt: libfaketime)"
