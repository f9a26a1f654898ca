"""Hashes that are the same on every machine and in every process, unlike `hash`."""

from hashlib import blake2b
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from manifests.workloads import WorkloadRef

Hashes: TypeAlias = NDArray[np.uint64]
WorkloadKey: TypeAlias = tuple[str, str, str, str]


def hash_of(*values: object) -> int:
    """Return 64 bits."""
    text = "/".join(str(v) for v in values)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def mixed(hashes: Hashes, seed: int) -> Hashes:
    """Return other 64 bits for each hash, which depend on the seed as well. The finisher of splitmix64, Steele 2014."""
    z = hashes + np.uint64(hash_of(seed))
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def key_of(ref: WorkloadRef) -> WorkloadKey:
    """Return a key that hashes fast: the model's own hash costs more than all else that is done per allocation."""
    return ref.uid, ref.namespace, ref.kind, ref.name
