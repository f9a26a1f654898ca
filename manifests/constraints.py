"""Constraints on nodes: `node.labels.disk == ssd`, `node.attributes.arch != arm64`, `node.name == n1`.

Pure, and without pydantic, so that the scheduler and the manifests share it. No expressions, no regular expressions.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_ATTRIBUTE = re.compile(
    r"node\.(?:name|labels\.[A-Za-z0-9][-A-Za-z0-9_./]{0,127}|attributes\.[A-Za-z0-9][-A-Za-z0-9_./]{0,127})"
)
_CONSTRAINT = re.compile(r"\s*(\S+)\s*(==|!=)\s*(\S(?:.{0,126}\S)?)\s*")
_EXAMPLE = "node.labels.disk == ssd"


@dataclass(frozen=True, slots=True)
class Constraint:
    """`attribute` must, or must not, equal `value`. A label that a node lacks equals nothing."""

    attribute: str
    is_equal: bool
    value: str

    def holds(self, found: str | None) -> bool:
        return (found == self.value) is self.is_equal

    def __str__(self) -> str:
        return f"{self.attribute} {'==' if self.is_equal else '!='} {self.value}"


def parse_constraint(text: str) -> Constraint:
    """Return the constraint.

    >>> parse_constraint("node.labels.disk == ssd").holds("hdd")
    False
    """
    match = _CONSTRAINT.fullmatch(text)
    if match is None:
        raise ValueError(f"'{text[:80]}' is not a constraint: write for example {_EXAMPLE} (with == or !=)")
    return Constraint(parse_attribute(match[1]), match[2] == "==", match[3].strip("'\""))


def parse_attribute(text: str) -> str:
    """Return `text` if it names something that nodes have: their name, a label or an attribute."""
    if not _ATTRIBUTE.fullmatch(text):
        raise ValueError(
            f"'{text[:80]}' is nothing that nodes have: write node.name, node.labels.X or node.attributes.X"
        )
    return text


def attribute_of(attribute: str, name: str, labels: Mapping[str, str], attributes: Mapping[str, str]) -> str | None:
    """Return the value that the node of that name, labels and attributes has there, or None."""
    _, kind, *rest = attribute.split(".", 2)
    if kind == "name":
        return name
    return (labels if kind == "labels" else attributes).get(rest[0])
