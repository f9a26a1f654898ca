"""`wherry freeze`: the leader looks and plans, and changes nothing, until `wherry unfreeze`."""

from argparse import ArgumentParser, Namespace

from wherry.cli.arguments import add_connection, transport_of

NOTES = """
While it is frozen nothing is placed, stopped, removed or started by its schedule, also if nodes are lost; agents
restart what fails where it is, and what you apply is stored. Every command says that the cluster is frozen."""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--reason", default="", metavar="TEXT", help="why, for all who wonder")
    add_connection(parser)


def run(arguments: Namespace) -> int:
    transport_of(arguments).post("/v1/freeze", {"reason": arguments.reason})
    print("the cluster is frozen", flush=True)
    return 0
