"""What a model's fields are called, where they are and what may stand in them: for messages about manifests.

Walks pydantic's models by the paths of its errors, which also name the branches of unions; those are no fields.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo


@dataclass(frozen=True, slots=True)
class Field:
    """A type as written in a model, and what its model says it is for people."""

    annotation: Any
    description: str = ""


def branch_free(model: type[BaseModel], location: Sequence[str | int]) -> tuple[str | int, ...]:
    """Return pydantic's location without what names branches of unions; a bad key of a map ends with "[key]".

    What stands in the place of a key that no model knows is kept: it is an unknown field.
    """
    path: list[str | int] = []
    field: Field | None = Field(model)
    for part in location:
        if part == "[key]":
            path.append(part)
            break
        below = _below(field, part) if field is not None else None
        if below is None and field is not None and not _is_model(field.annotation):
            continue  # the branch of a union of plain values
        path.append(part)
        field = below
    return tuple(path)


def field_at(model: type[BaseModel], path: Sequence[str | int]) -> Field:
    """Return the field at a path; one of unknown type where the model has none there."""
    field = Field(model)
    for part in path:
        below = _below(field, part)
        if below is None:
            return Field(object)
        field = below
    return field


def known_fields(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """Return the names that a manifest can write at that path."""
    annotation = _bare(field_at(model, path).annotation)
    return [_name(n, i) for n, i in annotation.model_fields.items()] if _is_model(annotation) else []


def places_of(model: type[BaseModel], name: str) -> tuple[str | int, ...]:
    """Return the path of the first map, outermost first, in which a field of that name belongs; () where none is."""
    places = [path for path, field in _walk(model, ()) if field == name]
    return min(places, key=len, default=())


def _walk(model: type[BaseModel], path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    for name, info in model.model_fields.items():
        yield path, _name(name, info)
        inner = _bare(info.annotation)
        if get_origin(inner) is tuple:
            inner = _bare(get_args(inner)[0])
        if _is_model(inner):
            yield from _walk(inner, (*path, _name(name, info)))


def _below(field: Field, part: str | int) -> Field | None:
    annotation = _bare(field.annotation)
    arguments = get_args(annotation)
    if _is_model(annotation):
        return next((_field(i) for n, i in annotation.model_fields.items() if _name(n, i) == part), None)
    if get_origin(annotation) is dict:
        return _described(arguments[0 if part == "[key]" else 1])
    if get_origin(annotation) is tuple and isinstance(part, int):
        return _described(arguments[0])
    return None


def _field(info: FieldInfo) -> Field:
    return Field(info.annotation, info.description or _described(info.annotation).description)


def _described(annotation: Any) -> Field:
    """Return the field of an annotation, with the description that stands in its metadata."""
    if get_origin(annotation) is Annotated:
        texts = [m.description for m in get_args(annotation)[1:] if isinstance(m, FieldInfo) and m.description]
        return Field(annotation, texts[0] if texts else "")
    return Field(annotation)


def _bare(annotation: Any) -> Any:
    """Return the annotation without metadata, and without None where that leaves one type."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        members = [m for m in get_args(annotation) if m is not type(None)]
        return _bare(members[0]) if len(members) == 1 else annotation
    return annotation


def _is_model(annotation: Any) -> bool:
    bare = _bare(annotation)
    return isinstance(bare, type) and issubclass(bare, BaseModel)


def _name(name: str, info: FieldInfo) -> str:
    return info.alias or name
