"""`wherry snapshot`: saves the state of a cluster to a file, shows what a file holds, restores it into a store."""

import os
from argparse import ArgumentParser, Namespace
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from manifests.errors import NotFoundError, UsageError, WherryError
from wherry.cli.arguments import add_connection, transport_of
from wherry.cli.text import say

if TYPE_CHECKING:
    from control_plane.snapshots import Snapshot

SILENCE_S = 30.0
NOTES = """  wherry snapshot save monday.snapshot
  wherry snapshot show monday.snapshot
  wherry snapshot restore monday.snapshot --store sqlite:/var/lib/wherry/server/store.db --replace

Restoring is done on the store itself, with all servers stopped; agents and containers go on meanwhile. What runs by
then and the snapshot knows nothing of is kept: nothing is stopped by a restore.
A snapshot holds environment values and configs: keep it as safe as the store."""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("action", choices=("save", "show", "restore"), metavar="save|show|restore")
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--store", metavar="URL", help="where to restore to: sqlite:PATH or etcd:URL,URL")
    parser.add_argument("--replace", action="store_true", help="restore also if the store holds something: it is lost")
    add_connection(parser)


def run(arguments: Namespace) -> int:
    match arguments.action:
        case "save":
            return _save(arguments)
        case "show":
            return _show(arguments.file)
        case _:
            return _restore(arguments)


def _save(arguments: Namespace) -> int:
    """Write beside the file first: what stands there already is replaced only by a whole snapshot."""
    transport, path = transport_of(arguments), arguments.file
    draft = path.with_name(f"{path.name}.part")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            with transport.open_stream("/v1/snapshot", silence_s=SILENCE_S) as response:
                while chunk := transport.read_chunk(response):
                    file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        snapshot = read_snapshot(draft)
        draft.replace(path)
    except OSError as error:
        raise WherryError(f"cannot write {path}", why=error.strerror or str(error)) from error
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
    say(f"Saved {len(snapshot.entries)} records as of revision {snapshot.revision} to {path}.")
    return 0


def _show(path: Path) -> int:
    snapshot = read_snapshot(path)
    print(f"cluster:    {snapshot.cluster.id}")
    print(f"generation: {snapshot.cluster.generation}")
    print(f"revision:   {snapshot.revision}")
    print(f"saved:      {snapshot.saved_at} by Wherry {snapshot.version}")
    for what, count in sorted(Counter(_table_of(key) for key, _ in snapshot.entries).items()):
        print(f"  {count:6} {what}")
    return 0


def _table_of(key: str) -> str:
    """Return `desired/workloads` of a key below it."""
    return "/".join(key.split("/")[2:4])


def _restore(arguments: Namespace) -> int:
    import asyncio
    import random

    from control_plane.snapshots import restore
    from control_plane.store.open import open_store
    from foundation.clock import SystemClock

    if arguments.store is None:
        raise UsageError("where to?", fix="Give the servers' --store, e.g. sqlite:/var/lib/wherry/server/store.db.")
    snapshot = read_snapshot(arguments.file)

    async def restored() -> int:
        clock = SystemClock()
        store = await open_store(arguments.store, clock=clock, rng=random.SystemRandom())
        try:
            return (await restore(store, snapshot, clock, replace=arguments.replace)).generation
        finally:
            await store.close()

    generation = asyncio.run(restored())
    say(f"Restored {len(snapshot.entries)} records, saved at {snapshot.saved_at}, as generation {generation}.")
    say("Start the servers again. What runs and the snapshot knows nothing of is kept; `wherry get nodes` tells of it.")
    return 0


def read_snapshot(path: Path) -> "Snapshot":
    """Return what a file holds. Raises NotFoundError or InvalidError if that can't be told."""
    from control_plane.snapshots import read

    try:
        with path.open("rb") as file:
            return read(file, str(path))
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no file {path}") from error
    except OSError as error:
        raise WherryError(f"cannot read {path}", why=error.strerror or str(error)) from error
