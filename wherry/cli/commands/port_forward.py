"""`wherry port-forward`: makes a port of a container answer on this machine."""

import asyncio
import os
import signal
from argparse import ArgumentParser, Namespace
from typing import NamedTuple

from foundation.tasks import TaskGroup
from manifests.errors import UsageError, WherryError
from wherry.cli import lookup
from wherry.cli.arguments import add_connection, add_namespace, transport_of
from wherry.cli.attaching import allocation_of, client_of
from wherry.cli.kinds import ALLOCATIONS
from wherry.cli.lookup import Scope
from wherry.cli.text import clean, say
from wherry.client import Client

_READ_BYTES = 64 * 1024
NOTES = """  wherry port-forward db-0-5c0ffee1 :5432     # any free port here

It listens on 127.0.0.1 alone, until Ctrl-C."""


class Ports(NamedTuple):
    local: int  # 0: any that is free
    remote: int


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("allocation", metavar="ALLOCATION", help="an allocation's id, or service/web for any of its")
    parser.add_argument("ports", metavar="[LOCAL:]REMOTE", nargs="+", help="the port here, and the container's")
    add_namespace(parser)
    add_connection(parser)


def run(arguments: Namespace) -> int:
    pairs = [ports_of(text) for text in arguments.ports]
    allocation = allocation_of(arguments)
    lookup.get_named(transport_of(arguments), Scope(ALLOCATIONS, (allocation,), None))
    client = client_of(arguments)
    asyncio.run(_run(client, allocation, pairs))
    return 0


def ports_of(text: str) -> Ports:
    """Return the two ports.

    >>> ports_of("8080:80"), ports_of("80"), ports_of(":80")
    (Ports(local=8080, remote=80), Ports(local=80, remote=80), Ports(local=0, remote=80))
    """
    local, colon, remote = text.rpartition(":")
    numbers = [remote, local if local else "0" if colon else remote]
    if not all(n.isascii() and n.isdigit() and int(n) < 65536 for n in numbers) or not int(remote):
        raise UsageError(f"'{text}' is not LOCAL:REMOTE", fix="Write for example 8080:80.")
    return Ports(int(numbers[1]), int(numbers[0]))


async def _run(client: Client, allocation: str, pairs: list[Ports]) -> None:
    servers: list[asyncio.Server] = []
    connections: set[asyncio.Task[None]] = set()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with client, TaskGroup() as tasks:
        try:
            for ports in pairs:
                server = await _listen(client, allocation, ports, tasks, connections)
                servers.append(server)
                port = server.sockets[0].getsockname()[1]
                print(f"127.0.0.1:{port} leads to port {ports.remote} of {allocation}; end it with Ctrl-C", flush=True)
            await stop.wait()
        finally:
            for server in servers:
                server.close()
            for connection in connections:
                connection.cancel()


async def _listen(
    client: Client, allocation: str, ports: Ports, tasks: TaskGroup, connections: set[asyncio.Task[None]]
) -> asyncio.Server:
    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = tasks.create_task(_serve(client, allocation, ports.remote, reader, writer), name="connection")
        connections.add(task)
        task.add_done_callback(connections.discard)

    try:
        return await asyncio.start_server(accept, "127.0.0.1", ports.local, limit=_READ_BYTES)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise UsageError(f"can't listen on 127.0.0.1:{ports.local}", why=why, fix="Choose another port.") from error


async def _serve(
    client: Client, allocation: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Carry one connection until both sides are done; what goes wrong is said, and ends this one alone."""
    try:
        async with client.attach(allocation, "forward", [("port", str(port))]) as attachment, TaskGroup() as tasks:

            async def feed() -> None:
                while data := await reader.read(_READ_BYTES):
                    await attachment.write(data)
                await attachment.end_input()

            feeding = tasks.create_task(feed(), name="feed")
            async for _, data in attachment.output():
                writer.write(data)
                await writer.drain()
            feeding.cancel()
    except* WherryError as group:
        error = group.exceptions[0]
        say(clean(error.sentence() if isinstance(error, WherryError) else error))
    except* OSError:
        pass  # who connected here has left
    finally:
        writer.close()
