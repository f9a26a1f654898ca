"""The embedded store's log in SQL: apply a transaction, read a page, replay, compact. Runs in threads, without asyncio.

Functions that write are called inside the writer's SQLite transaction; those that read make their own.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from control_plane.store.protocol import Change, Changes, Entry, LeaseId, Page, Put, Revision, Txn
from control_plane.store.transactions import NOWHERE, beyond, compacted, conflict, holds, lease_conflict, prefix_end

POSITION_BITS = 20  # how many keys one revision may change, as a power of two: a lease may hold many
REPLAY_ROWS = 500
REPLAY_BYTES = 4_000_000
COMPACT_ROWS = 2_000
SHRINK_PAGES = 500  # given back in one step

_Row = tuple[int, bytes, bytes | None, int]  # of the log: id, key, value, created


@dataclass(frozen=True, slots=True)
class Replay:
    """What changed up to a revision; `more` says whether there is more to replay after it."""

    changes: Changes
    more: bool


class Log:
    """The writing end: keeps the current revision, and the changes that the running SQLite transaction makes."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.revision, _ = _revisions(connection)
        self.changed: list[Changes] = []
        self._is_stale = False  # whether `revision` may be that of something undone

    def begin(self) -> None:
        if self._is_stale:
            self.revision, _ = _revisions(self.connection)
            self._is_stale = False
        self.connection.execute("BEGIN IMMEDIATE")
        self.changed = []

    def end(self) -> list[Changes]:
        """Commit what was done since `begin`, durably, and return its changes, one item a revision."""
        if self.changed:
            self.connection.execute("UPDATE store SET revision = ?", (self.revision,))
        self.connection.execute("COMMIT")
        return self.changed

    def abandon(self) -> None:
        """Undo what was done since `begin`; also when the disk refuses, as after it filled up."""
        self._is_stale = True
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    def apply(self, txn: Txn) -> Revision:
        """Apply a checked transaction and return its revision; raises ConflictError before anything is written."""
        for compare in txn.compares:
            created, id_ = self._current(compare.key.encode())
            if not holds(compare, created, Revision(id_ >> POSITION_BITS)):
                raise conflict(txn, {compare.key: (created, Revision(id_ >> POSITION_BITS))})
        leases = {write.lease for write in txn.writes if isinstance(write, Put) and write.lease is not None}
        for lease in leases:
            if not self.connection.execute("SELECT 1 FROM lease WHERE id = ?", (lease,)).fetchone():
                raise lease_conflict(lease)
        revision = Revision(self.revision + 1)
        changes = [
            self._put(write, revision, position)
            if isinstance(write, Put)
            else self._delete(write.key, revision, position)
            for position, write in enumerate(txn.writes)
        ]
        return self._close_revision(revision, changes)

    def grant(self, ttl_s: float) -> LeaseId:
        row = self.connection.execute("INSERT INTO lease (ttl_s) VALUES (?)", (ttl_s,)).lastrowid
        assert row is not None
        return LeaseId(row)

    def revoke(self, lease: LeaseId) -> Revision:
        """Delete the lease and its keys, in one revision."""
        keys = self.connection.execute("SELECT key FROM current WHERE lease = ? ORDER BY key", (lease,)).fetchall()
        self.connection.execute("DELETE FROM lease WHERE id = ?", (lease,))
        revision = Revision(self.revision + 1)
        changes = [self._delete(key.decode(), revision, position) for position, (key,) in enumerate(keys)]
        return self._close_revision(revision, changes)

    def begin_compaction(self, revision: Revision) -> None:
        """Refuse older revisions from now on; `compact` then forgets them."""
        if revision > self.revision:
            raise beyond(revision, self.revision)
        self.connection.execute("UPDATE store SET compacted = max(compacted, ?)", (revision,))

    def compact(self, revision: Revision, start: int) -> int | None:
        """Forget some history before the revision, from log row `start` on, and return where to go on, or None.

        In ascending order, so that the newest row of each key at that revision is still there when older ones ask.
        """
        end = (revision + 1) << POSITION_BITS
        ids = self.connection.execute(
            "SELECT id FROM log WHERE id >= ? AND id < ? ORDER BY id LIMIT ?", (start, end, COMPACT_ROWS)
        ).fetchall()
        if not ids:
            return None
        last = int(ids[-1][0])
        self.connection.execute(
            "DELETE FROM log WHERE id >= ? AND id <= ? AND (value IS NULL OR EXISTS (SELECT 1 FROM log AS newer"
            " WHERE newer.key = log.key AND newer.id > log.id AND newer.id < ?))",
            (start, last, end),
        )
        return last + 1 if len(ids) == COMPACT_ROWS else None

    def shrink(self) -> bool:
        """Give some free pages back to the file system, and say whether to go on; a fifth stays for what comes."""
        free, pages = self._pages()
        surplus = free - (pages - free) // 4
        if surplus <= 0:
            return False
        for _ in range(min(surplus, SHRINK_PAGES)):  # one by one, since `execute` makes only the first step of it
            self.connection.execute("PRAGMA incremental_vacuum(1)")
        return surplus > SHRINK_PAGES and self._pages()[0] < free  # files of older versions can't shrink

    def _pages(self) -> tuple[int, int]:
        (free,) = self.connection.execute("PRAGMA freelist_count").fetchone()
        (pages,) = self.connection.execute("PRAGMA page_count").fetchone()
        return int(free), int(pages)

    def _put(self, put: Put, revision: Revision, position: int) -> Change:
        key = put.key.encode()
        created, _ = self._current(key)
        created = created or revision
        id_ = revision << POSITION_BITS | position
        self.connection.execute("INSERT INTO log VALUES (?, ?, ?, ?)", (id_, key, put.value, created))
        self.connection.execute("REPLACE INTO current VALUES (?, ?, ?, ?)", (key, id_, created, put.lease))
        return Change(put.key, Entry(put.key, put.value, created, revision), revision)

    def _delete(self, key: str, revision: Revision, position: int) -> Change | None:
        encoded = key.encode()
        if not self.connection.execute("DELETE FROM current WHERE key = ?", (encoded,)).rowcount:
            return None
        id_ = revision << POSITION_BITS | position
        self.connection.execute("INSERT INTO log VALUES (?, ?, NULL, 0)", (id_, encoded))
        return Change(key, None, revision)

    def _close_revision(self, revision: Revision, changes: Iterable[Change | None]) -> Revision:
        made = tuple(change for change in changes if change is not None)
        if made:
            self.revision = revision
            self.changed.append(Changes(made, revision))
        return self.revision

    def _current(self, key: bytes) -> tuple[Revision, int]:
        row = self.connection.execute("SELECT created, id FROM current WHERE key = ?", (key,)).fetchone()
        return row or NOWHERE


