"""`wherry delete`: workloads, configs, settings and volumes by name or by the manifests that made them."""

from argparse import ArgumentParser, Namespace

from manifests.errors import NotFoundError, UsageError
from wherry.cli.arguments import add_connection, add_namespace, add_wait, transport_of
from wherry.cli.kinds import (
    CLUSTER,
    CONFIGS,
    NAMESPACES,
    NOWHERE,
    SERVICES,
    VOLUMES,
    WORKLOAD_KINDS,
    Workload,
    read_targets,
)
from wherry.cli.lookup import Scope, not_found
from wherry.cli.text import if_stopped, say
from wherry.cli.transport import Transport, segment

CONFIG, NAMESPACE, VOLUME = "config", "namespace", "volume"
NO_WORKLOADS = (CONFIG, NAMESPACE, CLUSTER, VOLUME)
NOTES = """  wherry delete -f web.yaml --wait
  wherry delete volume n1/data-0      with all that is in it; only one that nothing uses"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("what", nargs="*", metavar="KIND NAME... | KIND/NAME...", help="the workloads")
    parser.add_argument("-f", "--file", action="append", metavar="FILE|DIR|-", help="the workloads of these manifests")
    add_wait(parser, "all their allocations have ended")
    add_namespace(parser)
    add_connection(parser)


def run(arguments: Namespace) -> int:
    workloads = _workloads(arguments)
    transport = transport_of(arguments)
    deleted = [workload for workload in workloads if _delete(transport, workload, is_strict=not arguments.file)]
    if arguments.wait:
        from wherry.cli.waiting import wait_until_gone

        with if_stopped("The deletion goes on."):
            wait_until_gone(transport, [w for w in deleted if w.kind not in NO_WORKLOADS], arguments.timeout)
    return 0


def _workloads(arguments: Namespace) -> list[Workload]:
    if bool(arguments.what) == bool(arguments.file):
        raise UsageError("name workloads or files, one of the two", fix="For example: wherry delete service web")
    if arguments.file:
        from manifests.yaml_loader import load_files

        loaded = [one.manifest for one in load_files(arguments.file)]
        named = [Workload(w.metadata.namespace, w.kind.lower(), w.metadata.name) for w in loaded]
        return sorted(named, key=lambda one: one.kind == CONFIG)  # configs last: until then they are used
    found = []
    for target in read_targets(arguments.what):
        if target.kind == CLUSTER:
            found.append(Workload(NOWHERE, CLUSTER, CLUSTER))
            continue
        if target.kind == NAMESPACES and target.names:
            found += [Workload(NOWHERE, NAMESPACE, name) for name in target.names]
            continue
        if target.kind == VOLUMES and target.names:
            found += [Workload(arguments.namespace, VOLUME, _node_and_name(name)) for name in target.names]
            continue
        if target.kind == CONFIGS and target.names:
            found += [Workload(arguments.namespace, CONFIG, name) for name in target.names]
            continue
        if target.kind not in WORKLOAD_KINDS:
            raise UsageError(f"{target.kind} can't be deleted here", fix=_fix_of(target.kind))
        if not target.names:
            raise UsageError(f"which of the {target.kind}?", fix="Give their names after the kind.")
        found += [Workload(arguments.namespace, WORKLOAD_KINDS[target.kind], name) for name in target.names]
    return found


def _node_and_name(name: str) -> str:
    if len(name.split("/")) != 2:
        raise UsageError(f"'{name}' is not NODE/NAME", fix="Write it as `wherry get volumes` does: volume n1/data-0")
    return name


def _fix_of(kind: str) -> str:
    if kind == "nodes":
        return "A lost node is forgotten with `wherry node delete NAME`."
    return f"Name a workload, for example {SERVICES}. Allocations end when their workload is scaled or deleted."


def _delete(transport: Transport, workload: Workload, *, is_strict: bool) -> bool:
    """Delete one; say whether there was anything. With files, one that is gone already is fine."""
    is_config = workload.kind == CONFIG
    try:
        transport.delete(_path_of(workload))
    except NotFoundError:
        if is_strict and workload.kind in (NAMESPACE, CLUSTER, VOLUME):
            raise
        if is_strict and is_config:
            raise not_found(transport, Scope(CONFIGS, (), workload.namespace), workload.name) from None
        if is_strict:
            kind = next(kind for kind, path in WORKLOAD_KINDS.items() if path == workload.kind)
            raise not_found(transport, Scope(kind, (), workload.namespace), workload.name) from None
        say(f"{workload} was not there")
        return False
    if workload.kind in (NAMESPACE, CLUSTER):
        what = "the cluster" if workload.kind == CLUSTER else workload
        print(f"settings of {what} deleted: the defaults hold", flush=True)
    else:
        print(f"{workload} deleted", flush=True)
    return True


def _path_of(one: Workload) -> str:
    match one.kind:
        case "cluster":
            return "/v1/cluster/settings"
        case "namespace":
            return f"/v1/namespaces/{segment(one.name)}"
        case "volume":
            return f"/v1/volumes/{segment(one.namespace)}/{'/'.join(map(segment, one.name.split('/')))}"
        case "config":
            return f"/v1/configs/{segment(one.namespace)}/{segment(one.name)}"
        case _:
            return one.path
