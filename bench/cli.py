"""How long `wherry get nodes` takes against a running server, from the start of its process to its exit."""

import asyncio
import os
import statistics
import sys
import time
from pathlib import Path

from bench.figures import Figure, below, reported
from bench.rig import OneNode, one_node
from tests.lab.cluster import NodeSize
from tests.lab.host import environment

RUNS = 20
TARGET_MS = 250.0
RUN_S = 30.0
WHERRY = Path(sys.executable).with_name("wherry")


async def measure(*, short: bool) -> list[Figure]:
    async with one_node(NodeSize()) as node:
        await _run_ms(node)  # reads the files from the disk, and writes their bytecode
        times = [await _run_ms(node) for _ in range(RUNS)]
    return [
        below(f"`wherry get nodes`, median of {RUNS}", statistics.median(times), "ms", TARGET_MS),
        reported(f"`wherry get nodes`, max of {RUNS}", max(times), "ms"),
        reported("an empty Python program, median of 5", await _empty_ms(), "ms"),
    ]


async def _run_ms(node: OneNode) -> float:
    words = (str(WHERRY), "get", "nodes", "--server", node.url, "--token-file", str(node.token_file))
    taken_ms, output = await _timed(*words)
    if b"n1" not in output or b"ready" not in output:
        raise RuntimeError(f"it printed {output!r}")
    return taken_ms


async def _empty_ms() -> float:
    """Return what of it is not ours to shorten."""
    return statistics.median([(await _timed(sys.executable, "-c", ""))[0] for _ in range(5)])


async def _timed(*words: str) -> tuple[float, bytes]:
    """Return the milliseconds from the process's start to its exit, and what it printed."""
    began = time.perf_counter()
    async with asyncio.timeout(RUN_S):
        process = await asyncio.create_subprocess_exec(
            *words, stdout=asyncio.subprocess.PIPE, env=environment() | {"HOME": os.environ.get("HOME", "/")}
        )
        output, _ = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(words)} ended with {process.returncode}")
    return 1000 * (time.perf_counter() - began), output
