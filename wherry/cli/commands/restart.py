"""`wherry restart`: a new version with the same spec, so that every allocation is replaced, as by an update."""

from argparse import ArgumentParser, Namespace

from wherry.cli.arguments import add_connection, add_namespace, add_wait, transport_of
from wherry.cli.commands.rollout import act, check_kind
from wherry.cli.kinds import read_workload
from wherry.cli.text import if_stopped

NOTES = """  wherry restart daemon/node-agent"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("what", nargs="+", metavar="KIND/NAME", help="a service or a daemon")
    add_wait(parser, "every allocation is replaced")
    add_namespace(parser)
    add_connection(parser)


def run(arguments: Namespace) -> int:
    workload = read_workload(arguments.what, arguments.namespace)
    check_kind(workload)
    transport = transport_of(arguments)
    result = act(transport, workload, "restart")
    print(f"{workload} restarts (version {result.get('version')})", flush=True)
    if arguments.wait:
        from wherry.cli.waiting import wait_until_rolled_out

        with if_stopped("The restart goes on."):
            wait_until_rolled_out(transport, workload, int(result.get("revision") or 0), arguments.timeout)
    return 0
