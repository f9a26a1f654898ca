"""Makes a failing history smaller: tells it again with fewer faults and actions while it still fails the same way."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from tests.simulation.history import Plan, Verdict

T = TypeVar("T")
Fails = Callable[[Plan], Verdict]


def shrunk(plan: Plan, verdict: Verdict, tell: Fails, *, most_tries: int = 200) -> tuple[Plan, Verdict]:
    """Return a plan none of whose faults and actions can be left out, as far as the tries go, and what comes of it."""
    tries = [most_tries]
    rules = {breach.rule for breach in verdict.breaches}

    def still_fails(smaller: Plan) -> bool:
        nonlocal plan, verdict
        if tries[0] <= 0:
            return False
        tries[0] -= 1
        found = tell(smaller)
        if rules.isdisjoint(breach.rule for breach in found.breaches):
            return False
        plan, verdict = smaller, found
        return True

    before = None
    while before != plan:
        before = plan
        _reduce(plan.faults, lambda kept: still_fails(replace(plan, faults=kept)))
        _reduce(plan.actions, lambda kept: still_fails(replace(plan, actions=kept)))
    return plan, verdict


def _reduce(items: Sequence[T], still_fails: Callable[[tuple[T, ...]], bool]) -> None:
    """Leave out halves, then quarters, and so on down to single items."""
    kept = tuple(items)
    size = max(1, len(kept) // 2)
    while kept:
        at = 0
        while at < len(kept):
            without = kept[:at] + kept[at + size :]
            if still_fails(without):
                kept = without
            else:
                at += size
        if size == 1:
            return
        size //= 2
