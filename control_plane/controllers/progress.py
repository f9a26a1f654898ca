"""How long each rollout has made no progress: on this leader's own clock, from when it first looked.

A new leader begins to count anew, so that no rollout fails by time that nobody saw.
"""

from dataclasses import dataclass, replace

from control_plane.controllers.rollouts import Progress
from foundation.clock import Clock


@dataclass(slots=True)
class _Best:
    progress: Progress
    looked_s: float
    stalled_s: float = 0.0


class ProgressClock:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._best: dict[str, _Best] = {}

    def stalled_for_s(self, workload: str, progress: Progress | None) -> float:
        """Return for how long it has been no better than this; None: there is no rollout under way to be timed.

        While only room is lacking it is none. What was counted before isn't forgotten: so a version that fails over and
        over, and has to wait for room in between, comes to its end.
        """
        if progress is None:
            self._best.pop(workload, None)
            return 0.0
        now, best = self._clock.now_s(), self._best.get(workload)
        if best is None or best.progress.of != progress.of:
            self._best[workload] = _Best(progress, now)
            return 0.0
        if not best.progress.only_lacks_room:
            best.stalled_s += now - best.looked_s
        if progress.available > best.progress.available or progress.old < best.progress.old:
            best.stalled_s = 0.0
        most, least = max(progress.available, best.progress.available), min(progress.old, best.progress.old)
        best.progress, best.looked_s = replace(progress, available=most, old=least), now
        return 0.0 if progress.only_lacks_room else best.stalled_s
