"""Many histories, on several processes, and how what came of them is told."""

import json
import multiprocessing
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.simulation.history import Plan, Verdict, run
from tests.simulation.shrinking import shrunk


@dataclass(frozen=True, slots=True)
class Campaign:
    """What came of all seeds."""

    verdicts: tuple[Verdict, ...]
    wall_s: float

    @property
    def failed(self) -> tuple[Verdict, ...]:
        return tuple(verdict for verdict in self.verdicts if not verdict.is_good)

    def figures(self) -> dict[str, object]:
        converged = sorted(v.converged_s for v in self.verdicts if v.converged_s is not None)
        cpu_s = sum(verdict.cpu_s for verdict in self.verdicts)
        return {
            "histories": len(self.verdicts),
            "failed": [verdict.seed for verdict in self.failed],
            "faults": sum(verdict.faults for verdict in self.verdicts),
            "steps": sum(verdict.steps for verdict in self.verdicts),
            "revisions": sum(verdict.revisions for verdict in self.verdicts),
            "cpuSeconds": round(cpu_s, 1),
            "cpuSecondsPerHistory": round(cpu_s / max(1, len(self.verdicts)), 3),
            "wallSeconds": round(self.wall_s, 1),
            "convergedSeconds": {
                "median": round(converged[len(converged) // 2], 1) if converged else None,
                "most": round(converged[-1], 1) if converged else None,
            },
        }


def run_seeds(seeds: Sequence[int], *, jobs: int) -> Campaign:
    """Tell all the histories, and print the ones that fail as they come."""
    began_s = time.monotonic()
    with _workers(jobs) as workers:
        told = workers.imap(_run_seed, seeds) if workers else map(_run_seed, seeds)
        verdicts = tuple(_watched(told, len(seeds)))
    return Campaign(verdicts, time.monotonic() - began_s)


def _run_seed(seed: int) -> Verdict:
    return run(Plan.drawn(seed))


def _watched(told: Iterable[Verdict], count: int) -> Iterator[Verdict]:
    for number, verdict in enumerate(told, start=1):
        if not verdict.is_good:
            print(f"seed {verdict.seed} failed: {verdict.breaches[0]}", flush=True)
        elif number % 100 == 0:
            print(f"{number} of {count} histories told", flush=True)
        yield verdict


@contextmanager
def _workers(jobs: int) -> "Iterator[multiprocessing.pool.Pool | None]":
    """Give processes that are begun anew, so that each is the same whatever its parent has done."""
    if jobs <= 1:
        yield None
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield pool


def tell_seed(seed: int, *, is_verbose: bool) -> Verdict:
    """Tell one history with all about it; if it fails, find the smallest that fails so."""
    plan = Plan.drawn(seed)
    print("\n".join(plan.lines()))
    verdict = run(plan, is_verbose=is_verbose)
    print(summary(verdict))
    if not verdict.is_good:
        explain(plan, verdict)
    return verdict


def explain(plan: Plan, verdict: Verdict) -> None:
    smallest, found = shrunk(plan, verdict, run)
    print(f"\nleft of {len(plan.faults)} faults and {len(plan.actions)} actions, and enough to make it fail:")
    print("\n".join([*smallest.lines()][1:]) or "  none")
    print("\n".join(f"  {breach}" for breach in found.breaches))
    print("\nthe last events of that:")
    print("\n".join(f"  {line}" for line in found.last))
    print(f"\nreplay: script/simulate --seed {plan.seed}")


def summary(verdict: Verdict) -> str:
    end = "good" if verdict.is_good else "\n".join(["FAILED", *(f"  {breach}" for breach in verdict.breaches)])
    calm = "never" if verdict.converged_s is None else f"{verdict.converged_s:.1f} s after the last fault"
    return (
        f"seed {verdict.seed}: trace {verdict.digest}, {verdict.steps} steps, {verdict.revisions} revisions, "
        f"converged {calm}, {verdict.cpu_s:.2f} s of CPU: {end}"
    )


def save(figures: dict[str, object], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=2) + "\n")
