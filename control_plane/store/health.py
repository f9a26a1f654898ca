"""How the store itself is, for those who operate it. An extra of the Store protocol: not every use needs it."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class MemberHealth:
    """How one member of the store answers; `why` says what is wrong, and is empty if nothing is."""

    endpoint: str
    version: str
    is_leader: bool
    database_bytes: int
    why: str
    warnings: tuple[str, ...] = ()  # what is known to be wrong with this version


@runtime_checkable
class SupportsHealth(Protocol):
    async def members(self) -> tuple[MemberHealth, ...]:
        """Return how each member answers now, in the order in which they were given. Bounded in time; never raises."""
        ...
