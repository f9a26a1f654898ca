"""Manifests from files for what is sent to the server: `apply`, `plan` and `simulate` read them alike."""

from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from manifests.errors import InvalidError
from wherry.cli.transport import RefusedDocumentsError

if TYPE_CHECKING:
    from manifests.yaml_loader import Loaded


def add_files(parser: ArgumentParser, *, is_required: bool) -> None:
    parser.add_argument(
        "-f",
        "--file",
        action="append",
        required=is_required,
        default=None if is_required else [],
        metavar="FILE|DIR|-",
        help="manifests; a directory's *.yaml and *.yml; - for standard input; may be repeated",
    )


def loaded_from(paths: Sequence[str]) -> "list[Loaded]":
    """Return the manifests of all files, and where each stands. Raises InvalidError with every problem."""
    from manifests.yaml_loader import load_files

    loaded = load_files(paths)
    if not loaded:
        raise InvalidError(f"there are no manifests in {', '.join(paths)}")
    return loaded


def documents_of(loaded: "Sequence[Loaded]") -> list[dict[str, Any]]:
    return [one.manifest.model_dump(mode="json", exclude_none=True) for one in loaded]


@contextmanager
def naming_places(places: Sequence[str]) -> Iterator[None]:
    """Say of what the server refuses in the block where it stands in the files."""
    try:
        yield
    except RefusedDocumentsError as error:
        if not error.refused:
            raise
        lines = [f"  {places[p.document]}: {p.path}: {p.message}" for p in error.refused if p.document < len(places)]
        raise InvalidError("\n".join([error.what, *lines]), fix=error.fix) from None
