"""What operators send to change a node while it runs: its labels, taints and metadata, and how to drain it."""

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from manifests.base import Duration, LabelKey, Model, checked_label_value, checked_text
from manifests.taints import parse_taint, parse_taint_name

MOST_CHANGES = 64  # of each kind, in one call
MOST_TEXT = 4096  # characters of one entry of metadata


def _checked_label(value: object) -> object:
    return None if value is None else checked_label_value(value)


def _checked_note(text: str | None) -> str | None:
    if text is not None and len(text) > MOST_TEXT:
        raise ValueError(f"has {len(text)} characters: at most {MOST_TEXT} are kept")
    return None if text is None else checked_text(text)


def _checked_taint(text: str) -> str:
    return str(parse_taint(text))


def _checked_taint_name(text: str) -> str:
    parse_taint_name(text)
    return text


class NodePatch(Model):
    """Changes of one node, all made at once or none: null removes. Labels lie over those that its agent has."""

    labels: dict[LabelKey, Annotated[str | None, BeforeValidator(_checked_label)]] = Field(
        default_factory=dict, max_length=MOST_CHANGES
    )
    metadata: dict[LabelKey, Annotated[str | None, AfterValidator(_checked_note)]] = Field(
        default_factory=dict, max_length=MOST_CHANGES
    )
    add_taints: tuple[Annotated[str, AfterValidator(_checked_taint)], ...] = Field((), max_length=MOST_CHANGES)
    remove_taints: tuple[Annotated[str, AfterValidator(_checked_taint_name)], ...] = Field((), max_length=MOST_CHANGES)


class DrainRequest(Model):
    """How to drain a node; the last call counts, also where it names no deadline."""

    deadline_s: Duration | None = Field(None, alias="deadline", ge=0)  # then what is left is stopped
