"""`wherry apply`: all manifests are checked here, sent as one request, and each answer told in a line."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from typing import Any

from manifests.errors import UsageError
from wherry.cli.arguments import add_connection, add_wait, transport_of
from wherry.cli.kinds import WORKLOAD_KINDS
from wherry.cli.loading import add_files, documents_of, loaded_from, naming_places
from wherry.cli.lookup import workload_of
from wherry.cli.text import clean, if_stopped
from wherry.cli.transport import Transport

MOST_CHANGES_SHOWN = 6
MOST_VALUE_SHOWN = 60
APPLY_TIMEOUT_S = 60.0
NOTES = """  wherry apply -f web.yaml -f jobs/ --dry-run
  wherry apply --plan web.plan"""


def add_arguments(parser: ArgumentParser) -> None:
    add_files(parser, is_required=False)
    parser.add_argument("--plan", metavar="FILE", help="carry out what `wherry plan -o json` wrote, if it still holds")
    parser.add_argument("--dry-run", action="store_true", help="say what would change, and change nothing")
    add_wait(parser, "all of them are healthy or complete")
    add_connection(parser)


def run(arguments: Namespace) -> int:
    if bool(arguments.file) == bool(arguments.plan):
        raise UsageError(
            "apply needs either -f/--file or --plan", fix="Give manifests with -f FILE, or a plan with --plan FILE."
        )
    transport = transport_of(arguments)
    answer = _send(transport, arguments)
    for result in answer["results"]:
        print(result_line(result, is_dry=arguments.dry_run), flush=True)
    if not arguments.wait or arguments.dry_run:
        return 0
    from wherry.cli.waiting import wait_until_well

    workloads = [one for result in answer["results"] if (one := workload_of(result)).kind in WORKLOAD_KINDS.values()]
    with if_stopped("What was applied stays, and the cluster goes on with it."):
        wait_until_well(transport, workloads, int(answer["revision"]), arguments.timeout)
    return 0


def _send(transport: Transport, arguments: Namespace) -> dict[str, Any]:
    if arguments.plan:
        from wherry.cli.plan_files import read_plan

        body: dict[str, Any] = read_plan(arguments.plan)
        places = [f"document {number + 1} of {arguments.plan}" for number in range(len(body["documents"]))]
    else:
        loaded = loaded_from(arguments.file)
        body, places = {"documents": documents_of(loaded)}, [one.where for one in loaded]
    with naming_places(places):
        answer: dict[str, Any] = transport.post(
            "/v1/apply", body | {"dryRun": arguments.dry_run}, timeout_s=APPLY_TIMEOUT_S
        )
    return answer


def result_line(result: Mapping[str, Any], *, is_dry: bool = False) -> str:
    """Return what became of one manifest: `service/web changed (version 2: spec.image a -> b)`."""
    action = clean(result.get("action"))
    verb = f"would be {action}" if is_dry and action != "unchanged" else action
    if action == "unchanged":
        return f"{workload_of(result)} {verb}"
    changes = [change_text(change) for change in result.get("changes") or []]
    more = len(changes) - MOST_CHANGES_SHOWN
    told = ", ".join(changes[:MOST_CHANGES_SHOWN]) + (f", and {more} more" if more > 0 else "")
    is_versioned = result.get("makesVersion") or (action == "created" and result.get("version"))
    version = f"version {result.get('version')}" if is_versioned else ""
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
