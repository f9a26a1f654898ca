"""Which life of the store is obeyed, and what runs here from before it that it knows nothing of.

Restoring a snapshot begins a new generation of the store, whose revisions start anew. Its first full assignments may
lack what was started since the snapshot was made. That is no order to stop it: it is kept, and told, until the leader
takes it over or an operator releases it. What those assignments would start anew waits for a while, since its slot may
just go to what is kept.
"""

from collections.abc import Iterable

SETTLE_S = 10.0  # in which the leader hears what is kept, and gives it its slots back


class Generations:
    def __init__(self, generation: int = 0, kept: Iterable[str] = (), *, is_fresh: bool = False) -> None:
        self.present = generation
        self.kept = set(kept)  # ids of allocations
        self.is_fresh = is_fresh  # the next full assignments are the first of a new generation

    def begin(self, generation: int) -> bool:
        """Enter the generation of a session's server; True if it is a new one. (0: the server is too old to tell.)"""
        is_new = generation > self.present > 0
        self.is_fresh = self.is_fresh or is_new
        self.present = max(self.present, generation)
        return is_new

    def recall(self, generation: int) -> None:
        """Take it from containers, where what was written down is lost or late, which generation was obeyed."""
        self.present = max(self.present, generation)

    def keep(self, allocations: Iterable[str]) -> None:
        self.kept.update(allocations)

    def let_go(self, allocations: Iterable[str]) -> set[str]:
        """Keep these no longer: they are desired now, or withdrawn in so many words. Return which of them were kept."""
        gone = self.kept & set(allocations)
        self.kept -= gone
        return gone
