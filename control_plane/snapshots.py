"""Snapshots: the whole desired and observed state at one revision, as lines of JSON, and how one is put into a store.

The first line says what it is, each next one is a key with its value, and the last one has their number and a SHA-256
over all lines before it: a file that is cut short or was changed is refused before anything is written.

What a restore must never do is to make agents kill what runs. So it begins a new generation of the store: agents know
by it that revisions start anew, and keep what the restored state knows nothing of.
"""

import hashlib
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from control_plane import keys
from control_plane.records import ClusterRecord
from control_plane.store.protocol import (
    ABSENT,
    MOST_BYTES,
    MOST_OPERATIONS,
    Delete,
    Entry,
    ModifiedAt,
    Page,
    Put,
    Revision,
    Store,
    Txn,
)
from foundation.clock import Clock
from foundation.version import VERSION
from manifests.base import render_timestamp
from manifests.errors import ConflictError, InvalidError

FORMAT = 1
LEFT_OUT = (keys.SERVERS, keys.LEADER, keys.RESTORING)  # they are of servers that live now


@dataclass(frozen=True, slots=True)
class Snapshot:
    cluster: ClusterRecord
    revision: int
    saved_at: str
    version: str  # of Wherry
    entries: tuple[tuple[str, bytes], ...]


async def save(store: Store, clock: Clock) -> AsyncIterator[bytes]:
    """Yield the lines of a snapshot, all as of one revision. Raises ConflictError if there is no cluster yet."""
    entry = await store.get(keys.CLUSTER)
    if entry is None:
        raise ConflictError("there is nothing to save", why="the store holds no cluster")
    page = await store.list_prefix(keys.ROOT)
    head = {"wherrySnapshot": FORMAT, "cluster": ClusterRecord.read(entry.value).to_json(), "revision": page.revision}
    digest, count = hashlib.sha256(), 0
    line = _line(head | {"savedAt": render_timestamp(clock.wall_s()), "version": VERSION})
    digest.update(line)
    yield line
    async for entry in _all_entries(store, page):
        if entry.key.startswith(LEFT_OUT):
            continue
        line = _line({"key": entry.key, "value": entry.value.decode()})
        digest.update(line)
        count += 1
        yield line
    yield _line({"count": count, "sha256": digest.hexdigest()})


async def _all_entries(store: Store, page: Page) -> AsyncIterator[Entry]:
    while True:
        for entry in page.entries:
            yield entry
        if page.next_key is None:
            return
        page = await store.list_prefix(keys.ROOT, at=page.revision, start=page.next_key)


def read(lines: Iterable[bytes], source: str) -> Snapshot:
    """Return the snapshot. Raises InvalidError, naming the line, if it isn't whole and sound."""
    try:
        return _read(list(lines), source)
    except (ValueError, KeyError, TypeError, RecursionError, ValidationError) as error:
        raise InvalidError(f"{source} is not a snapshot", why=f"it can't be read: {error}"[:300]) from error


def _read(lines: Sequence[bytes], source: str) -> Snapshot:
    head = json.loads(lines[0]) if lines else {}
    if not isinstance(head, dict) or "wherrySnapshot" not in head:
        raise InvalidError(f"{source} is not a snapshot", fix="`wherry snapshot save FILE` makes one.")
    if head["wherrySnapshot"] != FORMAT:
        raise InvalidError(
            f"{source} has the format {head['wherrySnapshot']}",
            why=f"this version of Wherry knows {FORMAT}",
            fix="Use the version of Wherry that saved it, or a newer one.",
        )
    tail = json.loads(lines[-1])
    digest = hashlib.sha256(b"".join(lines[:-1])).hexdigest()
    if not isinstance(tail, dict) or tail.get("sha256") != digest or tail.get("count") != len(lines) - 2:
        raise InvalidError(f"{source} is not whole", why="its check sum doesn't fit: it was cut short, or changed")
    entries = tuple(_entry(line, number, source) for number, line in enumerate(lines[1:-1], start=2))
    cluster = ClusterRecord.read(json.dumps(head["cluster"]))
    return Snapshot(cluster, int(head["revision"]), str(head["savedAt"]), str(head["version"]), entries)


def _entry(line: bytes, number: int, source: str) -> tuple[str, bytes]:
    fields = json.loads(line)
    key, value = fields["key"], fields["value"]
    if not key.startswith(keys.ROOT) or key.startswith(LEFT_OUT) or "\0" in key:
        raise InvalidError(f"line {number} of {source} is not part of a snapshot", why=f"its key is {key[:80]}")
    return key, value.encode()


