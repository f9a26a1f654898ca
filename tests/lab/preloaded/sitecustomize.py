"""Loaded by each Python process that runs under libfaketime: see tests.lab.wall_clock.

With the monotonic clock left alone, libfaketime 0.9.10 fails each `time.sleep` with EINVAL: it gets the absolute sleep
wrong that Python asks for. Waiting on nothing by `select` is as good, and it leaves that alone.
"""

import select
import time
from typing import SupportsIndex


def _sleep(seconds: SupportsIndex | float) -> None:
    select.select([], [], [], float(seconds))


time.sleep = _sleep
