"""What `plan` and `simulate` print of a rehearsal: who goes where, what stays blocked, the steps, the room left."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from wherry.cli.lookup import workload_of
from wherry.cli.text import clean, plural

Item = Mapping[str, Any]
MOST_LINES = 40  # of each part
MOST_STEPS = 8
NOT_WHOLE = "It goes on after that: only the first part was rehearsed."


def outcome_lines(answer: Item) -> list[str]:
    """Return what happens to allocations, what lacks room, and how long it takes in steps."""
    moves, starts, stops, left = (answer.get(part) or [] for part in ("moves", "starts", "stops", "left"))
    parts = [(len(starts), "start"), (len(moves), "be replaced"), (len(stops), "stop"), (len(left), "stay behind")]
    told = [f"{count} would {verb}" for count, verb in parts if count]
    lines = [f"Allocations: {', '.join(told) or 'nothing would change'}"]
    lines += _some([_start(s) for s in starts])
    lines += _some([_move(m) for m in moves])
    lines += _some([_stop(s) for s in stops])
    lines += _some([_left(x) for x in left])
    lines += [line for short in answer.get("blocked") or [] for line in _blocked(short)]
    lines += [line for waiting in answer.get("waiting") or [] for line in _waiting(waiting)]
    lines += [_steps(s) for s in answer.get("steps") or []]
    return lines + ([] if answer.get("isWhole") else [NOT_WHOLE])


def room_line(answer: Item) -> str:
    """Return what room is left: `Room left on 3 nodes: cpu 3.5 of 6, memory 2Gi of 3Gi, pids 300 of 600`."""
    room = answer.get("room") or {}
    free, there = room.get("free") or {}, room.get("of") or {}
    amounts = [f"{what} {clean(free.get(what))} of {clean(there.get(what))}" for what in ("cpu", "memory", "pids")]
    few, many = free.get("devices") or {}, there.get("devices") or {}
    amounts += [f"{clean(kind)} {few.get(kind, 0)} of {count}" for kind, count in many.items()]
    return f"Room left on {plural(int(room.get('nodes') or 0), 'node')}: {', '.join(amounts)}"


def misfits(answer: Item) -> list[str]:
    """Return the workloads of which something runs now and has no place any more."""
    return [str(workload_of(short)) for short in answer.get("blocked") or [] if short.get("noLongerFits")]


def _slot(item: Item, part: str) -> str:
    return f"{workload_of(item)} [{clean(item[part].get('index'))}]"


def _start(item: Item) -> str:
    return f"  {_slot(item, 'to')}: starts on {clean(item['to'].get('node'))}"


def _stop(item: Item) -> str:
    return f"  {_slot(item, 'from')}: stops on {clean(item['from'].get('node'))}: {clean(item.get('why'))}"


def _left(item: Item) -> str:
    return f"  {_slot(item, 'at')}: stays on {clean(item['at'].get('node'))}: {clean(item.get('why'))}"


def _waiting(item: Item) -> list[str]:
    return [f"{workload_of(item)}: {clean(said)}" for said in item.get("messages") or []]


def _move(item: Item) -> str:
    """Tell the versions too where they differ."""
    old, new = item["from"], item["to"]
    differ = old.get("version") != new.get("version")
    ends = [f"version {clean(a.get('version'))} on {clean(a.get('node'))}" for a in (old, new)]
    if not differ:
        ends = [clean(a.get("node")) for a in (old, new)]
    why = clean(item.get("why"))
    return f"  {_slot(item, 'from')}: {ends[0]} -> {ends[1]}" + (f": {why}" if why else "")


def _blocked(short: Item) -> Iterator[str]:
    more = " (and no longer fits)" if short.get("noLongerFits") else ""
    for blocked in short.get("blocked") or []:
        yield f"{workload_of(short)} stays blocked{more}: {clean(blocked.get('sentence'))}"


def _steps(item: Item) -> str:
    steps = item.get("steps") or []
    told = [_step(s) for s in steps[:MOST_STEPS]]
    count = int(item.get("count") or len(steps))
    return f"{workload_of(item)}: {plural(count, 'step')}: {', '.join(told)}" + (", …" if count > len(told) else "")


def _step(step: Item) -> str:
    """Return what one pass does: `1 up`, `1 down`, or both as `1 up 1 down`."""
    up, down = int(step.get("up") or 0), int(step.get("down") or 0)
    return " ".join([*([f"{up} up"] if up else []), *([f"{down} down"] if down else [])])


def _some(lines: Sequence[str]) -> list[str]:
    more = len(lines) - MOST_LINES
    return [*lines[:MOST_LINES], *([f"  and {more} more; -o json tells all"] if more > 0 else [])]
