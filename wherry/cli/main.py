"""The entry point of `wherry`: finds the command, runs it, and turns what goes wrong into words and an exit code.

A command's module is imported only when it is called for, so that the fast ones stay fast.
"""

import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple

from manifests.errors import UsageError, WherryError
from wherry.cli.kinds import did_you_mean

INTERRUPTED = 130


class Command(NamedTuple):
    module: str
    summary: str
    example: str


COMMANDS = {
    "dev": Command("wherry.cli.dev", "run a whole cluster on this machine", "wherry dev --nodes 3"),
    "apply": Command(
        "wherry.cli.commands.apply", "make the cluster run what manifests say", "wherry apply -f web.yaml --wait"
    ),
    "plan": Command(
        "wherry.cli.commands.plan",
        "tell what applying manifests would do",
        "wherry plan -f web.yaml",
    ),
    "simulate": Command(
        "wherry.cli.commands.simulate",
        "tell what would follow if nodes were lost, drained or added",
        "wherry simulate --lose n1",
    ),
    "rebalance": Command(
        "wherry.cli.commands.rebalance",
        "tell move the fewest that free nodes, even out or make room",
        "wherry rebalance --dry-run",
    ),
    "get": Command("wherry.cli.commands.get", "list nodes, workloads, allocations or events", "wherry get services"),
    "describe": Command(
        "wherry.cli.commands.describe", "tell everything about one thing, and why", "wherry describe service web"
    ),
    "explain": Command(
        "wherry.cli.commands.explain", "tell why it is there, why not elsewhere, and what helps", "wherry explain web"
    ),
    "events": Command(
        "wherry.cli.commands.events", "tell what happened, why and by whom", "wherry events --for service/web"
    ),
    "logs": Command("wherry.cli.commands.logs", "show what containers wrote", "wherry logs service/web -f"),
    "exec": Command("wherry.cli.commands.exec", "run a command in a container", "wherry exec web-0-1f3a9c2e -it -- sh"),
    "cp": Command(
        "wherry.cli.commands.cp", "copy files out of containers and into them", "wherry cp web-0-1f3a9c2e:/etc/hosts ."
    ),
    "port-forward": Command(
        "wherry.cli.commands.port_forward",
        "reach a container's port from here",
        "wherry port-forward web-0-1f3a9c2e 8080:80",
    ),
    "inspect": Command(
        "wherry.cli.commands.inspect",
        "show what an allocation is made of, down to the kernel",
        "wherry inspect --layers service/web",
    ),
    "top": Command("wherry.cli.commands.top", "show what allocations and nodes use now", "wherry top service/web"),
    "scale": Command("wherry.cli.commands.scale", "run more or fewer of a service", "wherry scale service/web 5"),
    "run": Command("wherry.cli.commands.run", "start a job of a cronjob now", "wherry run cronjob/backup --wait"),
    "wait": Command(
        "wherry.cli.commands.wait", "wait until something is as it should be", "wherry wait service/web --for healthy"
    ),
    "rollout": Command(
        "wherry.cli.commands.rollout", "follow, undo, pause or promote a change", "wherry rollout status service/web"
    ),
    "restart": Command(
        "wherry.cli.commands.restart", "replace every allocation, by and by", "wherry restart service/web --wait"
    ),
    "delete": Command("wherry.cli.commands.delete", "stop workloads and forget them", "wherry delete service web"),
    "node": Command(
        "wherry.cli.commands.node", "drain, cordon, label, taint or forget a node", "wherry node drain n1 --wait"
    ),
    "freeze": Command(
        "wherry.cli.commands.freeze", "leave everything as it is for a while", 'wherry freeze --reason "new switch"'
    ),
    "unfreeze": Command("wherry.cli.commands.unfreeze", "end a freeze", "wherry unfreeze"),
    "snapshot": Command(
        "wherry.cli.commands.snapshot", "save all that the cluster knows, or restore it", "wherry snapshot save FILE"
    ),
    "server": Command(
        "wherry.cli.commands.server", "run a control-plane server", "wherry server --data-dir /var/lib/wherry/server"
    ),
    "agent": Command(
        "wherry.cli.commands.agent", "run the agent of this host", "wherry agent --server http://10.0.0.1:7400"
    ),
    "version": Command(
        "wherry.cli.commands.version", "tell the version of this command and of the server", "wherry version"
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Results are on standard output, all else on standard error."""
    try:
        code = _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except WherryError as error:
        print(_words_of(error), file=sys.stderr)
        return error.exit_code
    except BaseExceptionGroup as group:  # a daemon's task group
        _, other = group.split(WherryError)
        if other is not None:
            raise
        first = _first_of(group)
        print(_words_of(first), file=sys.stderr)
        return first.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read us has seen enough. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as full:
        if full.errno != errno.ENOSPC:
            raise
        print(_words_of(WherryError("cannot write the result", why="no space is left there")), file=sys.stderr)
        os._exit(1)  # Python would try, and fail, to write the rest at exit
    return code


def _first_of(group: BaseExceptionGroup[BaseException]) -> WherryError:
    first = group.exceptions[0]
    if isinstance(first, BaseExceptionGroup):
        return _first_of(first)
    assert isinstance(first, WherryError)
    return first


def _run(argv: list[str]) -> int:
    words = _command_first(argv)
    if not words or words[0] in ("-h", "--help", "help"):
        if len(words) > 1 and words[0] == "help":
            return _run([words[1], "--help"])
        print(_help())
        return 0
    name, rest = words[0], words[1:]
    if name in ("--version", "-V"):
        name = "version"
    if name.startswith("-"):
        raise UsageError(f"'{name}' stands before any command", fix="Run `wherry --help` for the commands.")
    command = COMMANDS.get(name)
    if command is None:
        raise UsageError(
            f"there is no command '{name}'{did_you_mean(name, COMMANDS)}", fix="Run `wherry` for the commands."
        )
    return _call(name, command, rest)


def _call(name: str, command: Command, rest: list[str]) -> int:
    from argparse import RawDescriptionHelpFormatter

    from wherry.cli.arguments import Parser

    module = import_module(command.module)
    parser = Parser(
        prog=f"wherry {name}",
        description=f"{command.summary[0].upper()}{command.summary[1:]}.",
        epilog=f"example:\n  {command.example}\n{getattr(module, 'NOTES', '')}",
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    try:
        # What stands behind `--` is a command's own words, which argparse would take apart.
        own = rest[: rest.index("--")] if getattr(module, "TAKES_COMMAND", False) and "--" in rest else rest
        arguments = parser.parse_intermixed_args(own)
        arguments.command = rest[len(own) + 1 :]
    except SystemExit as stop:  # --help
        return int(stop.code or 0)
    return int(module.run(arguments))


def _command_first(argv: list[str]) -> list[str]:
    """Return the words with the connection's flags, if any stand before the command, moved behind it."""
    from wherry.cli.arguments import CONNECTION_FLAGS

    leading: list[str] = []
    rest = argv
    while rest and rest[0].partition("=")[0] in CONNECTION_FLAGS:
        taken = 1 if "=" in rest[0] else 2
        leading, rest = leading + rest[:taken], rest[taken:]
    return rest[:1] + leading + rest[1:] if leading else argv


def _words_of(error: WherryError) -> str:
    from wherry.cli.text import clean, style_of

    style = style_of(sys.stderr)
    lines = [clean_line for line in _lines_of(error) if (clean_line := _cleaned(line, clean(line)))]
    return style.paint("error: ", "red") + "\n".join(lines)


def _lines_of(error: WherryError) -> list[str]:
    """Return what to show; several reasons stand one a line below what failed."""
    if "\n" not in error.why:
        return str(error).split("\n")
    return [f"{error.what}:", *(f"  {line}" for line in error.why.split("\n")), *error.fix.splitlines()]


def _cleaned(line: str, cleaned: str) -> str:
    """Return the cleaned line with its indentation, which lists of problems have."""
    return " " * (len(line) - len(line.lstrip(" "))) + cleaned.strip()


def _help() -> str:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name.ljust(width)}  {command.summary}" for name, command in COMMANDS.items())
    return f"""Wherry runs containers on many hosts, and can always be asked why.

usage: wherry COMMAND ...

{commands}

Begin with:
  wherry dev --nodes 3            # a cluster on this machine; leave it running
  wherry apply -f web.yaml --wait # in another terminal
  wherry get allocations
  wherry describe service web
  wherry explain service/web      # why there, why not elsewhere

`wherry COMMAND --help` tells more. Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 conflict, 5 timed out."""
