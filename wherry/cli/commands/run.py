"""`wherry run`: one job of a CronJob, now."""

from argparse import ArgumentParser, Namespace

from manifests.errors import NotFoundError, UsageError
from wherry.cli.arguments import add_connection, add_namespace, add_wait, transport_of
from wherry.cli.kinds import CRON_JOBS, read_workload
from wherry.cli.lookup import Scope, not_found, workload_of
from wherry.cli.text import if_stopped


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("what", nargs="+", metavar="cronjob/NAME", help="the CronJob")
    add_wait(parser, "the job is complete")
    add_namespace(parser)
    add_connection(parser)


def run(arguments: Namespace) -> int:
    workload = read_workload(arguments.what, arguments.namespace)
    if workload.kind != "cronjob":
        raise UsageError(f"a {workload.kind} can't be run", fix="Name a cronjob; all else runs once it is applied.")
    transport = transport_of(arguments)
    try:
        made = transport.post(f"{workload.path}/run")
    except NotFoundError:
        raise not_found(transport, Scope(CRON_JOBS, (), workload.namespace), workload.name) from None
    job = workload_of(made)
    print(f"{job} created", flush=True)
    if arguments.wait:
        from wherry.cli.waiting import wait_until_well

        with if_stopped(f"{job} goes on."):
            wait_until_well(transport, [job], int(made.get("revision") or 0), arguments.timeout)
    return 0
