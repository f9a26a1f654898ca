"""A plan as people keep it: what was applied in a rehearsal, and on what that rested; for `wherry apply --plan`."""

from pydantic import Field

from manifests.base import Model

MOST_PLANNED = 20_000


class Planned(Model):
    """Where a new allocation was to go."""

    workload: str  # its id: `default/service/web`
    index: int
    version: int
    node: str


class AppliedPlan(Model):
    """What must still hold: the revisions of the records that the documents concern, and where things would go."""

    cluster: str
    generation: int
    revision: int
    at: dict[str, int]  # by id, also of configs: `default/config/site`; 0: there was none
    placements: tuple[Planned, ...] = Field((), max_length=MOST_PLANNED)
