"""What a leader holds of a cluster whose records come in on standard input, and how much memory that is: one JSON line.

A process of its own, so that nothing else is counted: `python -m bench.memory_leader < RECORDS`.
"""

import gc
import json
import random
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from control_plane.controllers.ages import Ages
from control_plane.controllers.dirty import DirtySet
from control_plane.controllers.passes import Passes
from control_plane.controllers.progress import ProgressClock
from control_plane.controllers.snapshot import workload_ids
from control_plane.core import Core, assemble
from control_plane.rehearsal.fork import CacheStore, JumpingClock
from control_plane.store.protocol import Change, Entry, Revision

PAGE = 500


def main() -> None:
    clock = JumpingClock(time.time())
    core = assemble(CacheStore(), clock, random.Random(1), name="s1", url="", heartbeat_s=1.0, lost_after_s=5.0)
    ages = Ages(core.state, clock)
    core.state.subscribe(ages.on_batch)
    gc.collect()
    empty, began_s = resident_mib(), time.monotonic()
    for revision, lines in enumerate(_pages(sys.stdin.buffer), 1):
        changes = [_change(line, Revision(revision)) for line in lines]
        core.state.take_in(changes, Revision(revision), is_first=revision == 1)
    taken_in_s, loaded = time.monotonic() - began_s, resident_mib()
    writes = _pass(core, ages)
    found = {"empty": empty, "loaded": loaded, "leading": resident_mib(), "taken_in_s": taken_in_s, "writes": writes}
    found |= {"nodes": len(core.state.nodes), "allocations": len(core.state.allocations)}
    print(json.dumps(found | {"pass_s": time.monotonic() - began_s - taken_in_s}))


def _pages(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Yield the lines as a store gives them, some hundred at a time."""
    rest = iter(lines)
    while page := list(islice(rest, PAGE)):
        yield page


def _change(line: bytes, revision: Revision) -> Change:
    key, _, value = line.rstrip(b"\n").partition(b"\t")
    return Change(key.decode(), Entry(key.decode(), value, revision, revision), revision)


def _pass(core: Core, ages: Ages) -> int:
    """Look at all workloads once, as a new leader does, and return how much it would write."""
    clock = core.state.clock
    passes = Passes(core.state, core.standing, ages, ProgressClock(clock), clock)
    made = passes.make(sorted(workload_ids(core.state)), DirtySet(core.state, clock))
    return len(made.writes.units)


def resident_mib() -> float:
    """Return this process's resident memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS:"))) / 1024


if __name__ == "__main__":
    main()
