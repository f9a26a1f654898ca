"""How a workload as a whole is treated: how it is renewed, what follows failures and lost nodes."""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from manifests.base import Count, Duration, FieldError, Flag, Model, Name
from manifests.quantities import parse_duration, render_duration


def _duration_or_never(value: object) -> object:
    return None if value is None or value == "never" else parse_duration(value)


def _render_or_never(seconds: float | None) -> str:
    return "never" if seconds is None else render_duration(seconds)


DurationOrNever = Annotated[
    float | None,
    BeforeValidator(_duration_or_never),
    PlainSerializer(_render_or_never, return_type=str),
    Field(description="a duration such as 30s, or never"),
]


class RescheduleSpec(Model):
    """Elsewhere, when restarts in place are used up: after a backoff that doubles."""

    backoff_s: Duration = Field(5.0, alias="backoff", ge=0.1)
    max_backoff_s: Duration = Field(600.0, alias="maxBackoff", ge=0.1)


class Keep(StrEnum):
    """Which of two allocations of one slot stays when a lost node is back."""

    REPLACEMENT = "replacement"  # the one that took over
    ORIGINAL = "original"  # the one that was cut off, if it still runs
    LONGEST_RUNNING = "longestRunning"  # whichever has been running, and healthy, for longer


class OnDisconnectSpec(Model):
    """What follows when a node is lost. `stop_after_s` is counted on the node, which can't ask anybody by then."""

    replace_after_s: Duration = Field(0.0, alias="replaceAfter", le=7 * 86400)  # from when the node is lost
    stop_after_s: DurationOrNever = Field(None, alias="stopAfter")  # from the last acknowledged heartbeat
    keep: Keep = Keep.REPLACEMENT


def _check_deadline(min_healthy_s: float, progress_deadline_s: float) -> None:
    """Refuse a deadline that no version could ever meet."""
    if progress_deadline_s <= min_healthy_s:
        least = render_duration(min_healthy_s)
        raise FieldError(
            ("progressDeadline",), f"must be longer than minHealthyTime ({least}): no version could meet it"
        )


class UpdateSpec(Model):
    """How a new version replaces the old: so many more than `replicas`, and so many fewer, at any time."""

    max_surge: Count = 1
    max_unavailable: Count = 0
    min_healthy_s: Duration = Field(5.0, alias="minHealthyTime", le=3600)  # ready for so long, it counts as available
    progress_deadline_s: Duration = Field(120.0, alias="progressDeadline", ge=1)  # without any progress: it failed
    auto_revert: Flag = True  # to the last version that was healthy, when it failed
    canary: Count = 0  # so many of the new version beside all of the old, until promoted
    auto_promote: Flag = False  # once all canaries are available

    @model_validator(mode="after")
    def _can_progress(self) -> Self:
        _check_deadline(self.min_healthy_s, self.progress_deadline_s)
        if self.max_surge == 0 and self.max_unavailable == 0:
            raise ValueError("maxSurge and maxUnavailable can't both be 0: no version could ever replace another")
        return self


class DaemonUpdateSpec(Model):
    """How a new version of a Daemon goes from node to node: on so many at a time, the old one stopped first."""

    max_unavailable: Annotated[int, Field(strict=True, ge=1, le=10_000)] = 1
    min_healthy_s: Duration = Field(5.0, alias="minHealthyTime", le=3600)
    progress_deadline_s: Duration = Field(120.0, alias="progressDeadline", ge=1)
    auto_revert: Flag = True

    @model_validator(mode="after")
    def _can_progress(self) -> Self:
        _check_deadline(self.min_healthy_s, self.progress_deadline_s)
        return self


class DependencySpec(Model):
    """Another workload of the namespace, and what must hold of it before this one starts."""

    job: Name | None = None
    service: Name | None = None
    daemon: Name | None = None
    is_: Literal["succeeded", "healthy"] | None = Field(None, alias="is")  # None: succeeded of a job, else healthy

    @property
    def kind(self) -> str:
        """Return the kind as keys write it."""
        return "job" if self.job else "service" if self.service else "daemon"

    @property
    def name(self) -> str:
        return self.job or self.service or self.daemon or ""

    @property
    def wanted(self) -> str:
        return self.is_ or ("succeeded" if self.job else "healthy")

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        given = [kind for kind in ("job", "service", "daemon") if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"names exactly one of job, service and daemon; this one names {len(given)}")
        if self.is_ == "succeeded" and not self.job:
            raise FieldError(("is",), f"a {given[0]} doesn't end by itself: write is: healthy")
        if self.is_ == "healthy" and self.job:
            raise FieldError(("is",), "a job is waited for until it has succeeded: write is: succeeded")
        return self
