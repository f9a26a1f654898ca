"""`wherry scale`: how many allocations a service should have."""

from argparse import ArgumentParser, Namespace

from manifests.errors import NotFoundError, UsageError
from wherry.cli.arguments import add_connection, add_namespace, add_wait, transport_of, whole_number
from wherry.cli.commands.apply import result_line
from wherry.cli.kinds import SERVICES, read_workload
from wherry.cli.lookup import Scope, not_found
from wherry.cli.text import if_stopped


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("what", nargs="+", metavar="KIND/NAME N", help="the service, and how many")
    add_wait(parser, "it has so many, all ready")
    add_namespace(parser)
    add_connection(parser)


def run(arguments: Namespace) -> int:
    *words, number = arguments.what
    if not words or not number.isdigit():
        raise UsageError("how many?", fix="For example: wherry scale service/web 3")
    workload = read_workload(words, arguments.namespace)
    if workload.kind != "service":
        raise UsageError(f"a {workload.kind} has no replicas", fix="Only services can be scaled.")
    transport = transport_of(arguments)
    try:
        result = transport.post(f"{workload.path}/scale", {"replicas": whole_number(number)})
    except NotFoundError:
        raise not_found(transport, Scope(SERVICES, (), workload.namespace), workload.name) from None
    print(result_line(result), flush=True)
    if arguments.wait:
        from wherry.cli.waiting import wait_until_well

        with if_stopped("The new number stands."):
            revision = int(result.get("revision") or 0)
            wait_until_well(transport, [workload], revision, arguments.timeout, fails_with_rollout=False)
    return 0
