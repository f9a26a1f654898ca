"""A few histories, told each time the tests run: all promises are kept in them, and each can be told again exactly."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.invariants.steps import Breach
from tests.simulation.faults import KINDS, Fault
from tests.simulation.history import Plan, Verdict, run
from tests.simulation.mutants import MUTANTS
from tests.simulation.mutation import first_breach
from tests.simulation.shrinking import shrunk

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("seed", range(5))
def test_all_promises_are_kept(seed: int) -> None:
    verdict = run(Plan.drawn(seed))
    assert [str(breach) for breach in verdict.breaches] == []
    assert verdict.converged_s is not None


@pytest.mark.parametrize("part", range(4))
def test_each_kind_of_fault_is_survived(part: int) -> None:
    """Each is over before the next begins, so that none hides another."""
    faults = tuple(
        Fault(4.0 + 4.0 * number, kind, "leader" if KINDS[kind][0] == "server" else "n2", 3.0, number + part, "both")
        for number, kind in enumerate(sorted(KINDS)[part::4])
    )
    verdict = run(Plan(7, faults, ()))
    assert [str(breach) for breach in verdict.breaches] == []


def test_a_history_is_the_same_each_time() -> None:
    first, second = run(Plan.drawn(11)), run(Plan.drawn(11))
    assert (first.digest, first.steps, first.revisions) == (second.digest, second.steps, second.revisions)
    assert run(Plan.drawn(12)).digest != first.digest


def trace_of(seed: int, **environment: str) -> str:
    command = [sys.executable, "-W", "ignore", "-m", "tests.simulation", "--seed", str(seed)]
    told = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=100, check=True
    )
    found = re.search(r"trace ([0-9a-f]{16})", told.stdout)
    assert found
    return found[1]


def test_a_history_is_the_same_in_another_process() -> None:
    assert trace_of(13, PYTHONHASHSEED="1") == trace_of(13, PYTHONHASHSEED="2")


def test_a_failing_history_is_told_again_with_as_little_as_makes_it_fail() -> None:
    plan = Plan.drawn(3)
    guilty = {plan.faults[2], plan.faults[7]}

    def tell(smaller: Plan) -> Verdict:
        fails = guilty <= set(smaller.faults)
        return Verdict(3, (Breach("S1", "both"),) if fails else (), 0, "", 0, 0, None, 0.0, ())

    smallest, verdict = shrunk(plan, tell(plan), tell)
    assert (set(smallest.faults), smallest.actions) == (guilty, ())
    assert not verdict.is_good


@pytest.mark.parametrize("name", ["no-fence", "slot-twice", "silence-orders"])
def test_a_planted_defect_is_found(name: str) -> None:
    mutant = next(mutant for mutant in MUTANTS if mutant.name == name)
    assert any(first_breach(mutant, seed) for seed in range(4))
