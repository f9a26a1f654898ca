"""What checkers look at: one revision of the store, with as much about its writer as is known."""

from dataclasses import dataclass

from control_plane.store.protocol import Change, Compare, Revision


@dataclass(frozen=True, slots=True)
class Step:
    """All that changed at one revision. A real store's history doesn't tell who wrote, nor what was compared."""

    revision: Revision
    changes: tuple[Change, ...]
    compares: tuple[Compare, ...] | None = None  # None: not known
    began_s: float | None = None  # when the writer decided to write, on the simulation's clock
    call: int | None = None  # of the client's commits; each makes one revision, however often it was tried
    writer: str | None = None  # the name of the server that wrote; "" for the store itself, as when a lease ends
    seen: Revision | None = None  # how far the writer had followed the store when it decided to write


@dataclass(frozen=True, slots=True)
class Breach:
    """An invariant that doesn't hold, and how that was seen."""

    rule: str  # S1 ... L12
    what: str

    def __str__(self) -> str:
        return f"{self.what} ({self.rule})"
