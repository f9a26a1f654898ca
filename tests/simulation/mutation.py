"""The mutation run: plants each defect, tells histories until one fails, and says which invariant found it."""

import json as json_codec
import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.simulation.history import Plan, run
from tests.simulation.mutant import Mutant
from tests.simulation.mutants import MUTANTS, SHORT

MOST_SEEDS = 100


@dataclass(frozen=True, slots=True)
class Finding:
    """Where a defect was found: `seed` is None if it was not."""

    mutant: str
    what: str
    rule: str
    seed: int | None
    breach: str
    seconds: float


def run_mutants(only: Sequence[str] | None, *, is_short: bool, jobs: int, json: Path | None) -> int:
    chosen = [m.name for m in MUTANTS if (m.name in only if only else not is_short or m.name in SHORT)]
    with multiprocessing.get_context("spawn").Pool(max(1, jobs)) as pool:
        findings = []
        for finding in pool.imap_unordered(_find, chosen, chunksize=1):
            print(_line(finding), flush=True)
            findings.append(finding)
    survivors = [finding.mutant for finding in findings if finding.seed is None]
    print(f"{len(findings) - len(survivors)} of {len(findings)} planted defects were found")
    if json:
        json.parent.mkdir(parents=True, exist_ok=True)
        json.write_text(json_codec.dumps([asdict(finding) for finding in findings], indent=2) + "\n")
    return 1 if survivors or not findings else 0


def _find(name: str) -> Finding:
    mutant = next(m for m in MUTANTS if m.name == name)
    began_s = time.process_time()
    for seed in range(MOST_SEEDS):
        breach = first_breach(mutant, seed)
        if breach is not None:
            return Finding(name, mutant.what, breach[0], seed, breach[1], round(time.process_time() - began_s, 1))
    return Finding(name, mutant.what, "", None, "", round(time.process_time() - began_s, 1))


def first_breach(mutant: Mutant, seed: int) -> tuple[str, str] | None:
    """Return the invariant that fails in that history while the defect is there, and how; None if none does."""
    with mutant.planted():
        verdict = run(Plan.drawn(seed, only=mutant.only))
    found = next((breach for breach in verdict.breaches if breach.rule != "bug"), None)  # a mutant's own fault is none
    return (found.rule, found.what) if found else None


def _line(finding: Finding) -> str:
    end = f"{finding.rule:4} at seed {finding.seed}" if finding.seed is not None else "NOT FOUND"
    return f"{finding.mutant:22} {end:18} {finding.seconds:6.1f} s  {finding.what}: {finding.breach[:150]}"
