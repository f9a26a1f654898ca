"""`wherry unfreeze`: the leader acts again."""

from argparse import ArgumentParser, Namespace

from wherry.cli.arguments import add_connection, transport_of


def add_arguments(parser: ArgumentParser) -> None:
    add_connection(parser)


def run(arguments: Namespace) -> int:
    transport_of(arguments).post("/v1/unfreeze")
    print("the cluster is no longer frozen", flush=True)
    return 0
