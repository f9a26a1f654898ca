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
    healthy: int = 0  # the newest version that was ever completely rolled out and healthy; 0: none yet
