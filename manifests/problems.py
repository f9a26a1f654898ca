"""What is wrong with a manifest, field by field, in the manifest's words.

Pydantic finds the faults; here its findings become sentences that people understand, with the nearest known field
where one is misspelt. Shared by the YAML loader, which adds lines, and by the server for JSON bodies.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeAlias

from pydantic import BaseModel, ValidationError

from manifests.base import FieldError
from manifests.fields import Field, branch_free, field_at, known_fields, places_of
from manifests.quantities import render_duration

Path: TypeAlias = tuple[str | int, ...]
MOST_LISTED = 50
MOST_FAULTS = 100  # of one document: looking for near words is slow
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_MOST_SHOWN = 40


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of one document. `path` is dotted, as in `spec.ports[0].container`; "" is the whole document."""

    document: int  # from 0
    path: str
    message: str
    line: int = 0  # from 1; 0 where there are no lines, as in a JSON body
    source: str = ""  # the file

    def __str__(self) -> str:
        place = f"{self.source}:{self.line}: " if self.line else f"{self.source}: " if self.source else ""
        return f"{place}{self.path}: {self.message}" if self.path else f"{place}{self.message}"


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault at a path of a document's value, before it is known in which file and line that is."""

    path: Path
    message: str
    at_key: bool = False  # the field itself is wrong, not its value

    def problem(self, document: int = 0) -> Problem:
        return Problem(document, dotted(self.path), self.message)


def problems_of(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """Return what the validation found, in plain sentences. For JSON bodies; documents in files get lines as well."""
    return [fault.problem() for fault in faults_of(error, model)]


def listing(problems: Sequence[Problem]) -> str:
    """Return the problems one a line, and how many more there are when there are very many.

    >>> print(listing([Problem(0, "spec.replica", "unknown field", line=7, source="web.yaml")]))
    web.yaml:7: spec.replica: unknown field
    """
    lines = [str(problem) for problem in problems[:MOST_LISTED]]
    rest = len(problems) - MOST_LISTED
    return "\n".join([*lines, f"… and {rest} more"] if rest > 0 else lines)


def counted(problems: Sequence[Problem]) -> str:
    return "1 problem" if len(problems) == 1 else f"{len(problems)} problems"


def faults_of(error: ValidationError, model: type[BaseModel]) -> list[Fault]:
    """Return one fault for each path that the validation complains of, up to MOST_FAULTS of them."""
    by_path: dict[Path, list[Any]] = {}
    for detail in error.errors(include_url=False):
        by_path.setdefault(branch_free(model, detail["loc"]), []).append(detail)
    faults = [_fault(model, path, details) for path, details in islice(by_path.items(), MOST_FAULTS)]
    rest = len(by_path) - MOST_FAULTS
    return [*faults, Fault((), f"has {rest} more problems")] if rest > 0 else faults


def dotted(path: Path) -> str:
    """Return the path as people write it.

    >>> dotted(("spec", "ports", 0, "container")), dotted(("metadata", "labels", "a.b/c"))
    ('spec.ports[0].container', "metadata.labels['a.b/c']")
    """
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN_KEY.fullmatch(part):
            text += f".{part}" if text else part
        else:
            text += f"['{_printable(part)}']"
    return text


def found(value: object) -> str:
    """Return how a message names a value that was found.

    >>> found("three"), found(True), found(3), found([1]), found(None)
    ("'three'", 'true', '3', 'a list', 'nothing')
    """
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"'{_printable(value)}'"
    if isinstance(value, Mapping):
        return "a map of fields"
    return "a list" if isinstance(value, Sequence) else _printable(str(value))


def nearest(word: str, known: Sequence[str]) -> str | None:
    """Return the known word that was most likely meant, if any is near.

    >>> nearest("replica", ["replicas", "image"]), nearest("Image", ["replicas", "image"])
    ('replicas', 'image')
    """
    by_lower = {k.lower(): k for k in known}
    near = difflib.get_close_matches(word[:64].lower().replace("_", ""), by_lower, n=1, cutoff=0.7)
    return by_lower[near[0]] if near else None


def _fault(model: type[BaseModel], path: Path, details: list[Any]) -> Fault:
    """Return the fault at a path; several details are the branches of a union, none of which fits."""
    detail = details[0]
    if detail["type"] == "extra_forbidden":
        return Fault(path, _unknown_field(model, path), at_key=True)
    if path and path[-1] == "[key]":
        key = field_at(model, (*path[:-2], "[key]"))
        return Fault(path[:-1], _sentence(detail, key), at_key=True)
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, FieldError):
        return Fault((*path, *cause.path), str(cause))
    field = field_at(model, path)
    if len(details) > 1 and field.description:
        return Fault(path, f"must be {field.description}; found {found(detail['input'])}")
    return Fault(path, _sentence(detail, field))


def _unknown_field(model: type[BaseModel], path: Path) -> str:
    name = str(path[-1])
    known = known_fields(model, path[:-1])
    near = nearest(name, known)
    if near:
        return f"unknown field; did you mean '{near}'?"
    elsewhere = places_of(model, name)
    if elsewhere:
        return f"unknown field here; it belongs in {dotted(elsewhere)}"
    return f"unknown field; the fields here are: {', '.join(known)}"


def _sentence(detail: Any, field: Field) -> str:
    """Return the finding in plain words."""
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind in _WANTED:
        return _wanted(_WANTED[kind], value)
    match kind:
        case "missing":
            return "is missing"
        case "value_error":
            return str(context["error"])
        case "greater_than_equal":
            return f"must be at least {_amount(value, context['ge'])}; found {_amount(value, value)}"
        case "less_than_equal":
            return f"must be at most {_amount(value, context['le'])}; found {_amount(value, value)}"
        case "literal_error" | "enum":
            return _one_of(context["expected"], value)
        case "string_pattern_mismatch":
            return f"must be {field.description or 'of another form'}; found {found(value)}"
        case "too_long":
            return f"has {context['actual_length']} entries; the most is {context['max_length']}"
        case "string_too_long":
            return f"has {len(value)} characters; the most is {context['max_length']}"
        case "too_short" | "string_too_short":
            return "must not be empty"
        case _:
            message: str = detail["msg"]
            return message[:1].lower() + message[1:]


_WANTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a map of names and values",
    "mapping_type": "a map of names and values",
    "model_type": "a map of fields",
    "model_attributes_type": "a map of fields",
    "dataclass_type": "a map of fields",
}


def _wanted(wanted: str, value: object) -> str:
    if value is None:
        return f"has no value: write {wanted} after it, or leave the field out"
    text = f"must be {wanted}; found {found(value)}"
    if wanted == "text" and isinstance(value, bool | int | float):
        return f"{text}: put it in quotes"
    if wanted == "a list" and isinstance(value, str | int | float):
        return f"{text}: write [{_printable(str(value))}]"
    if wanted == "a whole number" and isinstance(value, str) and value.isdecimal():
        return f"{text}: write it without quotes"
    return text


def _one_of(expected: str, value: object) -> str:
    """Return the sentence for a closed set; pydantic gives it as "'a', 'b' or 'c'"."""
    known = re.findall(r"'([^']*)'", expected)
    near = nearest(value, known) if isinstance(value, str) else None
    hint = f"; did you mean '{near}'?" if near else ""
    return f"must be {expected}; found {found(value)}{hint}"


def _amount(value: object, amount: object) -> str:
    """Return a bound or a value; where the value is a float, it was written as a duration."""
    return render_duration(float(str(amount))) if isinstance(value, float) else str(amount)


def _printable(text: str) -> str:
    cut = text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in cut)