def read_entry(connection: sqlite3.Connection, key: str) -> Entry | None:
    row = connection.execute(
        "SELECT log.id, log.key, log.value, log.created FROM current JOIN log USING (id) WHERE current.key = ?",
        (key.encode(),),
    ).fetchone()
    return row and _entry(row)


def read_page(
    connection: sqlite3.Connection, prefix: str, *, at: Revision | None, start: str | None, limit: int
) -> Page:
    """Return a page of the keys under the prefix; raises CompactedError if that revision is gone, or isn't there."""
    with _one_view(connection):
        revision, kept_from = _revisions(connection)
        if at is not None and at < kept_from:
            raise compacted(at, kept_from)
        if at is not None and at > revision:
            raise beyond(at, revision)
        lower, upper = _bounds(prefix)
        lower = max(lower, (start or "").encode())
        if at is None or at == revision:
            rows = _rows_now(connection, lower, upper, limit + 1)
        else:
            rows = _rows_at(connection, lower, upper, at, limit + 1)
    next_key = rows[limit][1].decode() if len(rows) > limit else None
    return Page(tuple(map(_entry, rows[:limit])), revision if at is None else at, next_key)


def read_changes(connection: sqlite3.Connection, prefix: str, after: Revision) -> Replay:
    """Return what changed under the prefix after that revision: whole revisions, a bounded number of them."""
    lower, upper = _bounds(prefix)
    with _one_view(connection):
        revision, kept_from = _revisions(connection)
        if after < kept_from:
            raise compacted(after, kept_from)
        if after > revision:
            raise beyond(after, revision)
        rows: Iterator[_Row] = connection.execute(
            "SELECT id, key, value, created FROM log NOT INDEXED WHERE id >= ? AND key >= ? AND key < ? ORDER BY id",
            ((after + 1) << POSITION_BITS, lower, upper),
        )
        changes: list[Change] = []
        size = 0
        for row in rows:
            change = _change(row)
            if (len(changes) >= REPLAY_ROWS or size >= REPLAY_BYTES) and change.revision != changes[-1].revision:
                return Replay(Changes(tuple(changes), changes[-1].revision), more=True)
            changes.append(change)
            size += len(row[2] or b"")
    return Replay(Changes(tuple(changes), revision), more=False)


def read_leases(connection: sqlite3.Connection) -> list[tuple[LeaseId, float]]:
    return [(LeaseId(id_), float(ttl_s)) for id_, ttl_s in connection.execute("SELECT id, ttl_s FROM lease")]


def _rows_now(connection: sqlite3.Connection, lower: bytes, upper: bytes, most: int) -> list[_Row]:
    return connection.execute(
        "SELECT log.id, log.key, log.value, log.created FROM current JOIN log USING (id)"
        " WHERE current.key >= ? AND current.key < ? ORDER BY current.key LIMIT ?",
        (lower, upper, most),
    ).fetchall()


def _rows_at(connection: sqlite3.Connection, lower: bytes, upper: bytes, at: Revision, most: int) -> list[_Row]:
    """Return the newest rows up to a revision. In SQLite, `max(id)` makes the other columns those of its row."""
    return connection.execute(
        "SELECT max(id), key, value, created FROM log WHERE key >= ? AND key < ? AND id < ?"
        " GROUP BY key HAVING value IS NOT NULL ORDER BY key LIMIT ?",
        (lower, upper, (at + 1) << POSITION_BITS, most),
    ).fetchall()


@contextmanager
def _one_view(connection: sqlite3.Connection) -> Iterator[None]:
    """Make the reads of the block see one and the same commit."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("COMMIT")


def _revisions(connection: sqlite3.Connection) -> tuple[Revision, Revision]:
    revision, kept_from = connection.execute("SELECT revision, compacted FROM store").fetchone()
    return Revision(revision), Revision(kept_from)


def _bounds(prefix: str) -> tuple[bytes, bytes]:
    lower = prefix.encode()
    return lower, prefix_end(lower) or b"\xff"  # no UTF-8 text begins with 0xff


def _entry(row: _Row) -> Entry:
    id_, key, value, created = row
    assert value is not None
    return Entry(key.decode(), value, Revision(created), Revision(id_ >> POSITION_BITS))


def _change(row: _Row) -> Change:
    id_, key, value, _ = row
    return Change(key.decode(), None if value is None else _entry(row), Revision(id_ >> POSITION_BITS))
