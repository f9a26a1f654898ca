"""`script/chaos`: one run of chaos on real processes. Exit code 0 if all that was promised was kept."""

import argparse
import asyncio
import json
import logging
import random
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from bench.figures import Figure, at_most, reported, table, to_json
from tests.chaos.run import CONVERGED_S, KINDS, Plan, Verdict, run


def main(words: Sequence[str]) -> int:
    options = _parser().parse_args(words)
    logging.getLogger("control_plane").setLevel(logging.ERROR)  # our own looks at etcd, which is broken on purpose
    seed = random.randrange(1_000_000) if options.seed is None else options.seed
    kinds = tuple(kind for kind in KINDS if not options.only or options.only in kind.name)
    plan = Plan(seed, 60 * options.minutes, options.every, kinds)
    print(
        f"chaos: seed {seed}, {options.minutes:g} min, a fault every {options.every:g} s, of {len(kinds)} kinds",
        flush=True,
    )
    try:
        verdict = asyncio.run(run(plan))
    except Exception:
        traceback.print_exc()
        print(f"chaos: the run itself failed; its seed was {seed}", file=sys.stderr)
        return 1
    figures = _figures(verdict)
    print(table(figures))
    if options.json is not None:
        options.json.write_text(json.dumps(_to_json(seed, verdict, figures), indent=2) + "\n")
    if not verdict.is_good:
        _tell(seed, verdict)
    return 0 if verdict.is_good else 1


def _figures(verdict: Verdict) -> list[Figure]:
    figures = [
        reported("faults", len(verdict.faults), ""),
        reported("pairs of faults at once", sum(fault.is_paired for fault in verdict.faults) // 2, ""),
        reported("kinds of faults", len({fault.kind for fault in verdict.faults}), ""),
        reported("acts of the user", sum(verdict.acts.values()), ""),
        reported("calls of the user that had to be tried again", verdict.refused, ""),
        reported("containers that ran", verdict.containers, ""),
        reported("times that the machine stood still", len(verdict.stalls), ""),
        reported("time in which something waited for a processor", verdict.pressure_percent, "%"),
        at_most("violations", len(verdict.violations), "", 0),
    ]
    if verdict.converged_s is not None:
        figures.append(at_most("converged after the last fault", verdict.converged_s, "s", CONVERGED_S))
    return figures


def _to_json(seed: int, verdict: Verdict, figures: Sequence[Figure]) -> dict[str, object]:
    faults = [
        {
            "kind": f.kind,
            "target": f.effect.target,
            "began": f.began_s,
            "healed": f.healed_s,
            "paired": f.is_paired,
        }
        for f in verdict.faults
    ]
    return {"seed": seed, "faults": faults, "violations": verdict.violations, **to_json({"chaos": figures})}


def _tell(seed: int, verdict: Verdict) -> None:
    """Say everything that helps to find out what went wrong."""
    print(f"\nchaos: {len(verdict.violations)} violations; to make the same faults again: --seed {seed}")
    for violation in verdict.violations:
        print(f"- {violation}")
    print("\nthe last events:")
    for event in verdict.events:
        print(f"  {event}")
    print(f"\nthe daemons' logs: {verdict.logs}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="script/chaos", description="Breaks a real cluster, and judges.")
    parser.add_argument("--minutes", type=float, default=4.0, help="how long it is broken (default: 4)")
    parser.add_argument("--seed", type=int, help="chooses the faults (default: a new one, which is printed)")
    parser.add_argument("--every", type=float, default=20.0, metavar="S", help="between two faults (default: 20)")
    parser.add_argument("--only", default="", metavar="WORDS", help="only the faults whose kinds have these words")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write what came of it there")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
