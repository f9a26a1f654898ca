"""Where a workload may run and would rather run: what `placement` says in a manifest."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, model_validator

from manifests.base import FieldError, Model, Name, Text
from manifests.constraints import parse_attribute, parse_constraint
from manifests.taints import parse_toleration


def _checked_constraint(text: str) -> str:
    parse_constraint(text)
    return text


def _checked_toleration(text: str) -> str:
    parse_toleration(text)
    return text


ConstraintText = Annotated[str, AfterValidator(_checked_constraint)]
TolerationText = Annotated[str, AfterValidator(_checked_toleration)]
Attribute = Annotated[str, AfterValidator(parse_attribute)]
Weight = Annotated[int, Field(strict=True, ge=-100, le=100)]
Percent = Annotated[int, Field(strict=True, ge=0, le=100)]


class Policy(StrEnum):
    """How the nodes that fit compare."""

    PACK = "pack"  # the fullest first, so that others stay empty
    SPREAD = "spread"  # the emptiest first


class NeighbourSpec(Model):
    """Another workload of the namespace; nodes with one value of `over` are one place."""

    service: Name | None = None
    daemon: Name | None = None
    job: Name | None = None
    over: Attribute = "node.name"

    @property
    def kind(self) -> str:
        """Return the kind as keys write it."""
        return "job" if self.job else "service" if self.service else "daemon"

    @property
    def name(self) -> str:
        return self.job or self.service or self.daemon or ""

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        given = [kind for kind in ("service", "daemon", "job") if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"names exactly one of service, daemon and job; this one names {len(given)}")
        return self


class AffinitySpec(Model):
    """A preference, from -100 to 100: for nodes where a constraint holds, or for places where a workload is."""

    constraint: ConstraintText | None = None
    near: NeighbourSpec | None = None
    weight: Weight

    @model_validator(mode="after")
    def _is_about_one(self) -> Self:
        if (self.constraint is None) == (self.near is None):
            raise ValueError("is about exactly one of constraint and near")
        return self


class SpreadSpec(Model):
    """Evens out over the values of `over`; with `shares`, by these percentages; `maxSkew` is how uneven it may get."""

    over: Attribute
    shares: dict[Text, Percent] = Field(default_factory=dict, max_length=64)
    max_skew: Annotated[int, Field(strict=True, ge=1, le=10_000)] | None = None

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if sum(self.shares.values()) > 100:
            raise FieldError(("shares",), f"add up to {sum(self.shares.values())} percent, and the most is 100")
        if self.shares and self.max_skew is not None:
            raise FieldError(("maxSkew",), "counts from an even spread: leave it out, or shares")
        return self


def _spread_from(value: object) -> object:
    return {"over": value} if isinstance(value, str) else value


def _rendered_spread(spread: SpreadSpec) -> object:
    """Write what is plain as it is written in manifests: as the attribute alone."""
    return spread.model_dump(exclude_defaults=True) if spread.shares or spread.max_skew is not None else spread.over


class PlacementSpec(Model):
    """Where it may run: constraints must hold; affinities are preferences; `spread` evens out over an attribute."""

    constraints: tuple[ConstraintText, ...] = Field((), max_length=32)
    tolerations: tuple[TolerationText, ...] = Field((), max_length=16)
    affinities: tuple[AffinitySpec, ...] = Field((), max_length=16)
    apart: tuple[NeighbourSpec, ...] = Field((), max_length=16)
    together: tuple[NeighbourSpec, ...] = Field((), max_length=16)
    spread: tuple[Annotated[SpreadSpec, BeforeValidator(_spread_from), PlainSerializer(_rendered_spread)], ...] = Field(
        (), max_length=8
    )
    max_per_node: Annotated[int, Field(strict=True, ge=1)] | None = None
    policy: Policy | None = None  # None: the cluster's
