"""Trees of YAML nodes to plain values, and from a path in them back to the line.

A plain word means what it means in YAML 1.2, and what means something else in YAML 1.1 is refused, with the remedy:
nobody shall find out in production that `on` was true, that `0o12` was ten or that `12:30` was 750.
"""

import re
from typing import TypeAlias

from manifests.problems import Fault, Path
from manifests.yaml_text import List, Map, Node, Scalar

Value: TypeAlias = "bool | int | float | str | list[Value] | dict[str, Value] | None"
_CORE = "tag:yaml.org,2002:"
_CORE_TAGS = {f"{_CORE}{name}" for name in ("str", "int", "float", "bool", "null", "seq", "map")}
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"0|-?[1-9][0-9]{0,17}")
_FLOAT = re.compile(r"-?(?:0|[1-9][0-9]{0,17})\.[0-9]{1,18}")
_YES = frozenset({"yes", "on"})
_NO = frozenset({"no", "off"})
_SEXAGESIMAL = re.compile(r"[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?")
_ODD_INT = re.compile(r"[-+]?(?:0o?[0-7_]+|0x[0-9a-fA-F_]+|0b[01_]+|[0-9][0-9_]*_[0-9_]*)|\+[0-9]+|0[0-9]+")
_ODD_FLOAT = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")


class WrittenNumber(float):
    """A number with a fraction that keeps how it was written, so that `1.10` is not shown as 1.1."""

    text: str

    def __new__(cls, text: str) -> "WrittenNumber":
        number = super().__new__(cls, text)
        number.text = text
        return number

    def __str__(self) -> str:
        return self.text


def value_of(node: Node, faults: list[Fault], path: Path = ()) -> Value:
    """Return the node's value; what is wrong with it is added to `faults`, and has the value None."""
    if node.tag not in (None, "!") and node.tag not in _CORE_TAGS:
        faults.append(Fault(path, f"has the tag {_shown_tag(node.tag)}: there are no tags in manifests; leave it out"))
        return None
    match node:
        case Scalar():
            return _scalar(node, faults, path)
        case List():
            return [value_of(item, faults, (*path, i)) for i, item in enumerate(node.items)]
        case Map():
            return _map(node, faults, path)


def line_of(root: Node, path: Path, *, at_key: bool = False) -> int:
    """Return the line of the value (or of the key) at a path, or of the nearest thing around it that exists."""
    node, line = root, root.line
    for depth, part in enumerate(path):
        if isinstance(node, Map):
            pair = next((p for p in node.pairs if isinstance(p[0], Scalar) and p[0].text == part), None)
            if pair is None:
                return line
            is_last = depth == len(path) - 1
            key, node = pair
            # A map or list begins on the line after its key: the key is what people look for.
            line = node.line if isinstance(node, Scalar) and not (at_key and is_last) else key.line
        elif isinstance(node, List) and isinstance(part, int) and part < len(node.items):
            node = node.items[part]
            line = node.line
        else:
            return line
    return line


def _map(node: Map, faults: list[Fault], path: Path) -> dict[str, Value]:
    values: dict[str, Value] = {}
    lines: dict[str, int] = {}
    for key, value in node.pairs:
        if not isinstance(key, Scalar):
            faults.append(Fault(path, f"has a list or a map as a key in line {key.line}: a key is a word"))
        elif key.text == "<<" and key.is_plain:
            faults.append(Fault(path, f"has a merge key (<<) in line {key.line}, which is not understood here: "
                                      "write the fields out, or use an alias as a whole value"))  # fmt: skip
        elif key.text == "":
            faults.append(Fault(path, f"has no key before the ':' in line {key.line}"))
        elif key.text in values:
            first, again = lines[key.text], key.line
            faults.append(
                Fault((*path, key.text), f"stands twice, in lines {first} and {again}: remove one", at_key=True)
            )
        else:
            lines[key.text] = key.line
            values[key.text] = value_of(value, faults, (*path, key.text))
    return values


def _scalar(node: Scalar, faults: list[Fault], path: Path) -> Value:
    if node.tag is None:
        if not node.is_plain:
            return node.text
        trap = _trap(node.text)
        if trap is not None:
            faults.append(Fault(path, trap))
            return None
        return _plain(node.text)
    if node.tag in ("!", f"{_CORE}str"):
        return node.text
    value = _plain(node.text)
    if not isinstance(value, _TAGGED.get(node.tag, ())):
        faults.append(Fault(path, f"'{node.text[:40]}' doesn't fit its tag {_shown_tag(node.tag)}: leave the tag out"))
        return None
    return value


_TAGGED: dict[str | None, tuple[type, ...]] = {
    f"{_CORE}int": (int,),
    f"{_CORE}float": (float, int),
    f"{_CORE}bool": (bool,),
    f"{_CORE}null": (type(None),),
}


def _plain(text: str) -> Value:
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.fullmatch(text):
        return int(text)
    return WrittenNumber(text) if _FLOAT.fullmatch(text) else text


def _trap(text: str) -> str | None:
    """Return what to write instead, where readers of YAML disagree on what a plain word means."""
    if len(text) > 64:
        return None
    word = text.lower()
    if word in _YES or word in _NO:
        meant = "true" if word in _YES else "false"
        return f"'{text}' is {meant} to some readers of YAML and text to others: write {meant}, or put it in quotes"
    if _SEXAGESIMAL.fullmatch(text):
        return f"'{text}' is a number in base 60 to some readers of YAML: put it in quotes"
    if _ODD_INT.fullmatch(text) or _ODD_FLOAT.fullmatch(text):
        return f"'{text}' is a number that readers of YAML disagree on: write it in plain decimal, or put it in quotes"
    return None


def _shown_tag(tag: str | None) -> str:
    text = tag or ""
    return f"!!{text.removeprefix(_CORE)}"[:60] if text.startswith(_CORE) else text[:60]
