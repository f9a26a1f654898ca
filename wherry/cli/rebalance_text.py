"""What `rebalance` prints: who would move from where to where, why, and what that comes to."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from wherry.cli.kinds import Workload
from wherry.cli.lookup import workload_of
from wherry.cli.text import clean, plural

Item = Mapping[str, Any]


def proposal_lines(answer: Item, workload: Workload | None = None) -> list[str]:
    """Return all that is proposed; `workload` is what room is made for, if it is."""
    moves = answer.get("moves") or []
    lines = [f"Moves: {len(moves) or 'none'}", *(_move(move) for move in moves)]
    lines += _room(answer, workload) if workload is not None else _freed(answer)
    if under_way := int(answer.get("underWay") or 0):
        lines.append(f"{plural(under_way, 'move')} of before still to be made: see `wherry rebalance --help`.")
    return lines


def _move(move: Item) -> str:
    where = f"{clean(move.get('from'))} -> {clean(move.get('to'))}"
    slot = f"{workload_of(move)} [{clean(move.get('index'))}]"
    return f"  {slot}: {where}: {clean(move.get('why'))} (gain {float(move.get('gain') or 0):.2f})"


def _freed(answer: Item) -> Iterator[str]:
    if answer.get("goal") == "spread":
        if answer.get("hasMore"):
            yield "With more moves (--max-moves) it would be more even."
        return
    freed = [clean(name) for name in answer.get("freed") or []]
    yield f"Nodes that become free: {', '.join(freed) or 'none'}"
    if answer.get("hasMore"):
        yield "With more moves (--max-moves) more nodes may become free."


def _room(answer: Item, workload: Workload) -> Iterator[str]:
    nodes = Counter(clean(name) for name in answer.get("rooms") or [])
    found = ", ".join(f"{count} on {name}" for name, count in sorted(nodes.items()))
    yield f"Room for {workload}: {found or 'none'}"
    if short := int(answer.get("short") or 0):
        more = "; with more moves (--max-moves) more of them would have room" if answer.get("hasMore") else ""
        yield f"{short} would still have none{more}."
