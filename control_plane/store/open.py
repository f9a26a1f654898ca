"""Opens the store that a URL names, and imports only what that one needs."""

import os
import random
from collections.abc import Sequence
from pathlib import Path

from control_plane.store.access import Credentials, Tls
from control_plane.store.protocol import Store
from control_plane.store.sqlite import SqliteStore
from foundation.clock import Clock
from manifests.errors import UsageError


async def open_store(
    url: str, *, clock: Clock, rng: random.Random, tls: Tls | None = None, credentials: Credentials | None = None
) -> Store:
    """Return the opened store: `sqlite:PATH`, or `etcd:ENDPOINT[,ENDPOINT…]` with endpoints like `http://10.0.0.1:2379`.

    Raises UsageError if the URL is neither, and what the store raises that can't be opened.
    """
    kind, _, rest = url.partition(":")
    if kind == "sqlite" and rest:
        return await SqliteStore.open(Path(rest), clock=clock)
    if kind == "etcd" and rest:
        return await _open_etcd(rest.split(","), clock=clock, rng=rng, tls=tls, credentials=credentials)
    raise UsageError(
        f"'{url}' names no store", fix="Write sqlite:/var/lib/wherry/store.db or etcd:http://10.0.0.1:2379,http://…"
    )


async def _open_etcd(
    endpoints: Sequence[str], *, clock: Clock, rng: random.Random, tls: Tls | None, credentials: Credentials | None
) -> Store:
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its core writes to standard error, past our logs
    try:
        from control_plane.store.etcd import EtcdStore  # loads grpc, 14 MiB and 65 ms, which SQLite doesn't need
    except ImportError as error:
        raise UsageError(
            "this installation can't speak to etcd", why=str(error), fix="Run `pip install 'wherry[etcd]'`."
        ) from error
    return await EtcdStore.open(endpoints, clock=clock, rng=rng, tls=tls, credentials=credentials)
