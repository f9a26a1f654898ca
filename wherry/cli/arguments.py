"""What commands share of their arguments: the connection's flags, namespaces, durations, and errors that help."""

import argparse
import os
from typing import NoReturn

from manifests.errors import UsageError
from wherry.cli.connection import Connection, discover
from wherry.cli.kinds import did_you_mean
from wherry.cli.transport import Transport

CONNECTION_FLAGS = ("--server", "--token-file", "--ca-file")


class Parser(argparse.ArgumentParser):
    """An argument parser which raises UsageError, with the nearest known word where one was mistyped."""

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments: "):
            word = message.removeprefix("unrecognized arguments: ").split()[0]
            near = did_you_mean(word.split("=")[0], (o for a in self._actions for o in a.option_strings if len(o) > 2))
            message = f"there is no option '{word}' here{near}" if word.startswith("-") else f"'{word}' is one too many"
        raise UsageError(message, fix=f"Run `{self.prog} --help` for what it takes.")


def add_connection(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the cluster")
    group.add_argument("--server", action="append", default=[], metavar="URL", help="a server of it; may be repeated")
    group.add_argument("--token-file", metavar="FILE", help="the file that holds your token")
    group.add_argument("--ca-file", metavar="FILE", help="the CA that signed the servers' certificates")


def add_namespace(parser: argparse.ArgumentParser, *, with_all: bool = False) -> None:
    parser.add_argument("-n", "--namespace", default="default", metavar="NS", help="the namespace (default: default)")
    if with_all:
        parser.add_argument("-A", "--all-namespaces", action="store_true", help="all namespaces")


def add_wait(parser: argparse.ArgumentParser, until: str) -> None:
    parser.add_argument("--wait", action="store_true", help=f"wait until {until}")
    parser.add_argument(
        "--timeout", type=duration, default=120.0, metavar="TIME", help="wait so long at most (default: 2m)"
    )


def duration(text: str) -> float:
    """Return seconds, as argparse's `type`."""
    from manifests.quantities import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def whole_number(text: str) -> int:
    """Return a whole number from 0 on, as argparse's `type`."""
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number")
    return int(text)


def connection_of(arguments: argparse.Namespace) -> Connection:
    return discover(arguments.server, arguments.token_file, arguments.ca_file, env=os.environ)


def transport_of(arguments: argparse.Namespace) -> Transport:
    return Transport(connection_of(arguments))
