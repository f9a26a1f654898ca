"""The emptiest value of a spread is kept up to date while replicas are placed: always what a look would find."""

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from scheduler.ledger import Ledger
from scheduler.model import Ask, Snapshot
from scheduler.score import Spread
from tests.strategies import asks, snapshots


@given(snapshots(), asks(), st.lists(st.integers(0, 100), max_size=60))
def test_the_part_of_the_emptiest_value_is_the_best_of_all_parts(
    snapshot: Snapshot, ask: Ask, picks: Sequence[int]
) -> None:
    ledger = Ledger(snapshot, seed=0)
    ask = replace(ask, spread=("node.labels.zone",))
    spread = Spread(ask, ledger.siblings(ask), ledger.nodes, ledger.nodes)
    values = [spread.values(name) for name in ledger.nodes]
    for pick in picks if values else ():
        spread.add(values[pick % len(values)])
        assert spread.least() == [max(spread.part(value) for value in values)]
