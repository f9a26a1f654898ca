"""Constraints on nodes: `node.labels.disk == ssd`, `node.attributes.kernel >= 5.10`, `node.labels.zone in a, b`.

Pure, and without pydantic, so that the scheduler and the manifests share it. No expressions, no regular expressions
of users: a constraint is an attribute, an operator and values.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import zip_longest
from typing import TypeAlias

from manifests.permissions import lacking

_ATTRIBUTE = re.compile(
    r"node\.(?:name|labels\.[A-Za-z0-9][-A-Za-z0-9_./]{0,127}|attributes\.[A-Za-z0-9][-A-Za-z0-9_./]{0,127})"
)
_CONSTRAINT = re.compile(r"\s*(\S+)\s*?(==|!=|>=|<=|>|<|\snot\s+in\s|\sin\s|\snot\s+exists|\sexists)\s*(.*?)\s*")
_LEADING_NUMBERS = re.compile(r"v?(\d{1,18}(?:\.\d{1,18}){0,8})(?![.\d])")
_EXAMPLE = "node.labels.disk == ssd"
_OPERATORS = "==, !=, in, not in, >, >=, <, <=, exists or not exists"

Number: TypeAlias = tuple[int, ...]


class Operator(StrEnum):
    EQUAL = "=="
    NOT_EQUAL = "!="
    IN = "in"
    NOT_IN = "not in"
    GREATER = ">"
    AT_LEAST = ">="
    LESS = "<"
    AT_MOST = "<="
    EXISTS = "exists"
    NOT_EXISTS = "not exists"
    INCLUDES = "includes"  # of permissions and volumes; no manifest writes it

    @property
    def compares_numbers(self) -> bool:
        return self in _SIGNS

    @property
    def takes_values(self) -> bool:
        return self not in (Operator.EXISTS, Operator.NOT_EXISTS)


_SIGNS = {  # what the comparison of found with wanted may give: -1, 0, 1
    Operator.GREATER: (1,),
    Operator.AT_LEAST: (0, 1),
    Operator.LESS: (-1,),
    Operator.AT_MOST: (-1, 0),
}


@dataclass(frozen=True, slots=True)
class Constraint:
    """What must be so of an attribute.

    A label that a node lacks equals nothing, is in no list and is no number: only `!=`, `not in` and `not exists` hold.
    """

    attribute: str
    operator: Operator
    values: tuple[str, ...] = ()

    def holds(self, found: str | None) -> bool:
        match self.operator:
            case Operator.EXISTS | Operator.NOT_EXISTS:
                return (found is not None) is (self.operator is Operator.EXISTS)
            case Operator.EQUAL | Operator.IN:
                return found in self.values
            case Operator.NOT_EQUAL | Operator.NOT_IN:
                return found not in self.values
            case Operator.INCLUDES:
                return not lacking(self.values, (found or "").split(","))
            case _:
                there, wanted = number_of(found or ""), number_of(self.values[0])
                return there is not None and wanted is not None and compared(there, wanted) in _SIGNS[self.operator]

    def __str__(self) -> str:
        return " ".join(filter(None, (self.attribute, self.operator, ", ".join(self.values))))


def permission_constraint(permission: str) -> Constraint:
    """Return what must be so of a node where that is allowed."""
    return Constraint("node.attributes.allows", Operator.INCLUDES, (permission,))


def volume_constraint(volume: str) -> Constraint:
    """Return what must be so of the node that keeps the volume."""
    return Constraint("node.attributes.volumes", Operator.INCLUDES, (volume,))


def parse_constraint(text: str) -> Constraint:
    """Return the constraint.

    >>> parse_constraint("node.labels.disk == ssd").holds("hdd")
    False
    >>> parse_constraint("node.attributes.kernel >= 5.10").holds("6.1.0-26-amd64")
    True
    >>> str(parse_constraint("node.labels.zone not in a,b"))
    'node.labels.zone not in a, b'
    """
    match = _CONSTRAINT.fullmatch(text)
    if match is None:
        raise ValueError(f"'{text[:80]}' is not a constraint: write for example {_EXAMPLE} (with {_OPERATORS})")
    attribute, operator = parse_attribute(match[1]), Operator(" ".join(match[2].split()))
    return Constraint(attribute, operator, _values_of(text, operator, match[3]))


def _values_of(text: str, operator: Operator, given: str) -> tuple[str, ...]:
    shown = text[:80]
    if not operator.takes_values:
        if given:
            raise ValueError(f"'{shown}': nothing follows '{operator}'")
        return ()
    is_list = operator in (Operator.IN, Operator.NOT_IN)
    inner = given[1:-1] if is_list and given.startswith("[") and given.endswith("]") else given
    parts = [part.strip() for part in inner.split(",")] if is_list else [inner]
    values = tuple(_unquoted(part) for part in parts)
    if not all(0 < len(value) <= 128 for value in values):
        raise ValueError(f"'{shown}': a value of 1 to 128 characters must follow '{operator}'")
    if operator.compares_numbers and number_of(values[0]) is None:
        raise ValueError(f"'{shown}': '{operator}' compares numbers and versions, and '{values[0]}' begins with none")
    return values


def _unquoted(text: str) -> str:
    return text.strip("'\"")


def number_of(text: str) -> Number | None:
    """Return the number or version that the text begins with, part by part, or None.

    >>> number_of("5.10.0-26-amd64"), number_of("v1.7"), number_of("ssd")
    ((5, 10, 0), (1, 7), None)
    """
    match = _LEADING_NUMBERS.match(text)
    return tuple(int(part) for part in match[1].split(".")) if match else None


def compared(one: Number, other: Number) -> int:
    """Return -1, 0 or 1. Part by part, as versions are: 5.10 is above 5.4, and 5 is 5.0.

    >>> compared((5, 10), (5, 4)), compared((5,), (5, 0))
    (1, 0)
    """
    for a, b in zip_longest(one, other, fillvalue=0):
        if a != b:
            return 1 if a > b else -1
    return 0


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
