"""The Store: ordered keys under one revision. Every implementation passes tests/conformance/test_store.py.

Nothing here knows etcd or SQLite, and nothing above this folder does. Keys are text that begins with "/", values are
bytes (JSON by convention).
The revision is the store's logical clock: each committed transaction that changes anything makes the next one.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import NewType, Protocol, TypeAlias

Revision = NewType("Revision", int)
LeaseId = NewType("LeaseId", int)

ABSENT = Revision(0)  # the revision of a key that doesn't exist, for compares
MOST_OPERATIONS = 127  # of one transaction, compares and writes each: etcd's default cap less the store's own mark
MOST_BYTES = 1_400_000  # of one transaction's keys and values: etcd's default cap (--max-request-bytes) less overhead


@dataclass(frozen=True, slots=True)
class Entry:
    key: str
    value: bytes
    create_revision: Revision
    mod_revision: Revision


@dataclass(frozen=True, slots=True)
class Page:
    """Entries in key order, as they were at `revision`; go on with `start=next_key, at=revision` unless it is None."""

    entries: tuple[Entry, ...]
    revision: Revision
    next_key: str | None


@dataclass(frozen=True, slots=True)
class CreatedAt:
    """Holds if the key was created at that revision and not deleted since; ABSENT: if it does not exist."""

    key: str
    revision: Revision


@dataclass(frozen=True, slots=True)
class ModifiedAt:
    """Holds if the key was last changed at that revision; ABSENT: if it does not exist."""

    key: str
    revision: Revision


@dataclass(frozen=True, slots=True)
class Exists:
    key: str


Compare: TypeAlias = CreatedAt | ModifiedAt | Exists


@dataclass(frozen=True, slots=True)
class Put:
    key: str
    value: bytes
    lease: LeaseId | None = None  # the key goes when the lease does


@dataclass(frozen=True, slots=True)
class Delete:
    key: str


@dataclass(frozen=True, slots=True)
class Txn:
    """All `writes`, if all `compares` hold. At most MOST_OPERATIONS of each and MOST_BYTES; a key is written once."""

    compares: Sequence[Compare]
    writes: Sequence[Put | Delete]


@dataclass(frozen=True, slots=True)
class Change:
    """One key's new entry, or None if it was deleted, at `revision`."""

    key: str
    entry: Entry | None
    revision: Revision


@dataclass(frozen=True, slots=True)
class Changes:
    """Whole revisions, in order: all changes under the prefix up to and including `revision`, since the last one.

    Without changes it is a mark of progress: nothing under the prefix changed up to `revision`.
    """

    changes: tuple[Change, ...]
    revision: Revision


class Lease(Protocol):
    """A time to live. The store's client renews it until `revoke` or until it is lost."""

    @property
    def id(self) -> LeaseId: ...

    async def wait_lost(self) -> None:
        """Return once the lease is certainly or possibly gone: it expired, or could not be renewed in time."""
        ...

    async def revoke(self) -> None:
        """Give the lease up, and its keys with it, and stop renewing. Safe to call twice."""
        ...


class Store(Protocol):
    async def get(self, key: str) -> Entry | None:
        """Return the key's entry, as new as any reply that was given before this call (linearizable)."""
        ...

    async def list_prefix(
        self, prefix: str, *, at: Revision | None = None, start: str | None = None, limit: int = 500
    ) -> Page:
        """Return a page of the keys under the prefix, at a revision (None: now).

        Raises CompactedError if that revision is compacted away.
        """
        ...

    async def commit(self, txn: Txn) -> Revision:
        """Apply the transaction, all or nothing, durably, and return its revision.

        The revision is the current one if nothing changes (no writes, or only deletes of what isn't there).
        Raises ConflictError if a compare fails or the lease of a Put is gone, InvalidError if the transaction is too
        large, UnavailableError if the store can't be reached in time. A write whose outcome was unknown is resolved by
        reading back, so an UnavailableError may only rarely hide a success; callers compare revisions, so that trying
        again is safe.
        """
        ...

    def watch(self, prefix: str, *, after: Revision) -> AsyncIterator[Changes]:
        """Yield what changes under the prefix after that revision, in order, without gaps, for ever.

        Survives reconnects. Raises CompactedError when history is gone: list again. Delivery may repeat nothing and
        skips nothing; progress marks come now and then while nothing changes.
        """
        ...

    async def lease(self, *, ttl_s: float) -> Lease:
        """Grant a lease, which is renewed in the background until revoked or lost."""
        ...

    async def compact(self, revision: Revision) -> None:
        """Forget the history before that revision; what exists now stays."""
        ...

    async def close(self) -> None:
        """End watches and renewals and free what is held. Leases are left to expire. Safe to call twice."""
        ...
