"""`wherry simulate`: what would follow if nodes were lost, drained or added, on a live cluster or a snapshot's file."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manifests.errors import UsageError
from wherry.cli.arguments import add_connection, transport_of, whole_number
from wherry.cli.loading import add_files, documents_of, loaded_from, naming_places
from wherry.cli.rehearsal_text import misfits, outcome_lines, room_line
from wherry.cli.text import say

if TYPE_CHECKING:
    from manifests.yaml_loader import Loaded

TIMEOUT_S = 120.0
DOES_NOT_FIT = 1
NOTES = f"""  wherry simulate --lose n1 --lose n2
  wherry simulate --drain zone=a
  wherry simulate --add 2x4cpu/8Gi,zone=b -f more.yaml
  wherry simulate --snapshot monday.snapshot --lose n1

Nothing is changed. The leader's own decisions are made on a copy of the cluster, with nodes that do at once what they
are told. The exit code is {DOES_NOT_FIT} if something that runs now would have no place any more. With --snapshot no
cluster is asked."""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--lose", action="append", default=[], metavar="NODE", help="as if it were lost for good")
    parser.add_argument(
        "--drain",
        action="append",
        default=[],
        metavar="NODE|LABEL=VALUE",
        help="as if it, or they, were drained",
    )
    parser.add_argument(
        "--add",
        action="append",
        default=[],
        metavar="2x4cpu/8Gi[,LABEL=VALUE]",
        help="as if there were such nodes too",
    )
    add_files(parser, is_required=False)
    parser.add_argument("--at-revision", type=whole_number, metavar="R", help="on the cluster as it was then")
    parser.add_argument("--snapshot", type=Path, metavar="FILE", help="on what `wherry snapshot save` wrote")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    add_connection(parser)


def run(arguments: Namespace) -> int:
    if arguments.snapshot and arguments.at_revision is not None:
        raise UsageError("a snapshot is of one revision", fix="Leave out --at-revision, or --snapshot.")
    loaded = loaded_from(arguments.file) if arguments.file else []
    answer = _offline(arguments, loaded) if arguments.snapshot else _asked(arguments, loaded)
    if arguments.output == "json":
        import json

        print(json.dumps(answer, indent=2, ensure_ascii=True))
    else:
        print("\n".join([*outcome_lines(answer), room_line(answer)]))
    if homeless := misfits(answer):
        say(f"What runs now of {', '.join(homeless)} would not fit any more.")
        return DOES_NOT_FIT
    return 0


def _asked(arguments: Namespace, loaded: "Sequence[Loaded]") -> dict[str, Any]:
    body: dict[str, Any] = {"lose": arguments.lose, "drain": arguments.drain, "add": arguments.add}
    if loaded:
        body["documents"] = documents_of(loaded)
    if arguments.at_revision is not None:
        body["atRevision"] = arguments.at_revision
    with naming_places([one.where for one in loaded]):
        answer: dict[str, Any] = transport_of(arguments).post("/v1/rehearse", body, timeout_s=TIMEOUT_S)
    return answer


def _offline(arguments: Namespace, loaded: "Sequence[Loaded]") -> dict[str, Any]:
    """Rehearse in this process what is in the file."""
    import asyncio

    from control_plane.rehearsal.answer import answered, fork_of_snapshot, prepared
    from control_plane.rehearsal.question import Question
    from control_plane.rehearsal.views import answer as view_of
    from foundation.clock import SystemClock
    from wherry.cli.commands.snapshot import read_snapshot

    snapshot = read_snapshot(arguments.snapshot)
    question = Question(arguments.lose, arguments.drain, arguments.add)

    async def rehearsed() -> dict[str, Any]:
        fork = fork_of_snapshot(snapshot, SystemClock().wall_s())
        return view_of(answered(*await prepared(fork, question, [one.manifest for one in loaded])))

    return asyncio.run(rehearsed())