async def restore(store: Store, snapshot: Snapshot, clock: Clock, *, replace: bool) -> ClusterRecord:
    """Make the store hold just what the snapshot does, in a new generation; return the cluster's new record.

    While it is under way, and if it is interrupted, servers refuse to start on the store; doing it again mends that.
    Raises ConflictError if servers live there, if another cluster does, or, unless `replace`, if anything does.
    """
    page = await store.list_prefix(keys.ROOT)
    present = {entry.key: entry async for entry in _all_entries(store, page)}
    _check_free(present, snapshot, replace=replace)
    old = present.get(keys.CLUSTER)
    generation = max(snapshot.cluster.generation, ClusterRecord.read(old.value).generation if old else 0) + 1
    renewed = snapshot.cluster.model_copy(update={"generation": max(generation, int(clock.wall_s()))})
    begun = await store.commit(
        Txn(
            (ModifiedAt(keys.CLUSTER, old.mod_revision if old else ABSENT),),
            (Put(keys.RESTORING, renewed.to_bytes()), Delete(keys.CLUSTER)),
        )
    )
    wanted = dict(snapshot.entries)
    wanted.pop(keys.CLUSTER, None)
    gone = [Delete(key) for key in present if key not in wanted and not _is_apart(key)]
    puts = [Put(key, value) for key, value in wanted.items()]
    for writes in _batches([*gone, *puts]):
        await store.commit(Txn((ModifiedAt(keys.RESTORING, begun),), writes))
    last = (Put(keys.CLUSTER, renewed.to_bytes()), Delete(keys.RESTORING))
    await store.commit(Txn((ModifiedAt(keys.RESTORING, begun), ModifiedAt(keys.CLUSTER, ABSENT)), last))
    return renewed


def _check_free(present: dict[str, Entry], snapshot: Snapshot, *, replace: bool) -> None:
    servers = [key.removeprefix(keys.SERVERS) for key in present if key.startswith(keys.SERVERS)]
    if servers:
        raise ConflictError(
            "the store is in use",
            why=f"these servers run on it, or ended in the last seconds: {', '.join(sorted(servers))}",
            fix="Stop all servers first. Agents and containers may go on.",
        )
    old = present.get(keys.CLUSTER)
    if old and (found := ClusterRecord.read(old.value).id) != snapshot.cluster.id:
        raise ConflictError(
            "the store belongs to another cluster",
            why=f"it is that of cluster {found}, and the snapshot of {snapshot.cluster.id}",
            fix="Restore into an empty store.",
        )
    kept = [key for key in present if not _is_apart(key)]
    if kept and not replace and keys.RESTORING not in present:
        raise ConflictError(
            "the store is not empty",
            why=f"it holds {len(kept)} records, which would be replaced",
            fix="Save them first with `wherry snapshot save`, then give --replace.",
        )


def _is_apart(key: str) -> bool:
    """Say whether the key isn't written like the rest: the cluster's own record stands last."""
    return key == keys.CLUSTER or key.startswith(LEFT_OUT)


def _batches(writes: Sequence[Put | Delete]) -> Iterable[tuple[Put | Delete, ...]]:
    batch: list[Put | Delete] = []
    size = 0
    for write in writes:
        cost = len(write.key) + (len(write.value) if isinstance(write, Put) else 0)
        if batch and (len(batch) == MOST_OPERATIONS or size + cost > MOST_BYTES):
            yield tuple(batch)
            batch, size = [], 0
        batch.append(write)
        size += cost
    if batch:
        yield tuple(batch)


async def begin_generation(store: Store, seen: Revision, *, of: int) -> ClusterRecord | None:
    """Begin a new generation if the store has gone back to before `seen`, a revision of that one; None if it hasn't.

    That is so when it was restored by its own tools. Whoever notices first says so to all, by this record. A store that
    knows nothing of the generation has gone back whatever its revision: those of two generations aren't comparable.
    """
    page = await store.list_prefix(keys.CLUSTER, limit=1)
    if not page.entries:
        return None
    entry = page.entries[0]
    old = ClusterRecord.read(entry.value)
    if (old.generation, page.revision) >= (of, seen):
        return None
    new = old.model_copy(update={"generation": of + 1})
    await store.commit(Txn((ModifiedAt(keys.CLUSTER, entry.mod_revision),), (Put(keys.CLUSTER, new.to_bytes()),)))
    return new


def _line(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=True).encode() + b"\n"
