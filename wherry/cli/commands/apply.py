"""`wherry apply`: all manifests are checked here, sent as one request, and each answer told in a line."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from manifests.errors import InvalidError
from wherry.cli.arguments import add_connection, add_wait, transport_of
from wherry.cli.lookup import workload_of
from wherry.cli.text import clean, if_stopped
from wherry.cli.transport import RefusedDocumentsError, Transport

MOST_CHANGES_SHOWN = 6
MOST_VALUE_SHOWN = 60
APPLY_TIMEOUT_S = 60.0
NOTES = """  wherry apply -f web.yaml -f jobs/ --dry-run"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "-f",
        "--file",
        action="append",
        required=True,
        metavar="FILE|DIR|-",
        help="manifests; a directory's *.yaml and *.yml; - for standard input; may be repeated",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would change, and change nothing")
    add_wait(parser, "all of them are healthy or complete")
    add_connection(parser)


def run(arguments: Namespace) -> int:
    transport = transport_of(arguments)
    documents, places = _load(arguments.file)
    answer = _send(transport, documents, places, is_dry=arguments.dry_run)
    for result in answer["results"]:
        print(result_line(result, is_dry=arguments.dry_run), flush=True)
    if not arguments.wait or arguments.dry_run:
        return 0
    from wherry.cli.waiting import wait_until_well

    workloads = [workload_of(result) for result in answer["results"] if result.get("kind") != "Config"]
    with if_stopped("What was applied stays, and the cluster goes on with it."):
        wait_until_well(transport, workloads, int(answer["revision"]), arguments.timeout)
    return 0


def result_line(result: Mapping[str, Any], *, is_dry: bool = False) -> str:
    """Return what became of one manifest: `service/web changed (version 2: spec.image a -> b)`."""
    action = clean(result.get("action"))
    verb = f"would be {action}" if is_dry and action != "unchanged" else action
    if action == "unchanged":
        return f"{workload_of(result)} {verb}"
    changes = [change_text(change) for change in result.get("changes") or []]
    more = len(changes) - MOST_CHANGES_SHOWN
    told = ", ".join(changes[:MOST_CHANGES_SHOWN]) + (f", and {more} more" if more > 0 else "")
    version = f"version {result.get('version')}" if result.get("makesVersion") or action == "created" else ""
    detail = told if action != "created" else ""
    inside = ": ".join(part for part in (version, detail) if part)
    return f"{workload_of(result)} {verb}" + (f" ({inside})" if inside else "")


def change_text(change: Mapping[str, Any]) -> str:
    return f"{clean(change.get('path'))} {_value(change.get('old'))} -> {_value(change.get('new'))}"


def _value(value: object) -> str:
    if value is None:
        return "none"
    text = clean(value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=True))
    return text if len(text) <= MOST_VALUE_SHOWN else text[: MOST_VALUE_SHOWN - 1] + "…"


def _load(paths: Sequence[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the manifests of all files, and where each stands. Raises InvalidError with every problem."""
    from manifests.yaml_loader import load_files

    loaded = load_files(paths)
    if not loaded:
        raise InvalidError(f"there are no manifests in {', '.join(paths)}")
    return [one.manifest.model_dump(mode="json", exclude_none=True) for one in loaded], [one.where for one in loaded]


def _send(
    transport: Transport, documents: list[dict[str, Any]], places: Sequence[str], *, is_dry: bool
) -> dict[str, Any]:
    body = {"documents": documents, "dryRun": is_dry}
    try:
        answer: dict[str, Any] = transport.post("/v1/apply", body, timeout_s=APPLY_TIMEOUT_S)
    except RefusedDocumentsError as error:
        if not error.refused:
            raise
        lines = [f"  {places[p.document]}: {p.path}: {p.message}" for p in error.refused if p.document < len(places)]
        raise InvalidError("\n".join([error.what, *lines]), fix=error.fix) from None
    return answer
