"""Prints what the API shows as manifests, which can be edited and applied again."""

from collections.abc import Mapping, Sequence
from typing import Any


def print_yaml(items: Sequence[Mapping[str, Any]]) -> None:
    import yaml  # only where it is asked for: it takes long to load

    documents = [_without_nulls(item.get("manifest", item)) for item in items]
    if documents:
        print(yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=False), end="")


def _without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value
