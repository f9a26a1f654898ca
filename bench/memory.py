"""How much memory a leader of 50,000 nodes and 500,000 allocations takes: all it holds, without its sockets."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from typing import Any

from bench.figures import Figure, at_most, reported

NODES, ALLOCATIONS = 50_000, 500_000
SHORT = 25  # times fewer of both
MEMORY_MIB = 1024.0


async def measure(*, short: bool) -> list[Figure]:
    """Return what it takes; of a short version, what that is at full size if it grows as the records do."""
    share = SHORT if short else 1
    nodes, allocations = NODES // share, ALLOCATIONS // share
    found = await _lead(nodes, allocations)
    grown = found["leading"] - found["empty"]
    total = round(found["empty"] + grown * share, 1)
    name = f"a leader of {NODES:,} nodes and {ALLOCATIONS:,} allocations: memory"
    return [
        at_most(f"{name}, reckoned from {share} times fewer" if short else name, total, "MiB", MEMORY_MIB),
        reported("of it before it knew any", found["empty"], "MiB"),
        reported("more once they were read", found["loaded"] - found["empty"], "MiB"),
        reported("more once it had looked at all of them", found["leading"] - found["loaded"], "MiB"),
        reported("for each allocation, its node's share included", grown * 2**20 / allocations, "bytes"),
        reported("reading them", found["taken_in_s"], "s"),
        reported("the first look at all", found["pass_s"], "s"),
    ]


async def _lead(nodes: int, allocations: int) -> dict[str, Any]:
    """Return what bench.memory_leader says of the records that bench.memory_records makes."""
    read, write = os.pipe()
    try:
        maker = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.memory_records", str(nodes), str(allocations), stdout=write
        )
        os.close(write)
        leader = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.memory_leader", stdin=read, stdout=PIPE
        )
        said, _ = await leader.communicate()
    finally:
        os.close(read)
    if await maker.wait() or leader.returncode:
        raise RuntimeError("the records could not be made, or not be taken in")
    found: dict[str, Any] = json.loads(said)
    assert (found["nodes"], found["allocations"]) == (nodes, allocations)
    return found
