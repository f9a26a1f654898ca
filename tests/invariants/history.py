"""Checks the whole history of a store: it is read once, from revision 1, or told step by step as it is made."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from control_plane import keys
from control_plane.controllers.bursts import MOST_PER_PASS
from control_plane.store.protocol import Change, Put, Revision, Store, Txn
from tests.invariants.contents import contents_stay_home
from tests.invariants.deadlines import no_rollout_fails_early
from tests.invariants.evictions import only_lower_priorities_go
from tests.invariants.reasons import all_is_placed, reasons_are_true
from tests.invariants.records import Records
from tests.invariants.rules import RULES, Rule
from tests.invariants.serving import canaries_wait, enough_serve, frozen
from tests.invariants.steps import Breach, Step

ALL_RULES: tuple[Rule, ...] = (
    *RULES,
    enough_serve,
    frozen,
    canaries_wait,
    only_lower_priorities_go,
    reasons_are_true,
    all_is_placed,
    contents_stay_home,
    no_rollout_fails_early,
)

READ_S = 20.0
MARK = "/lab/mark"


class HistoryChecker:
    """Takes the steps in, one by one. S16: revisions strictly rise."""

    def __init__(self, rules: Sequence[Rule] = ALL_RULES, *, portion: int = MOST_PER_PASS) -> None:
        self.records = Records(portion)
        self._rules = rules

    def take(self, step: Step) -> Iterator[Breach]:
        """Yield what this step breaks."""
        if step.revision <= self.records.revision:
            yield Breach("S16", f"revision {step.revision} came after {self.records.revision}")
        written = self.records.apply(step)
        if written:
            for rule in self._rules:
                yield from rule(step, written, self.records)


async def history(store: Store) -> list[Change]:
    """Return every change of Wherry's keys since the store is there; it must not have been compacted."""
    changes: list[Change] = []
    async with asyncio.timeout(READ_S):
        end = await store.commit(Txn((), (Put(MARK, b""),)))  # a watch says nothing of a revision without changes
        async for item in store.watch("/", after=Revision(1)):
            changes += (change for change in item.changes if change.key.startswith(keys.ROOT))
            if item.revision >= end:
                break
    return changes


def breaches(changes: Iterable[Change]) -> tuple[str, ...]:
    """Return a sentence for each breach at each revision; the changes begin with the store's first and are in order."""
    checker = HistoryChecker()
    found: list[str] = []
    for revision, group in groupby(changes, key=lambda change: change.revision):
        found += [f"at revision {revision}: {breach}" for breach in checker.take(Step(revision, tuple(group)))]
    return tuple(found)
