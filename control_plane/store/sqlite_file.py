"""The embedded store's file: locked, checked, and opened with the settings that make a commit durable.

Exactly one connection writes and checkpoints: SQLite before 3.51.3 can corrupt a WAL that two reset at once.
"""

import fcntl
import os
import socket
import sqlite3
from pathlib import Path

from manifests.errors import StoreFullError, UnavailableError, WherryError

APPLICATION_ID = 0x57485259  # "WHRY"
SCHEMA_VERSION = 1
BUSY_TIMEOUT_S = 5.0
WAL_BYTES = 16_000_000  # kept after a checkpoint, however far it once grew

# A log row's id is revision << POSITION_BITS | position: one index serves order, replay and compaction. `current`
# points into the log, so that a value is stored once; a NULL value is a deletion.
SCHEMA = """
CREATE TABLE log (id INTEGER PRIMARY KEY, key BLOB NOT NULL, value BLOB, created INTEGER NOT NULL);
CREATE INDEX log_by_key ON log (key);
CREATE TABLE current (key BLOB PRIMARY KEY, id INTEGER NOT NULL, created INTEGER NOT NULL, lease INTEGER) WITHOUT ROWID;
CREATE INDEX current_by_lease ON current (lease) WHERE lease IS NOT NULL;
CREATE TABLE lease (id INTEGER PRIMARY KEY AUTOINCREMENT, ttl_s REAL NOT NULL);
CREATE TABLE store (one INTEGER PRIMARY KEY CHECK (one = 1), revision INTEGER NOT NULL, compacted INTEGER NOT NULL);
INSERT INTO store VALUES (1, 1, 0);
"""


def take_lock(path: Path) -> int:
    """Return the descriptor that holds the store's lock until it is closed, also by a crash.

    Raises UnavailableError, which names the holder, if another process or store has it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
    except BlockingIOError as error:
        holder = os.pread(lock, 200, 0).decode(errors="replace") or "another process"
        os.close(lock)
        raise UnavailableError(
            f"cannot open the store {path}",
            why=f"it is locked by {holder}",
            fix="Stop that one first, or use another data folder.",
        ) from error
    except OSError:
        os.close(lock)
        raise
    return lock


def open_writer(path: Path) -> sqlite3.Connection:
    """Return the writing connection to a checked store, which is made if the file is missing or empty."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # secrets lie in it; SQLite would use 0644
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_S)
    try:
        _set_up(connection, path)
    except sqlite3.DatabaseError as error:
        connection.close()
        raise translated(error, path) from error
    except WherryError:
        connection.close()
        raise
    return connection


def open_reader(path: Path) -> sqlite3.Connection:
    """Return a connection that only reads, and never checkpoints."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_S)


def file_bytes(path: Path) -> int:
    """Return what the store takes on disk."""
    parts = (path, path.with_name(f"{path.name}-wal"))
    return sum(part.stat().st_size for part in parts if part.exists())


def translated(error: sqlite3.Error, path: Path) -> WherryError:
    """Return what an SQLite error means to a caller."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return corrupt(path, str(error))
    if code == sqlite3.SQLITE_FULL:
        return StoreFullError(
            f"the store {path} can't write", why="its disk is full", fix="Free some space; then it goes on by itself."
        )
    return UnavailableError(f"the store {path} can't be used now", why=str(error), fix="Look at its disk.")


def corrupt(path: Path, why: str) -> WherryError:
    return WherryError(
        f"cannot use the store {path}",
        why=f"it is corrupt ({why})",
        fix="Restore it from a snapshot, or move the file away to begin empty.",
    )


def _set_up(connection: sqlite3.Connection, path: Path) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if tables and application != APPLICATION_ID:
        raise WherryError(f"cannot open the store {path}", why="it is an SQLite file, but not a store of Wherry")
    if version > SCHEMA_VERSION:
        raise WherryError(
            f"cannot open the store {path}",
            why=f"its format is {version}, and this version of Wherry knows formats up to {SCHEMA_VERSION}",
            fix="Use the newer version of Wherry that wrote it.",
        )
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # of a new file: compaction gives its pages back
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")  # a commit returns when it is on disk
    connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
    found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(3)")]
    if found != ["ok"]:
        raise corrupt(path, "; ".join(found))
    if not tables:
        marks = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION};"
        connection.executescript(f"BEGIN; {SCHEMA} {marks} COMMIT;")
