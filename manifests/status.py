"""What the leader has to say about a workload: what is blocked and why, and where a change of version stands."""

from collections.abc import Mapping
from typing import TypeAlias

from pydantic import Field

from manifests.base import Model
from manifests.reasons import Blocked
from manifests.rollouts import Rollout
from manifests.workloads import WorkloadRef

Pinned: TypeAlias = Mapping[int, Mapping[str, str]]  # by version: the digest of each of its images


class WorkloadStatus(Model):
    """Written by the leader when it changes. Counts are not here: readers count allocations themselves."""

    ref: WorkloadRef
    generation: int  # of the record that this answers
    blocked: tuple[Blocked, ...] = ()
    messages: tuple[str, ...] = ()  # what it waits for, in sentences
    is_complete: bool = False  # a job that has all its completions, or has failed for good
    is_failed: bool = False
    is_waiting: bool = False  # nothing of it is started until what it is to start after holds
    rollout: Rollout | None = None
    pinned: dict[int, dict[str, str]] = Field(default_factory=dict)  # by version: the digest of each of its images
