"""Which two faults may be made at once: never two that together take away what is promised to survive. Pure.

Of three members of etcd one may be away, and of the servers one: two members away are a lost quorum, which is a fault
of its own. So what takes a member, a server or the whole store is never made twice at once. Nodes may be hit two at a
time, but not the same one: what a fault excuses should be seen on a node that has only that fault. While there is no
quorum no agent finds another server, so that then servers stay as they are. Two agents of one name are told apart only
while the first is heard.
"""

from collections.abc import Sequence
from random import Random

from tests.chaos.fault import Kind, Part

PAIR_EVERY = 4  # faults; the first pair comes second, so that short runs have one
AT_ONCE = frozenset(
    {
        frozenset({Part.SERVER, Part.MEMBER}),
        frozenset({Part.SERVER, Part.NODE}),
        frozenset({Part.MEMBER, Part.NODE}),
        frozenset({Part.STORE, Part.NODE}),
        frozenset({Part.NODE}),
        frozenset({Part.MEMBER, Part.IDENTITY}),
    }
)


def may_pair(one: Kind, other: Kind) -> bool:
    return frozenset({one.takes, other.takes}) in AT_ONCE and not (one.node and one.node == other.node)


class Deck:
    """Deals kinds of faults, no kind again before all others had their turn, but for partners where no other fits."""

    def __init__(self, kinds: Sequence[Kind], rng: Random) -> None:
        self._kinds, self._rng = tuple(kinds), rng
        self._left: list[Kind] = []

    def deal(self, number: int) -> tuple[Kind, ...]:
        """Return what is to be made at once: a pair each fourth time, where something goes with the first of it."""
        self._left = self._left or self._rng.sample(self._kinds, len(self._kinds))
        first = self._left.pop()
        if number % PAIR_EVERY != 2:
            return (first,)
        second = self._partner(first)
        if second is None:
            return (first,)
        return (second, first) if second.node else (first, second)  # the other one can still go elsewhere

    def _partner(self, first: Kind) -> Kind | None:
        for kind in reversed(self._left):
            if may_pair(first, kind):
                self._left.remove(kind)
                return kind
        again = [kind for kind in self._kinds if may_pair(first, kind)]
        return self._rng.choice(again) if again else None
