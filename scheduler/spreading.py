"""The allocations of one workload, counted by the values of what it is spread over."""

import numpy as np
from numpy.typing import NDArray

from manifests.reasons import Code
from scheduler.columns import Codes, Flags
from scheduler.hashing import key_of
from scheduler.ledger import Ledger
from scheduler.model import Ask, Spread
from scheduler.nodes import Rows
from scheduler.score import crowding
from scheduler.units import MILLIONTHS, SPREAD_STEP, SPREAD_WEIGHT

LEAST_SHARE = 0.01  # of an even share: what nothing is wanted at is still told apart by how much is there


def counts_of(ask: Ask, ledger: Ledger, open_rows: Rows, rows: Rows) -> list["SpreadCounts"]:
    """Return the counts of each spread of the ask. `rows` fit now; `open_rows` would if other things ran there."""
    weights = [SPREAD_WEIGHT * SPREAD_STEP**i for i in reversed(range(len(ask.spread)))]
    pairs = zip(ask.spread, weights, strict=True)
    return [SpreadCounts(spread, weight, ask, ledger, open_rows, rows) for spread, weight in pairs]


class SpreadCounts:
    """One spread of an ask. Values are the codes of the attribute's column.

    How crowded a value is counts among those that have a node that fits; how uneven it may become, among those that
    have any node which its lasting rules allow: so a full zone holds the others back.
    """

    def __init__(self, spread: Spread, weight: float, ask: Ask, ledger: Ledger, open_rows: Rows, rows: Rows) -> None:
        self.spread = spread
        self.candidates = ledger.nodes.column(spread.over).codes[rows]
        self._column = ledger.nodes.column(spread.over)
        self.codes = self._column.codes
        self.weight = weight
        size = len(self._column.values)
        self._running, self._same = [0] * size, [0] * size
        key = key_of(ask.workload)
        codes = self.codes
        for row, count in ledger.holdings.running(key).items():
            self._running[codes[row]] += count
        for row, count in ledger.holdings.of_version(key, ask.version).items():
            self._same[codes[row]] += count
        self._open = _distinct(codes[open_rows])
        self._rivals = _distinct(self.candidates)
        self._shares = _relative_shares(spread, self._column.values, self._open)
        self._parts = [self._part(code) for code in range(size)]
        self._look_for_lowest()
        self._look_for_least()

    def part(self, code: int) -> int:
        """Return the part of a score, in millionths, up to a constant that is the same for all values."""
        return self._parts[code]

    def parts(self) -> NDArray[np.float64]:
        """Return the part of each of the rows that fit, in their order."""
        parts: NDArray[np.float64] = np.array(self._parts, np.float64)[self.candidates]
        return parts

    def least(self) -> int:
        """Return the part of the emptiest value, which counts as zero."""
        return self._least

    def add(self, code: int) -> bool:
        """Count one more there, and return whether values may be open now that were closed before."""
        lowest = self._lowest
        self._running[code] += 1
        self._same[code] += 1
        before, self._parts[code] = self._parts[code], self._part(code)
        if before == self._least:
            self._at_least -= 1
            if self._at_least == 0:
                self._look_for_least()
        if self.spread.max_skew is not None and self._running[code] == lowest + 1:
            self._at_lowest -= 1
            if self._at_lowest <= 0:
                self._look_for_lowest()
        return self._lowest > lowest

    def is_closed(self, code: int) -> bool:
        """Say whether one more there would be more uneven than is allowed."""
        most = self.spread.max_skew
        return most is not None and self.skew_with_one_more(code) > most

    def skew_with_one_more(self, code: int) -> int:
        """Return by how many one more there would make that value fuller than the emptiest one."""
        return self._running[code] + 1 - self._lowest

    def closed(self) -> Flags:
        return np.array([self.is_closed(code) for code in range(len(self._running))] or [False], np.bool_)

    def place(self, code: int) -> tuple[str, int]:
        """Return the value in words, and how many run there."""
        value = self._column.values[code]
        return "not set" if value is None else value, self._running[code]

    def reason(self, row: int) -> tuple[Code, str, str]:
        code = int(self._column.codes[row])
        value = self._column.values[code]
        there = f"{self.spread.over} {'not set' if value is None else value} has {self._running[code]}"
        return Code.SKEW, str(self.spread.max_skew), f"{there}, another has {self._lowest}"

    def _part(self, code: int) -> int:
        """Return minus how crowded the value is, measured by its share."""
        crowded = crowding(self._running[code], self._same[code]) + 1
        return -round(self.weight * MILLIONTHS * crowded / self._shares[code])

    def _look_for_least(self) -> None:
        """Find it anew; as parts only fall, that is needed only once the last value that had it has fallen."""
        parts = [self._parts[code] for code in self._rivals]
        self._least = max(parts, default=0)
        self._at_least = parts.count(self._least)

    def _look_for_lowest(self) -> None:
        counts = [self._running[code] for code in self._open]
        self._lowest = min(counts, default=0)
        self._at_lowest = counts.count(self._lowest)


def _distinct(codes: Codes) -> list[int]:
    """Return the codes that occur. (`np.unique` sorts them all.)"""
    found: list[int] = np.flatnonzero(np.bincount(codes)).tolist() if len(codes) else []
    return found


def _relative_shares(spread: Spread, values: list[str | None], open_codes: list[int]) -> list[float]:
    """Return for each value its share of all, as a multiple of an even share. Values not named share what is left.

    Only values count that an open node has: a column remembers those of nodes that are gone.
    """
    if not spread.shares:
        return [1.0] * len(values)
    named = dict(spread.shares)
    others = sum(values[code] not in named for code in open_codes)
    rest = max(1.0 - sum(named.values()), 0.0) / others if others else 0.0
    return [max(named.get(value or "", rest) * len(open_codes), LEAST_SHARE) for value in values]
