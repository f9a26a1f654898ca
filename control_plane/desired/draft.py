"""One transaction in the making: each key is read once, from the store, compared as it was read, and written once."""

from control_plane.store.protocol import ABSENT, MOST_BYTES, MOST_OPERATIONS, Delete, Entry, ModifiedAt, Put, Store
from manifests.errors import InvalidError


class Draft:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._read: dict[str, Entry | None] = {}
        self._compares: dict[str, ModifiedAt] = {}
        self._writes: dict[str, Put | Delete] = {}
        self.reasons: list[str] = []  # what makes it large, in words

    async def read(self, key: str) -> Entry | None:
        if key not in self._read:
            self._read[key] = await self._store.get(key)
        return self._read[key]

    async def hold(self, key: str) -> Entry | None:
        """Read a key on which the draft rests: it is void if that changes meanwhile."""
        entry = await self.read(key)
        self._compares[key] = ModifiedAt(key, entry.mod_revision if entry else ABSENT)
        return entry

    async def put(self, key: str, value: bytes) -> None:
        await self.hold(key)
        self._writes[key] = Put(key, value)

    def create(self, key: str, value: bytes) -> None:
        """Write a key that must not be there yet."""
        self._compares[key] = ModifiedAt(key, ABSENT)
        self._writes[key] = Put(key, value)

    async def touch(self, key: str) -> None:
        """Write a key as it is, so that whoever decides about it meanwhile must look again."""
        entry = await self.hold(key)
        if entry is not None:
            self._writes.setdefault(key, Put(key, entry.value))

    async def delete(self, key: str) -> None:
        await self.hold(key)
        self._writes[key] = Delete(key)

    @property
    def compares(self) -> tuple[ModifiedAt, ...]:
        return tuple(self._compares.values())

    @property
    def writes(self) -> tuple[Put | Delete, ...]:
        return tuple(self._writes.values())

    def check_size(self) -> None:
        """Raise InvalidError if it can't be one transaction."""
        count = max(len(self._compares), len(self._writes))
        size = sum(len(w.key) + (len(w.value) if isinstance(w, Put) else 0) for w in self._writes.values())
        if count <= MOST_OPERATIONS and size <= MOST_BYTES:
            return
        why = (
            f"it would take {count} records of {size} bytes, and at most {MOST_OPERATIONS} of {MOST_BYTES} are possible"
        )
        raise InvalidError(
            "that is too much for one call, which is stored all at once or not at all",
            why="; ".join([why, *self.reasons]),
            fix="Apply in several calls, or have fewer workloads use one config.",
        )
