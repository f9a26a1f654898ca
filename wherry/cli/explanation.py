"""The page of `wherry explain`. Pure: the API's JSON in, lines out, cleaned; folded where a terminal has an end."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from wherry.cli.text import Style, clean, plural

Item = Mapping[str, Any]
NAMED_OF_MANY = 4  # nodes of one group that are named where there are many
MANY = 12
MOST_THERE = 10
_BEGUN = re.compile(r"  (?:\S| (?! ))* {2,}(?=\S)")  # a name or a word, and the gap behind it


def explanation_page(item: Item, style: Style) -> list[str]:
    """Return why it is where it is, why not elsewhere, and what would change that."""
    sections = [
        ([], [_title(item, style)]),
        (["What it waits for", ""], list(_waits_for(item))),
        ([_question(item), "by the cluster of this moment"], [*_answer(item), *_rules(item)]),
        (["Why not there", ""], _rows(list(_why_not(item)), style)),
        (["Who makes room", "by priority"], [f"  {clean(room.get('sentence'))}" for room in item.get("rooms") or []]),
        (["What would change it", "for one more of it, the best first"], list(_remedies(item))),
        (["Why there", "as recorded when it was placed"], list(_there(item))),
    ]
    lines: list[str] = []
    for heading, body in sections:
        if body:
            lines += ["", _heading(heading, style)] if heading else []
            lines += [folded for line in body for folded in _folded(line, style)]
    return lines


def _title(item: Item, style: Style) -> str:
    owner = f"{clean(item.get('kind')).lower()}/{clean(item.get('name'))}"
    about = f"allocation/{clean(item['allocation'])} of {owner}" if item.get("allocation") else owner
    state = f": {style.word(clean(item['state']))}" if item.get("state") else ""
    return f"{style.paint(about, 'bold')} in {clean(item.get('namespace'))}, version {item.get('version')}{state}"


def _heading(words: Sequence[str], style: Style) -> str:
    title, aside = words
    return style.paint(title, "bold") + (style.paint(f" ({aside})", "dim") if aside else "")


def _there(item: Item) -> Iterator[str]:
    there = item.get("there") or []
    for one in there[:MOST_THERE]:
        yield from _choice(f"{clean(one.get('id'))} on {clean(one.get('node'))}", one.get("why") or {})
    rest = len(there[MOST_THERE:]) + int(item.get("moreThere") or 0)
    if rest:
        yield f"  and {rest} more: `wherry explain allocation/ID` tells of one"


def _choice(what: str, why: Item) -> Iterator[str]:
    """Yield a choice's score by part, who would also have done, and who was ruled out."""
    parts = ", ".join(f"{clean(name)} {value:.2f}" for name, value in why.get("parts") or [])
    yield f"  {what}: score {why.get('score', 0):.2f}" + (f" ({parts})" if parts else "")
    runners = ", ".join(f"{clean(r.get('node'))} {r.get('score', 0):.2f}" for r in why.get("runnersUp") or [])
    if runners:
        yield f"    runners-up: {runners}"
    ruled_out = [f"{clean(r.get('node'))} ({clean(r.get('sentence'))})" for r in why.get("rejections") or []]
    if why.get("moreRejections"):
        ruled_out.append(f"{why['moreRejections']} more")
    if ruled_out:
        yield f"    ruled out: {', '.join(ruled_out)}"


def _waits_for(item: Item) -> Iterator[str]:
    for message in item.get("messages") or []:
        yield f"  {clean(message)}"
    for blocked in item.get("blocked") or []:
        yield f"  version {blocked.get('version')}: {clean(blocked.get('sentence'))}"


_WHOSE = {"workload": "its own", "namespace": "the namespace's", "cluster": "the cluster's"}


def _rules(item: Item) -> Iterator[str]:
    """Yield what isn't as by default, and whose word that is."""
    rules = item.get("rules") or {}
    if whose := _WHOSE.get(str(rules.get("policyOf"))):
        yield f"  policy {clean(rules.get('policy'))} ({whose})"
    if rules.get("preempts") is False:
        yield f"  evicts nothing: preempts is false ({_WHOSE.get(str(rules.get('preemptsOf')), '')})"


def _question(item: Item) -> str:
    return "If it were placed now" if item.get("allocation") else "One more of it"


def _answer(item: Item) -> Iterator[str]:
    if item.get("note"):
        yield f"  {clean(item['note'])}"
        return
    goal, fits = item.get("goesTo"), int(item.get("fits") or 0)
    if item.get("askedNode"):
        yield f"  {'fits' if fits else 'does not fit'} {clean(item['askedNode'])}"
        return
    if goal:
        node = clean(goal.get("node"))
        is_there = item.get("allocation") and any(a.get("node") == goal.get("node") for a in item.get("there") or [])
        yield from _choice(f"{'would stay on' if is_there else 'would go to'} {node}", goal.get("why") or {})
    failing = sum(group.get("count", 0) for group in item.get("groups") or []) + int(item.get("moreNodes") or 0)
    without = " that have none" if item.get("kind") == "Daemon" and not item.get("allocation") else ""
    if fits + failing:
        yield f"  fits {fits or 'none'} of {plural(fits + failing, 'node')}{without}"
    elif without:
        yield "  every node has one"


def _why_not(item: Item) -> Iterator[tuple[str, list[str]]]:
    """Yield each node and all that rules it out; where there are many, a few of each kind and how many more."""
    groups = item.get("groups") or []
    is_large = sum(group.get("count", 0) for group in groups) > MANY
    for group in groups:
        nodes = group.get("nodes") or []
        shown = nodes[:NAMED_OF_MANY] if is_large else nodes
        for node in shown:
            yield clean(node.get("node")), [clean(f.get("sentence")) for f in node.get("faults") or []]
        rest = group.get("count", 0) - len(shown)
        if rest:
            yield f"{rest} more", [clean(f.get("sentence")) for f in group.get("faults") or []]
    if item.get("moreNodes"):
        yield f"{item['moreNodes']} more", ["for other reasons"]


def _rows(rows: Sequence[tuple[str, list[str]]], style: Style) -> list[str]:
    """Return each node's reasons: one a line where somebody looks, all in one line in a pipe."""
    width = max((len(name) for name, _ in rows), default=0)
    lines = []
    for name, reasons in rows:
        if not style.width:
            lines.append(f"  {name.ljust(width)}  {'; '.join(reasons)}")
            continue
        lines += [f"  {(name if not i else '').ljust(width)}  {reason}" for i, reason in enumerate(reasons)]
    return lines


def _remedies(item: Item) -> Iterator[str]:
    for remedy in item.get("remedies") or []:
        where = "manifest" if remedy.get("ofTheWorkload") else "cluster "
        yield f"  {where}  {clean(remedy.get('sentence'))}"


def _folded(line: str, style: Style) -> list[str]:
    """Return the line in as many as the terminal needs; what goes on stands under its beginning."""
    if not style.width or len(line) <= style.width or "\x1b" in line:
        return [line]
    from textwrap import wrap

    begun = _BEGUN.match(line)
    indent = " " * (begun.end() if begun else len(line) - len(line.lstrip()) + 2)
    return wrap(line, style.width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False) or [line]
