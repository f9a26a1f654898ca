"""What the commands share that enter containers: the client, which is loaded only for them."""

from argparse import Namespace
from pathlib import Path

from wherry.cli.arguments import connection_of
from wherry.client import Client


def client_of(arguments: Namespace) -> Client:
    connection = connection_of(arguments)
    return Client(connection.servers, connection.token, Path(connection.ca_file) if connection.ca_file else None)
