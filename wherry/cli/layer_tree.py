"""Draws the layers of an allocation as a tree. Pure: the API's JSON in, lines out, cleaned.

What is so stands on the left, aligned within its layer; the command that shows it on the right, or below where the
terminal is too narrow for both. What the commands of one container have in common is a variable, set where it begins.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from wherry.cli.shell_words import Shell, shell_of
from wherry.cli.text import Style, clean

Item = Mapping[str, Any]
_COLUMN = 76  # where commands begin, if there is room
_LONGEST_FACT = 100  # a longer one has its command below it


class _Line(NamedTuple):
    """One line: the branches of the tree before it, what is said, and the command that says the same."""

    stem: str
    name: str
    value: str = ""
    note: str = ""
    command: str = ""
    is_layer: bool = False
    width: int = 0  # of the names of its layer


def tree_lines(tree: Item, style: Style, *, has_commands: bool = True) -> list[str]:
    lines = _walk(tree, "", "", Shell(), has_commands=has_commands)
    return [text for line in lines for text in _drawn(line, style)]


def commands_of(layer: Item) -> Iterator[str]:
    """Yield all commands of a layer and of those below it."""
    yield from (clean(each.get("command")) for each in (layer, *(layer.get("facts") or ())) if each.get("command"))
    for below in layer.get("below") or []:
        yield from commands_of(below)


def _walk(layer: Item, first: str, rest: str, shell: Shell, *, has_commands: bool) -> Iterator[_Line]:
    """Yield a layer's own line, its facts, and what is below it; `first` stands before that line, `rest` before all."""
    facts: Sequence[Item] = layer.get("facts") or []
    below: Sequence[Item] = layer.get("below") or []
    is_container = layer.get("kind") == "container"
    if is_container and has_commands:
        shell = shell_of(commands_of(layer))
    own = clean(layer.get("command"))
    command = shell.shorten(own) if has_commands else ""
    name = shell.shorten_ids(clean(layer.get("name")))
    yield _Line(first, clean(layer.get("kind")), name, clean(layer.get("note")), command, is_layer=True)
    stem = rest + ("│  " if below else "   ")
    if is_container and shell.variables:
        yield from (_Line(stem, "", command=line) for line in shell.lines)
    width = max((len(clean(fact.get("name"))) for fact in facts), default=0)
    for fact in facts:
        said = clean(fact.get("command"))
        yield _Line(
            stem,
            clean(fact.get("name")),
            shell.shorten_ids(clean(fact.get("value"))),
            clean(fact.get("note")),
            shell.shorten(said) if has_commands and said != own else "",  # the layer's own says it
            width=width,
        )
    for at, each in enumerate(below):
        is_last = at == len(below) - 1
        branch, onward = ("└─ ", "   ") if is_last else ("├─ ", "│  ")
        yield from _walk(each, rest + branch, rest + onward, shell, has_commands=has_commands)


def _drawn(line: _Line, style: Style) -> Iterator[str]:
    note = f"({line.note})" if line.note and not line.is_layer else line.note
    name = line.name.ljust(line.width)
    cells = [cell for cell in (name, line.value, note) if cell]
    painted = [
        style.paint(name, "bold" if line.is_layer else "dim"),
        style.paint(line.value, "green") if line.is_layer else style.word(line.value),
        style.paint(note, "dim"),
    ]
    left = len(line.stem) + len("  ".join(cells))
    shown = style.paint(line.stem, "dim") + "  ".join(filter(None, painted))
    if not line.command:
        yield shown.rstrip()
        return
    command = style.paint(f"$ {line.command}", "dim")
    column = max(_COLUMN, left + 2)
    fits = style.width == 0 or column + len(line.command) + 2 <= style.width
    if left <= _LONGEST_FACT and fits:
        yield shown + " " * (column - left) + command
        return
    if cells:
        yield shown.rstrip()
    stem = line.stem.replace("├─ ", "│  ").replace("└─ ", "   ")
    yield style.paint(stem, "dim") + "    " + command
