"""What both stores ask of a transaction, and how they word a conflict. Knows no store."""

from collections.abc import Mapping
from typing import assert_never

from control_plane.store.protocol import (
    ABSENT,
    MOST_BYTES,
    MOST_OPERATIONS,
    Compare,
    CreatedAt,
    Exists,
    LeaseId,
    ModifiedAt,
    Put,
    Revision,
    Txn,
)
from manifests.errors import CompactedError, ConflictError, InvalidError

NOWHERE = (ABSENT, ABSENT)  # the revisions of a key that doesn't exist


def check(txn: Txn) -> None:
    """Refuse what a store can't take as one transaction, the same way in each store."""
    if len(txn.compares) > MOST_OPERATIONS or len(txn.writes) > MOST_OPERATIONS:
        raise ValueError(
            f"{len(txn.compares)} compares and {len(txn.writes)} writes: at most {MOST_OPERATIONS} of each"
        )
    if len({write.key for write in txn.writes}) < len(txn.writes):
        raise ValueError("a transaction writes the same key twice")
    size = sum(len(write.key) + (len(write.value) if isinstance(write, Put) else 0) for write in txn.writes)
    if size > MOST_BYTES:
        largest = max(txn.writes, key=lambda write: len(write.value) if isinstance(write, Put) else 0)
        raise InvalidError(
            "cannot store so much at once",
            why=f"the transaction has {size} bytes, and at most {MOST_BYTES} are allowed; the largest is {largest.key}",
            fix="Make it smaller, or split it.",
        )


def holds(compare: Compare, created: Revision, modified: Revision) -> bool:
    """Say whether a compare holds for a key with these revisions, ABSENT both if it doesn't exist."""
    match compare:
        case CreatedAt(_, revision):
            return created == revision
        case ModifiedAt(_, revision):
            return modified == revision
        case Exists():
            return modified != ABSENT
        case _:
            assert_never(compare)


def conflict(txn: Txn, found: Mapping[str, tuple[Revision, Revision]]) -> ConflictError:
    """Return the error for the first compare that fails against the found (created, modified) revisions.

    `found` may be incomplete or newer than the failure: then the text stays vague.
    """
    for compare in txn.compares:
        if compare.key in found and not holds(compare, *found[compare.key]):
            return _conflict(compare, *found[compare.key])
    return ConflictError("cannot write to the store", why="a key that the write depends on changed meanwhile")


def lease_conflict(lease: LeaseId) -> ConflictError:
    return ConflictError(
        "cannot write to the store",
        why=f"the lease {lease} which the write depends on has expired or was revoked",
        fix="Take a new lease and write again.",
    )


def compacted(wanted: Revision, compacted_at: Revision | None = None) -> CompactedError:
    kept = f"; what is kept begins at revision {compacted_at}" if compacted_at is not None else ""
    return CompactedError(f"the store's history at revision {wanted} is gone", why=f"it was compacted{kept}")


def beyond(wanted: Revision, current: Revision | None = None) -> CompactedError:
    """Return the error for a revision that isn't there yet, as after a restore: the caller's knowledge is of no use."""
    now = f"it is at revision {current}" if current is not None else "its revision is lower"
    return CompactedError(
        f"the store has no revision {wanted}", why=f"{now}; it may have been restored from a snapshot"
    )


def prefix_end(prefix: bytes) -> bytes:
    """Return the first key after all that begin with the prefix; empty if there is none.

    >>> prefix_end(b"/a/"), prefix_end(b"a\\xff"), prefix_end(b"")
    (b'/a0', b'b', b'')
    """
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1]) if kept else b""


def _conflict(compare: Compare, created: Revision, modified: Revision) -> ConflictError:
    if modified == ABSENT:
        why = "it does not exist"
    elif isinstance(compare, Exists) or compare.revision == ABSENT:
        why = f"it exists already, since revision {created}"
    elif isinstance(compare, CreatedAt):
        why = f"it was created at revision {created}, not {compare.revision}"
    else:
        why = f"it changed at revision {modified} and the write started from revision {compare.revision}"
    return ConflictError(f"cannot write {compare.key}", why=why, fix="Read it again and redo the change.")
