"""Reads changes of a node as they are typed: `disk=ssd`, `zone-`, `gpu=a100:noSchedule`. Pure."""

from collections.abc import Sequence
from typing import Any

from manifests.errors import UsageError

CHANGES = ("label", "annotate", "taint", "untaint")


def patch_of(action: str, words: Sequence[str]) -> dict[str, Any]:
    """Return the body of the call that makes the changes. Raises UsageError on a word that is none."""
    match action:
        case "label":
            return {"labels": dict(_pair(word, "disk=ssd, or disk- to remove it") for word in words)}
        case "annotate":
            return {"metadata": dict(_pair(word, "'owner=Ann, room 12', or owner- to remove it") for word in words)}
        case "taint":
            return {"addTaints": list(words)}
        case _:
            return {"removeTaints": list(words)}


def _pair(word: str, example: str) -> tuple[str, str | None]:
    key, equals, value = word.partition("=")
    if key and equals:
        return key, value
    if word.endswith("-") and word != "-":
        return word[:-1], None
    raise UsageError(f"'{word}' is no change", fix=f"Write {example}.")
