"""YAML text to plain trees with lines, within bounds: no input costs more than its size is worth.

libyaml scans, and its events are counted before anything is built: size, depth, documents, aliases, and what the
aliases would expand to. Knows nothing of manifests.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import yaml

from manifests.yaml_faults import YamlFault, explain

MOST_BYTES = 2**20
MOST_DEPTH = 64
MOST_ALIASES = 1_000
MOST_NODES = 100_000
MOST_DOCUMENTS = 1_000
# Control characters, and those which reorder text on a screen so that what is shown isn't what is meant.
_FORBIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufffe\uffff\ud800-\udfff]"
)


@dataclass(slots=True)
class Scalar:
    text: str
    is_plain: bool  # not in quotes, not a block
    tag: str | None
    line: int  # from 1, here and below


@dataclass(slots=True)
class List:
    tag: str | None
    line: int
    items: list["Node"] = field(default_factory=list)


@dataclass(slots=True)
class Map:
    tag: str | None
    line: int
    pairs: list[tuple["Node", "Node"]] = field(default_factory=list)


Node: TypeAlias = Scalar | List | Map


def decode(data: bytes) -> str:
    """Return the text of a file. Raises YamlFault with the line where it isn't UTF-8."""
    if len(data) > MOST_BYTES:
        raise YamlFault(0, f"is larger than 1 MiB ({len(data):,} bytes or more): split it")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise YamlFault(line, f"is not UTF-8 text: byte {error.start + 1} is 0x{data[error.start]:02x}") from error


def documents(text: str) -> Iterator[Node]:
    """Yield the root of each document, in order, leaving out empty ones. Raises YamlFault where the text is no YAML."""
    _check_text(text)
    lines = text.splitlines()
    try:
        yield from _Builder().documents(text)
    except yaml.MarkedYAMLError as error:
        raise explain(error, lines) from error
    except yaml.YAMLError as error:
        raise YamlFault(0, f"is not YAML: {error}") from error


def _check_text(text: str) -> None:
    if len(text) > MOST_BYTES or len(text.encode("utf-8", "surrogatepass")) > MOST_BYTES:
        raise YamlFault(0, "is larger than 1 MiB: split it")
    bad = _FORBIDDEN.search(text)
    if bad is not None:
        line = text.count("\n", 0, bad.start()) + 1
        column = bad.start() - text.rfind("\n", 0, bad.start())
        raise YamlFault(line, f"column {column}: the character U+{ord(bad[0]):04X} is not allowed in a manifest")


@dataclass(slots=True)
class _Open:
    """A list or map that is being read."""

    node: List | Map
    anchor: str | None
    nodes_before: int
    key: Node | None = None  # of a map, while its value is awaited


class _Builder:
    """Builds the trees of one text, counting as it goes."""

    def __init__(self) -> None:
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Node, int]] = {}  # with how many nodes each expands to
        self._nodes = 0  # of all documents, aliases expanded
        self._aliases = 0
        self._documents = 0
        self._root: Node | None = None

    def documents(self, text: str) -> Iterator[Node]:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            self._take(event)
            if isinstance(event, yaml.DocumentEndEvent) and not _is_empty(self._root):
                assert self._root is not None
                yield self._root

    def _take(self, event: Any) -> None:
        line = event.start_mark.line + 1
        match event:
            case yaml.DocumentStartEvent():
                self._root, self._anchors = None, {}
                self._documents += 1
                if self._documents > MOST_DOCUMENTS:
                    raise YamlFault(line, f"has more than {MOST_DOCUMENTS:,} documents: split the file")
            case yaml.ScalarEvent():
                is_plain = event.implicit[0] and event.tag is None
                self._add(Scalar(event.value, is_plain, event.tag, line), event.anchor)
            case yaml.SequenceStartEvent():
                self._begin(List(event.tag, line), event.anchor)
            case yaml.MappingStartEvent():
                self._begin(Map(event.tag, line), event.anchor)
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                self._end()
            case yaml.AliasEvent(anchor=str(name)):
                self._alias(name, line)

    def _begin(self, node: List | Map, anchor: str | None) -> None:
        if len(self._open) >= MOST_DEPTH:
            raise YamlFault(node.line, f"is nested more than {MOST_DEPTH} deep")
        before = self._nodes
        self._add(node, None)
        self._open.append(_Open(node, anchor, before))

    def _end(self) -> None:
        closed = self._open.pop()
        if closed.anchor is not None:
            self._anchors[closed.anchor] = (closed.node, self._nodes - closed.nodes_before)

    def _alias(self, name: str, line: int) -> None:
        if any(o.anchor == name for o in self._open):
            raise YamlFault(line, f"the alias *{name} stands inside what it names, which would never end")
        if name not in self._anchors:
            raise YamlFault(line, f"the alias *{name} names nothing: no &{name} comes before it in this document")
        self._aliases += 1
        if self._aliases > MOST_ALIASES:
            raise YamlFault(line, f"has more than {MOST_ALIASES:,} aliases")
        node, size = self._anchors[name]
        self._count(size, line)
        self._attach(node)

    def _add(self, node: Node, anchor: str | None) -> None:
        self._count(1, node.line)
        if anchor is not None:
            self._anchors[anchor] = (node, 1)
        self._attach(node)

    def _count(self, nodes: int, line: int) -> None:
        self._nodes += nodes
        if self._nodes > MOST_NODES:
            raise YamlFault(line, f"has more than {MOST_NODES:,} values, aliases written out: split the file")

    def _attach(self, node: Node) -> None:
        if not self._open:
            self._root = node
            return
        inner = self._open[-1]
        if isinstance(inner.node, List):
            inner.node.items.append(node)
        elif inner.key is None:
            inner.key = node
        else:
            inner.node.pairs.append((inner.key, node))
            inner.key = None


def _is_empty(root: Node | None) -> bool:
    return root is None or (isinstance(root, Scalar) and root.is_plain and root.text == "")
