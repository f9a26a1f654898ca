"""`wherry rebalance`: the fewest moves that free nodes, even out or make room, told and then made."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from manifests.errors import UsageError
from wherry.cli.arguments import add_connection, add_namespace, transport_of, whole_number
from wherry.cli.kinds import Workload, read_workload
from wherry.cli.rebalance_text import proposal_lines
from wherry.cli.text import plural, say

WOULD_CHANGE = 6
TIMEOUT_S = 120.0
NOTES = f"""  wherry rebalance --dry-run
  wherry rebalance --goal spread --yes
  wherry rebalance --for service/db --max-moves 5
  wherry rebalance --dry-run --snapshot monday.snapshot
  wherry rebalance --cancel

It tells the moves, and asks before it has them made. Only services that are at rest are moved, each by its own update
rules; daemons and jobs stay. The exit code is 0 whether there is anything to move or not; with --exit-code it is
{WOULD_CHANGE} if there is."""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="only tell what would be moved")
    parser.add_argument("--yes", action="store_true", help="have the moves made without asking")
    parser.add_argument("--cancel", action="store_true", help="take back the moves that are left")
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
    if arguments.cancel:
        transport_of(arguments).delete("/v1/moves")
        print("The moves that were left are taken back.")
        return 0
    _check(arguments)
    workload = read_workload([arguments.room_for], arguments.namespace) if arguments.room_for else None
    answer = _proposal(arguments, _aim(arguments, workload))
    if arguments.output == "json":
        import json

        print(json.dumps(answer, indent=2, ensure_ascii=True))
    else:
        print("\n".join(proposal_lines(answer, workload)))
    if answer.get("moves") and not arguments.dry_run and (arguments.yes or _agreed()):
        _order(arguments, answer)
    return WOULD_CHANGE if arguments.exit_code and answer.get("moves") else 0


def _check(arguments: Namespace) -> None:
    if arguments.snapshot and arguments.at_revision is not None:
        raise UsageError("a snapshot is of one revision", fix="Leave out --at-revision, or --snapshot.")
    if not arguments.dry_run and (arguments.snapshot or arguments.at_revision is not None):
        raise UsageError("what was can't be changed", fix="Add --dry-run.")
    if not (arguments.dry_run or arguments.yes or sys.stdin.isatty()):
        raise UsageError("nobody is there to be asked", fix="Add --yes to have the moves made, or --dry-run.")
    if arguments.max_moves == 0:
        raise UsageError("no moves at all are nothing to tell", fix="Give --max-moves 1 or more.")


def _agreed() -> bool:
    print("Make these moves? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _order(arguments: Namespace, answer: dict[str, Any]) -> None:
    """Have just what was told carried out, or nothing if it doesn't hold any more."""
    moves = [{part: move[part] for part in ("allocation", "from", "to", "why")} for move in answer["moves"]]
    transport_of(arguments).post("/v1/moves", {"revision": answer["revision"], "moves": moves})
    say(f"{plural(len(moves), 'move')} ordered: follow them with `wherry events --watch`.")


def _proposal(arguments: Namespace, aim: dict[str, Any]) -> dict[str, Any]:
    if arguments.snapshot:
        return _offline(arguments.snapshot, aim)
    body = {**aim, "dryRun": True}
    if arguments.at_revision is not None:
        body["atRevision"] = arguments.at_revision
    answer: dict[str, Any] = transport_of(arguments).post("/v1/rebalance", body, timeout_s=TIMEOUT_S)
    return answer


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
