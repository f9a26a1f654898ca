"""`wherry rebalance`: the fewest moves that free nodes, even out or make room; nothing is changed."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from manifests.errors import UsageError
from wherry.cli.arguments import add_connection, add_namespace, transport_of, whole_number
from wherry.cli.kinds import Workload, read_workload
from wherry.cli.rebalance_text import proposal_lines

WOULD_CHANGE = 6
TIMEOUT_S = 120.0
NOTES = f"""  wherry rebalance --dry-run
  wherry rebalance --dry-run --goal spread
  wherry rebalance --dry-run --for service/db --max-moves 5
  wherry rebalance --dry-run --snapshot monday.snapshot

Only services that are at rest are moved; daemons and jobs stay. Nothing is changed. The exit code is 0 whether there is
anything to move or not; with --exit-code it is {WOULD_CHANGE} if there is."""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="tell what would be moved; nothing else is done yet")
    parser.add_argument(
        "--goal",
        choices=("pack", "spread"),
        default="pack",
        help="pack: free whole nodes (the default); spread: even out what is to be spread",
    )
    parser.add_argument("--for", dest="room_for", metavar="KIND/NAME", help="make room for it, which has none")
    parser.add_argument("--max-moves", type=whole_number, metavar="N", help="at most so many moves (default: 20)")
    parser.add_argument("--exit-code", action="store_true", help=f"exit with {WOULD_CHANGE} if anything would be moved")
    parser.add_argument("--at-revision", type=whole_number, metavar="R", help="on the cluster as it was then")
    parser.add_argument("--snapshot", type=Path, metavar="FILE", help="on what `wherry snapshot save` wrote")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    add_namespace(parser)
    add_connection(parser)


def run(arguments: Namespace) -> int:
    if not arguments.dry_run:
        raise UsageError("only a dry run can be made", fix="Add --dry-run.")
    if arguments.snapshot and arguments.at_revision is not None:
        raise UsageError("a snapshot is of one revision", fix="Leave out --at-revision, or --snapshot.")
    if arguments.max_moves == 0:
        raise UsageError("no moves at all are nothing to tell", fix="Give --max-moves 1 or more.")
    workload = read_workload([arguments.room_for], arguments.namespace) if arguments.room_for else None
    aim = _aim(arguments, workload)
    if arguments.snapshot:
        answer = _offline(arguments.snapshot, aim)
    else:
        body = {**aim, "dryRun": True}
        if arguments.at_revision is not None:
            body["atRevision"] = arguments.at_revision
        answer = transport_of(arguments).post("/v1/rebalance", body, timeout_s=TIMEOUT_S)
    if arguments.output == "json":
        import json

        print(json.dumps(answer, indent=2, ensure_ascii=True))
    else:
        print("\n".join(proposal_lines(answer, workload)))
    return WOULD_CHANGE if arguments.exit_code and answer.get("moves") else 0


def _aim(arguments: Namespace, workload: Workload | None) -> dict[str, Any]:
    aim: dict[str, Any] = {"goal": arguments.goal}
    if workload is not None:
        kind = {"cronjob": "CronJob"}.get(workload.kind, workload.kind.capitalize())
        aim["for"] = {"namespace": workload.namespace, "kind": kind, "name": workload.name}
    if arguments.max_moves is not None:
        aim["maxMoves"] = arguments.max_moves
    return aim


def _offline(file: Path, aim: dict[str, Any]) -> dict[str, Any]:
    """Look in this process at what is in the file."""
    from control_plane.api.bodies import model_of
    from control_plane.rehearsal.answer import fork_of_snapshot
    from control_plane.rehearsal.proposal import Aim, proposed, view_of
    from foundation.clock import SystemClock
    from wherry.cli.commands.snapshot import read_snapshot

    fork, asked = fork_of_snapshot(read_snapshot(file), SystemClock().wall_s()), model_of(aim, Aim)
    return view_of(proposed(fork, asked), fork, asked)
