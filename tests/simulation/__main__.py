"""`script/simulate`: histories of a whole cluster by seed, one of them retold, or planted defects to be found."""

import argparse
import os
import sys
from pathlib import Path

from tests.simulation.campaign import explain, run_seeds, save, tell_seed
from tests.simulation.history import Plan
from tests.simulation.mutation import run_mutants


def main() -> int:
    options = _options()
    if os.environ.get("PYTHONHASHSEED") != "0":  # sets of text must have the same order in each run
        os.execve(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]], _environment())
    if options.mutants:
        only = options.only.split(",") if options.only else None
        return run_mutants(only, is_short=options.short, jobs=options.jobs, json=options.json)
    if options.seed is not None:
        return 0 if tell_seed(options.seed, is_verbose=options.verbose).is_good else 1
    campaign = run_seeds(range(options.first, options.first + options.seeds), jobs=options.jobs)
    figures = campaign.figures()
    print("\n".join(f"{name}: {value}" for name, value in figures.items()))
    if options.json:
        save(figures, options.json)
    if campaign.failed:
        first = campaign.failed[0]
        explain(Plan.drawn(first.seed), first)
    return 1 if campaign.failed else 0


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONHASHSEED": "0"}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="script/simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, metavar="N", help="tell N histories (default: 100)")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="the first seed (default: 0)")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="processes (default: 2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--seed", type=int, metavar="N", help="tell this one history, and why it fails if it does")
    parser.add_argument("--verbose", action="store_true", help="with --seed: print every event")
    parser.add_argument("--mutants", action="store_true", help="plant defects, one by one, and see each found")
    parser.add_argument("--short", action="store_true", help="with --mutants: a few of them")
    parser.add_argument("--only", metavar="NAME,...", help="with --mutants: these")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
