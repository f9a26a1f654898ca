"""`wherry exec`: runs a command in a container, with this terminal or these pipes attached to it."""

import asyncio
import os
import signal
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from manifests.errors import UsageError
from wherry.cli import terminal
from wherry.cli.arguments import add_connection, add_namespace
from wherry.cli.attaching import allocation_of, client_of
from wherry.client import Attachment, Client

TAKES_COMMAND = True
_DESCRIPTORS = {1: 1, 2: 2}  # of our own, by channel
NOTES = """  wherry exec web-0-1f3a9c2e -- cat /etc/hosts
  cat file | wherry exec -i web-0-1f3a9c2e -c app -- tee /tmp/file

The exit code is the command's own, 128+n if signal n ended it."""


def add_arguments(parser: ArgumentParser) -> None:
    parser.usage = "wherry exec ALLOCATION [-c NAME] [-i] [-t] -- COMMAND ..."
    parser.add_argument("allocation", metavar="ALLOCATION", help="an allocation's id, or service/web for any of its")
    parser.add_argument("-c", "--container", metavar="NAME", default="", help="which container, of a group")
    parser.add_argument("-i", "--stdin", action="store_true", help="pass standard input on")
    parser.add_argument("-t", "--tty", action="store_true", help="give the command a terminal")
    add_namespace(parser)
    add_connection(parser)


def run(arguments: Namespace) -> int:
    if not arguments.command:
        raise UsageError(
            "there is no command to run", fix=f"Write it behind two dashes: wherry exec {arguments.allocation} -- ls -l"
        )
    if arguments.tty and arguments.stdin and not os.isatty(0):
        raise UsageError(
            "-t needs a terminal", why="standard input is none", fix="Leave -t out: -i alone passes it on."
        )
    arguments.allocation = allocation_of(arguments)
    client = client_of(arguments)
    columns, rows = terminal.size()
    query = [("command", word) for word in arguments.command]
    query += [("container", arguments.container)] if arguments.container else []
    query += [("stdin", "true")] if arguments.stdin else []
    query += [("tty", "true"), ("columns", str(columns)), ("rows", str(rows))] if arguments.tty else []
    try:
        return asyncio.run(_run(client, arguments, query))
    except asyncio.CancelledError:  # told to end, by _end
        return 128 + signal.SIGTERM


async def _run(client: Client, arguments: Namespace, query: list[tuple[str, str]]) -> int:
    is_raw = arguments.tty and arguments.stdin
    async with client, client.attach(arguments.allocation, "exec", query) as attachment:
        with terminal.raw(0) if is_raw else nullcontext(), _ending_well(), _following_size(attachment, arguments.tty):
            feeding = asyncio.create_task(_feed(attachment), name="input") if arguments.stdin else None
            try:
                async for channel, data in attachment.output():
                    await asyncio.to_thread(_write, _DESCRIPTORS.get(channel, 1), data)
            finally:
                if feeding is not None:
                    feeding.cancel()
    return attachment.exit_code or 0


async def _feed(attachment: Attachment) -> None:
    queue: asyncio.Queue[bytes] = asyncio.Queue(1)
    terminal.read_input(asyncio.get_running_loop(), queue)
    while data := await queue.get():
        await attachment.write(data)
    await attachment.end_input()


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


@contextmanager
def _ending_well() -> Iterator[None]:
    """Let the block clean up when this process is told to end."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, _end, task, number)
    yield


def _end(task: "asyncio.Task[int]", number: signal.Signals) -> None:
    print(f"ended by {number.name}", file=sys.stderr)
    task.cancel()


@contextmanager
def _following_size(attachment: Attachment, has_terminal: bool) -> Iterator[None]:
    """Tell the command when this terminal changes its size."""
    if not has_terminal:
        yield
        return
    loop, changed = asyncio.get_running_loop(), asyncio.Event()

    async def tell() -> None:
        while True:
            await changed.wait()
            changed.clear()
            await attachment.resize(*terminal.size())

    loop.add_signal_handler(signal.SIGWINCH, changed.set)
    task = asyncio.create_task(tell(), name="resize")
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)
        task.cancel()
