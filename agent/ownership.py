"""Which containers are this node's allocations: labels, sealed with a key that only this node has.

An image's own LABELs become labels of its containers, so labels alone prove nothing. The seal is an HMAC over the
identity; without it the agent neither adopts nor kills. If the key is lost, what runs is left alone and reported.
"""

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from manifests.errors import InvalidError
from manifests.workloads import MAIN

CLUSTER = "wherry.cluster"
NODE = "wherry.node"
ALLOCATION = "wherry.allocation"
VERSION = "wherry.version"
ATTEMPT = "wherry.attempt"
CONTAINER = "wherry.container"
SEAL = "wherry.seal"
ORDER = "wherry.order"  # the store's generation and revision at which it was ordered: not sealed, it proves nothing
KEY_FILE = "seal.key"
_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose container it is, and which of a group. `attempt` counts this one's starts on this node, from 1."""

    cluster: str
    node: str
    allocation: str
    version: int
    attempt: int
    container: str = MAIN


def order_label(generation: int, revision: int) -> dict[str, str]:
    """Return the label that tells by which state of the store a container was ordered."""
    return {ORDER: f"{generation}.{revision}"}


def order_of(labels: Mapping[str, str]) -> tuple[int, int]:
    """Return the generation and revision by which it was ordered; zeros if that isn't known.

    >>> order_of(order_label(2, 417)), order_of({})
    ((2, 417), (0, 0))
    """
    generation, _, revision = labels.get(ORDER, "").partition(".")
    known = generation.isdecimal() and revision.isdecimal()
    return (int(generation), int(revision)) if known else (0, 0)


class Ownership:
    """Writes and checks the labels, with the node's key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def load(cls, data_dir: Path) -> "Ownership":
        """Read the node's key, made when missing. Raises InvalidError if it is damaged or others may read it."""
        path = data_dir / KEY_FILE
        if not path.exists():
            _make_key(path)
        mode, key = path.stat().st_mode & 0o777, path.read_bytes()
        if mode & 0o077:
            raise InvalidError(
                f"cannot trust the seal key {path}",
                why=f"others may use it (mode {mode:04o}), and so could forge the agent's labels",
                fix=f"Run `chmod 600 {path}`; if someone may have read it, remove the file and this node's containers.",
            )
        if len(key) != _KEY_BYTES:
            raise InvalidError(
                f"cannot use the seal key {path}",
                why=f"it has {len(key)} bytes and not {_KEY_BYTES}",
                fix="Restore it. If you remove it instead, the agent no longer knows the containers that run here.",
            )
        return cls(key)

    def labels(self, identity: Identity) -> dict[str, str]:
        """Return the labels of a container of that allocation. They must override those of the image."""
        return {**_plain(identity), CONTAINER: identity.container, SEAL: self._seal(identity)}

    def owned(self, labels: Mapping[str, str]) -> Identity | None:
        """Return whose container has these labels, None unless this node has sealed them."""
        try:
            identity = Identity(
                labels[CLUSTER],
                labels[NODE],
                labels[ALLOCATION],
                int(labels[VERSION]),
                int(labels[ATTEMPT]),
                labels.get(CONTAINER, MAIN),
            )
            seal = labels[SEAL]
        except (KeyError, ValueError):
            return None
        # A number has many spellings and only one of them is sealed.
        canonical = all(labels[name] == value for name, value in _plain(identity).items())
        right = hmac.compare_digest(seal.encode(errors="replace"), self._seal(identity).encode())
        return identity if canonical and right else None

    def _seal(self, identity: Identity) -> str:
        # JSON keeps the fields apart: joined plainly, ("ab", "c") and ("a", "bc") would have one seal.
        text = json.dumps(sorted(_plain(identity).items()))
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()


def _plain(identity: Identity) -> dict[str, str]:
    """Return what is sealed. A container that is alone is sealed as it was when all were: it outlives an upgrade."""
    named = {} if identity.container == MAIN else {CONTAINER: identity.container}
    return {
        **named,
        CLUSTER: identity.cluster,
        NODE: identity.node,
        ALLOCATION: identity.allocation,
        VERSION: str(identity.version),
        ATTEMPT: str(identity.attempt),
    }


def _make_key(path: Path) -> None:
    """Create the key whole or not at all; if another process was first, its key stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            return
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        draft.unlink()
