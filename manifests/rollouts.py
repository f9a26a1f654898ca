"""Where a workload's passage from one version to the next stands, as the leader records it."""

from enum import StrEnum

from manifests.base import Model


class RolloutState(StrEnum):
    PROGRESSING = "progressing"
    PAUSED = "paused"
    WAITING = "waiting"  # its canaries are available, and wait for someone to promote them
    COMPLETE = "complete"
    FAILED = "failed"  # it made no progress within progressDeadline, and wasn't reverted
    REVERTED = "reverted"  # it failed, and `target` runs again


class Rollout(Model):
    """`version` is what the user applied; `target` what the leader works towards: after a revert an older one."""

    version: int
    target: int
    state: RolloutState
    message: str = ""  # why it is so, for people
    healthy: tuple[int, ...] = ()  # the kept versions that were ever completely rolled out and healthy
    promoted: bool = False  # it is past its canaries
    stop_first: bool = False  # an old allocation stops before a new one starts: there is no room for both

    @property
    def last_healthy(self) -> int:
        """Return the newest version that was ever healthy; 0: none yet."""
        return max(self.healthy, default=0)

    @property
    def is_over(self) -> bool:
        return self.state in (RolloutState.COMPLETE, RolloutState.REVERTED)

    @property
    def is_reverting(self) -> bool:
        return self.target != self.version
