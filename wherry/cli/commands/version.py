"""`wherry version`: of this command, and of the server if one answers at once."""

from argparse import ArgumentParser, Namespace

from foundation.version import VERSION
from manifests.errors import WherryError
from wherry.cli.arguments import add_connection, connection_of
from wherry.cli.text import clean
from wherry.cli.transport import Transport

PATIENCE_S = 1.0


def add_arguments(parser: ArgumentParser) -> None:
    add_connection(parser)


def run(arguments: Namespace) -> int:
    print(f"client {VERSION}")
    try:
        connection = connection_of(arguments)
        one = connection._replace(servers=connection.servers[:1])
        health = Transport(one, connect_timeout_s=PATIENCE_S).get("/v1/health", timeout_s=PATIENCE_S)
        print(f"server {clean(health.get('version'))} ({connection.servers[0]})")
    except WherryError as error:
        print(f"server unknown: {clean(error.what)}")
    return 0
