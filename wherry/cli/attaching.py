"""What the commands share that enter containers: whom they mean, and the client, which is loaded only for them."""

from argparse import Namespace
from pathlib import Path

from manifests.errors import NotFoundError
from wherry.cli import lookup
from wherry.cli.arguments import connection_of, transport_of
from wherry.cli.kinds import read_workload
from wherry.cli.text import say
from wherry.client import Client


def client_of(arguments: Namespace) -> Client:
    connection = connection_of(arguments)
    return Client(connection.servers, connection.token, Path(connection.ca_file) if connection.ca_file else None)


def allocation_of(arguments: Namespace) -> str:
    """Return the id of the allocation that is named, or of one that runs of the workload that is."""
    target = str(arguments.allocation)
    kind, slash, name = target.partition("/")
    if not slash or kind.lower() in ("allocation", "alloc"):
        return name or target
    workload = read_workload([target], arguments.namespace)
    transport = transport_of(arguments)
    running = [a for a in lookup.allocations_of(transport, workload) if a.get("phase") == "running"]
    if not running:
        lookup.get_workload(transport, workload)  # says if there is none of that name
        raise NotFoundError(f"no allocation of {target} runs now", fix=f"`wherry describe {target}` tells why.")
    id_ = str(running[0]["id"])
    if len(running) > 1:
        say(f"{target} has {len(running)} that run: this is {id_}.")
    return id_
