"""`script/bench`: lists, runs and reports benchmarks. Exit code 0 as long as every figure could be measured."""

import argparse
import asyncio
import importlib
import json
import logging
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from bench.figures import Figure, load_average, reported, table, to_json

SENTENCES = {
    "scheduler": "how many replicas a second are placed on 100 to 50,000 nodes",
    "packing": "how few nodes hold generated mixes, beside a lower bound and other schedulers' rules",
    "explain": "how long it takes to say why a service is blocked on 10,000 nodes, and what would help",
    "simulate": "how long a server takes to say what the loss of one node of 10,000 would do",
    "memory": "how much memory a leader of 50,000 nodes and 500,000 allocations takes",
    "store": "how fast the two stores commit, one write at a time and 64 at once",
    "cli": "how long `wherry get nodes` takes from start to exit",
    "idle": "what each daemon costs while nothing happens, and that nothing is written then",
    "stats": "what it costs to know what a container uses, beside the engine's own statistics",
    "logs": "how many lines a second of one container are followed to a pipe with none lost, and what the agent uses",
    "crash": "how soon a container that crashed runs again",
    "agents": "2,000 simulated agents on one server: registered, kept, and handed a service of 2,000 replicas",
    "burst": "10,000 replicas at once on 2,000 simulated nodes: stored, or known to fit nowhere",
    "failover": "how soon the work of a silent node runs elsewhere, and another server leads when the leader dies",
    "agent-kills": "that no container notices when its agent is killed and restarted, over and over",
    "quorum": "that no container notices when etcd loses its majority, and how soon all is well again",
    "rollout": "how long a rolling update of 50 replicas takes, beside the engine's API alone",
    "drivers": "how fast 100 replicas start by each driver, and how soon a crashed container runs again",
    "deploy": "how long 50 replicas take to run, beside the engine's API alone",
    "cri": "how many containers a second an agent starts with containerd, beside bare calls of the CRI",
}
LONGEST_S = 1800.0


def main(words: Sequence[str]) -> int:
    options = _parser().parse_args(words)
    logging.getLogger("control_plane").setLevel(logging.ERROR)  # our own looks at etcd, which some benchmarks break
    if options.name is None:
        for name, sentence in SENTENCES.items():
            print(f"{name:12} {sentence}")
        return 0
    names = list(SENTENCES) if options.name == "all" else [options.name]
    measured, failed = _run(names, short=options.short)
    if options.json is not None:
        options.json.write_text(json.dumps(to_json(measured), indent=2) + "\n")
    for name in failed:
        print(f"bench: {name} could not be measured", file=sys.stderr)
    return 1 if failed else 0


def _run(names: Sequence[str], *, short: bool) -> tuple[dict[str, list[Figure]], list[str]]:
    """Return the figures of what could be measured, and what could not."""
    measured: dict[str, list[Figure]] = {}
    failed = []
    for name in names:
        print(f"{name}: {SENTENCES[name]}", flush=True)
        before, began_s = load_average(), time.monotonic()
        try:
            figures = asyncio.run(_measure(name, short=short))
        except Exception:
            traceback.print_exc()
            failed.append(name)
            continue
        measured[name] = [*figures, before, reported("measuring took", time.monotonic() - began_s, "s")]
        print(table(measured[name]), end="\n\n", flush=True)
    return measured, failed


def module_of(name: str) -> str:
    return f"bench.{name.replace('-', '_')}"


async def _measure(name: str, *, short: bool) -> list[Figure]:
    module = importlib.import_module(module_of(name))
    async with asyncio.timeout(LONGEST_S):
        figures: list[Figure] = await module.measure(short=short)
    return figures


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="script/bench", description="Measures Wherry. Without a name it lists them.")
    parser.add_argument("name", nargs="?", choices=[*SENTENCES, "all"], metavar="NAME|all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    parser.add_argument("--short", action="store_true", help="a short version, of less worth, where a full one is long")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
