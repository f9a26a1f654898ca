"""What a server makes sure of when it starts: that the cluster has an identity, and this host its tokens.

Each server keeps an admin token and a join token in files of its data folder, and their hashes in the store. Who can
read those files may use this host's command line or start agents; nobody can get a token back out of the store.
"""

import hashlib
import json
import os
import random
import secrets
from pathlib import Path

from control_plane import keys
from control_plane.records import ClusterRecord, Role, TokenRecord
from control_plane.store.protocol import ABSENT, ModifiedAt, Put, Store, Txn
from foundation.clock import Clock
from foundation.logs import Log
from manifests.errors import ConflictError, InvalidError

log = Log(__name__)

LEAST_TOKEN_LENGTH = 20
_PREFIX = {Role.ADMIN: "wat1.", Role.NODE: "wjt1."}


async def ensure_cluster(store: Store, clock: Clock, rng: random.Random) -> ClusterRecord:
    """Return the cluster's identity, made now if this is its first server.

    Raises ConflictError while a snapshot is being restored into the store, or if that was interrupted.
    """
    if await store.get(keys.RESTORING) is not None:
        raise ConflictError(
            "this store can't be used yet",
            why="a snapshot is being restored into it, or that was interrupted",
            fix="Wait until `wherry snapshot restore` is done, or run it again.",
        )
    record = ClusterRecord(id=f"{rng.getrandbits(48):012x}", created_s=clock.wall_s())
    try:
        absent = (ModifiedAt(keys.CLUSTER, ABSENT), ModifiedAt(keys.RESTORING, ABSENT))
        await store.commit(Txn(absent, (Put(keys.CLUSTER, record.to_bytes()),)))
        return record
    except ConflictError:
        entry = await store.get(keys.CLUSTER)
        if entry is None:
            raise
        return ClusterRecord.read(entry.value)


def ensure_token_file(path: Path, role: Role) -> str:
    """Return the token in the file, which is made, for its owner's eyes only, if it isn't there."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        token = path.read_text().strip()
        if len(token) < LEAST_TOKEN_LENGTH:
            raise InvalidError(
                f"the token in {path} can't be used",
                why=f"it has {len(token)} characters, and at least {LEAST_TOKEN_LENGTH} are needed",
                fix="Remove the file, and a good token is made in its place.",
            ) from None
        return token
    token = _PREFIX[role] + secrets.token_urlsafe(32)
    with os.fdopen(descriptor, "w") as file:
        file.write(token + "\n")
    return token


def hash_of(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


async def register_token(store: Store, token: str, role: Role, clock: Clock, *, name: str = "") -> None:
    """Make the token valid in the whole cluster; nothing is written if it is already."""
    sha256 = hash_of(token)
    key = f"{keys.TOKENS}{sha256[:16]}"
    if await store.get(key) is None:
        record = TokenRecord(sha256=sha256, role=role, name=name, created_s=clock.wall_s())
        await store.commit(Txn((), (Put(key, record.to_bytes()),)))


def write_client_file(path: Path, *, url: str, token: str, ca_file: str | None) -> None:
    """Write what the command line on this machine needs to find the server and be let in, if it isn't there already.

    A full disk is no reason not to serve: it is told, and whoever has a token comes in as ever.
    """
    text = json.dumps({"servers": [url], "token": token, "caFile": ca_file}, indent=2) + "\n"
    temporary = path.with_suffix(".new")
    try:
        if path.exists() and path.read_text() == text:
            return
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        temporary.replace(path)
    except OSError as error:
        log.warning("the file for this host's command line could not be written", path=path, why=str(error))
