"""`wherry plan`: what applying manifests would do, rehearsed by a server with the code that would do it."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from typing import Any

from wherry.cli.arguments import add_connection, transport_of
from wherry.cli.commands.apply import change_text, result_line
from wherry.cli.loading import add_files, documents_of, loaded_from, naming_places
from wherry.cli.rehearsal_text import outcome_lines
from wherry.cli.text import clean

WOULD_CHANGE = 6
TIMEOUT_S = 120.0
NOTES = f"""  wherry plan -f web.yaml -o json > web.plan && wherry apply --plan web.plan

Nothing is changed. The exit code is 0 whether anything would change or not; with --exit-code it is {WOULD_CHANGE} if
anything would: the spec of something, or where something runs. That something would stay blocked is told, and is no
failure."""


def add_arguments(parser: ArgumentParser) -> None:
    add_files(parser, is_required=True)
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="json: also for apply --plan")
    parser.add_argument("--exit-code", action="store_true", help=f"exit with {WOULD_CHANGE} if anything would change")
    add_connection(parser)


def run(arguments: Namespace) -> int:
    loaded = loaded_from(arguments.file)
    documents = documents_of(loaded)
    with naming_places([one.where for one in loaded]):
        answer = transport_of(arguments).post("/v1/rehearse", {"documents": documents}, timeout_s=TIMEOUT_S)
    if arguments.output == "json":
        from wherry.cli.plan_files import plan_file

        print(plan_file(documents, answer))
    else:
        print("\n".join([*(line for r in answer["results"] for line in result_lines(r)), *outcome_lines(answer)]))
    return WOULD_CHANGE if arguments.exit_code and _would_change(answer) else 0


def result_lines(result: Mapping[str, Any]) -> list[str]:
    """Return what becomes of one manifest, and each field that changes in a line of its own."""
    first = result_line({**result, "changes": []}, is_dry=True)
    return [first, *(f"  {change_text(change)}" for change in result.get("changes") or [])]


def _would_change(answer: Mapping[str, Any]) -> bool:
    is_changed = any(clean(r.get("action")) != "unchanged" for r in answer["results"])
    return is_changed or bool(answer.get("placements"))
