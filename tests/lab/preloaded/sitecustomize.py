"""Loaded by each Python process that runs under libfaketime: see tests.lab.wall_clock.

With the monotonic clock left alone, libfaketime 0.9.10 fails each `time.sleep` with EINVAL, as it gets the absolute sleep
that Python asks for wrong. Waiting on nothing by `select` is as good, and it leaves that alone.
"""

import select
import time


def _sleep(seconds: float) -> None:
    select.select([], [], [], seconds)


time.sleep = _sleep
