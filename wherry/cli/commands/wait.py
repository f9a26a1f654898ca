"""`wherry wait`: until workloads or nodes are as they should be; its exit code says whether they got there."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from manifests.errors import NotFoundError, UsageError
from wherry.cli.arguments import add_connection, add_namespace, duration, transport_of
from wherry.cli.kinds import (
    CRON_JOBS,
    DAEMONS,
    JOBS,
    NODES,
    SERVICES,
    WORKLOAD_KINDS,
    Workload,
    did_you_mean,
    read_targets,
)
from wherry.cli.lookup import Item, Scope, allocations_of, get_named
from wherry.cli.text import clean, if_stopped, plural
from wherry.cli.transport import Transport, segment
from wherry.cli.waiting import Looks, Seen, Target, see, see_gone, wait

# The first of each kind is what is meant when nothing is said.
CONDITIONS: Mapping[str, tuple[str, ...]] = {
    SERVICES: ("healthy", "deleted"),
    DAEMONS: ("healthy", "deleted"),
    JOBS: ("complete", "deleted"),
    CRON_JOBS: ("scheduled", "deleted"),
    NODES: ("ready", "drained", "cordoned", "lost", "deleted"),
}
NOTES = """  wherry wait job/migrate --for complete --timeout 10m
  wherry wait node/n1 --for drained

A service or daemon gets healthy, a job complete, a cronjob scheduled (no job of it runs); a node gets ready,
drained, cordoned or lost; and all of them deleted. What they get by themselves is waited for unless told otherwise.
exit codes: 0 it is so, 1 it can't get so any more, 3 there is none of that name, 5 it took too long"""


class Node(NamedTuple):
    name: str
    kind: str = "node"
    namespace: str = "default"

    def __str__(self) -> str:
        return f"node/{self.name}"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("what", nargs="+", metavar="KIND NAME... | KIND/NAME...", help="workloads or nodes")
    parser.add_argument("--for", dest="condition", metavar="WHAT", help="what to wait for, for example healthy")
    parser.add_argument(
        "--timeout", type=duration, default=120.0, metavar="TIME", help="wait so long at most (default: 2m)"
    )
    add_namespace(parser)
    add_connection(parser)


def run(arguments: Namespace) -> int:
    transport = transport_of(arguments)
    looks: dict[Target, Callable[[], Seen]] = {}
    for target in read_targets(arguments.what):
        condition = _condition(target.kind, arguments.condition)
        if not target.names:
            raise UsageError(f"which of the {target.kind}?", fix="Give their names after the kind.")
        for name in target.names:
            looks |= _look(transport, target.kind, condition, name, arguments.namespace)
    with if_stopped("The cluster goes on."):
        wait(transport, looks, arguments.timeout, types="node,workload,allocation")
    return 0


def _condition(kind: str, asked: str | None) -> str:
    """Return what to wait for. Raises UsageError where that never comes of such a thing."""
    if kind not in CONDITIONS:
        raise UsageError(f"{kind} can't be waited for", fix="Name workloads or nodes, for example service/web.")
    known = CONDITIONS[kind]
    condition = known[0] if asked is None else asked.removeprefix("node-") if kind == NODES else asked
    if condition not in known:
        near = did_you_mean(condition, known)
        raise UsageError(f"{kind} don't get '{asked}'{near}", fix=f"They get: {', '.join(known)}.")
    return condition


def _look(transport: Transport, kind: str, condition: str, name: str, namespace: str) -> Looks:
    if kind == NODES:
        node = Node(name)
        return {node: partial(_see_node, transport, node, condition)}
    given, slash, rest = name.partition("/")
    workload = Workload(given, WORKLOAD_KINDS[kind], rest) if slash else Workload(namespace, WORKLOAD_KINDS[kind], name)
    if condition == "deleted":
        return {workload: partial(see_gone, transport, workload)}
    return {workload: partial(_see_workload, transport, kind, workload, condition)}


def _see_workload(transport: Transport, kind: str, workload: Workload, condition: str) -> Seen:
    item = get_named(transport, Scope(kind, (workload.name,), workload.namespace))[0]
    seen = see(item, workload, lambda: allocations_of(transport, workload))
    if condition == "scheduled":
        return seen._replace(is_done=item.get("state") in ("scheduled", "suspended"))
    return seen


def _see_node(transport: Transport, node: Node, condition: str) -> Seen:
    try:
        item: Item = transport.get(f"/v1/nodes/{segment(node.name)}")
    except NotFoundError:
        if condition == "deleted":
            return Seen(True, (f"{node}: gone",))
        raise
    state, count = clean(item.get("state")), int(item.get("allocations") or 0)
    said = f": {clean(item['message'])}" if item.get("message") else ""
    is_so = state == condition or (condition == "cordoned" and bool(item.get("cordoned")))
    return Seen(is_so, (f"{node}: {state}, {plural(count, 'allocation')}{said}",))
