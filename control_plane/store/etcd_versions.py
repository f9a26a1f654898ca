"""What is known to be wrong with versions of etcd. Pure; from etcd's changelogs and advisories."""

from dataclasses import dataclass
from typing import TypeAlias

Version: TypeAlias = tuple[int, int, int]

OLDEST: Version = (3, 4, 22)
_LATEST = 10**6


@dataclass(frozen=True, slots=True)
class Defect:
    """What happens in versions from `first` to before `mended`; a line without a mended version gets no more mends."""

    first: Version
    mended: Version
    what: str


DEFECTS = (
    Defect((3, 5, 0), (3, 5, 6), "can corrupt its data"),
    Defect((3, 4, 0), (3, 4, 31), "drops live leases while one member's disk is slow"),
    Defect((3, 5, 0), (3, 5, 13), "drops live leases while one member's disk is slow"),
    Defect((3, 4, 24), (3, 4, 39), "can lose or repeat watch events"),
    Defect((3, 4, 0), (3, 4, 42), "can serve stale reads after it was paused"),
    Defect((3, 4, 0), (3, 5, 0), "is of a line that gets no more mends: upgrade to 3.5 or 3.6"),
)


def defects_of(version: str) -> tuple[str, ...]:
    """Return a sentence for each defect that this version is known to have.

    >>> defects_of("3.5.7")
    ("3.5.7 drops live leases while one member's disk is slow (mended in 3.5.13)",)
    >>> defects_of("3.6.1")
    ()
    """
    numbers = parsed(version)
    if numbers is None:
        return ()
    if numbers < OLDEST:
        return (f"{version} is too old: {_written(OLDEST)} is the oldest that Wherry works with",)
    return tuple(_sentence(version, d) for d in DEFECTS if d.first <= numbers < d.mended)


def parsed(version: str) -> Version | None:
    """Return the numbers of a version, or None if it isn't written as three of them."""
    parts = version.split("-")[0].split("+")[0].split(".")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts):
        return None
    major, minor, patch = (min(int(part), _LATEST) for part in parts)
    return major, minor, patch


def _sentence(version: str, defect: Defect) -> str:
    is_of_the_line = defect.first[:2] == defect.mended[:2]
    return f"{version} {defect.what}" + (f" (mended in {_written(defect.mended)})" if is_of_the_line else "")


def _written(version: Version) -> str:
    return ".".join(map(str, version))
