"""Fetches what a user named: items of a kind, one item, and a NotFoundError that knows the nearest name.

Between the commands and the transport; all commands that read go through here.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from manifests.errors import NotFoundError, UsageError, WherryError
from wherry.cli.kinds import (
    ALLOCATIONS,
    CONFIGS,
    EVENTS,
    NAMESPACES,
    NODES,
    VOLUMES,
    WORKLOAD_KINDS,
    WORKLOADS,
    Workload,
    did_you_mean,
    kind_of,
)
from wherry.cli.tables import name_of
from wherry.cli.transport import Transport, segment

Item = dict[str, Any]
WATCH_TYPES = {
    NODES: "node",
    ALLOCATIONS: "allocation",
    EVENTS: "event",
    CONFIGS: "config",
}  # workloads of all kinds: "workload"
EVENTS_SHOWN = 200


GLOBAL = (NODES, EVENTS, NAMESPACES)  # in no namespace


class Scope(NamedTuple):
    """Which items of a kind: those in a namespace (None: all), of these names if any are given."""

    kind: str
    names: tuple[str, ...] = ()
    namespace: str | None = "default"
    ended: str | None = None  # of allocations: "true" adds those that are gone, "only" takes these alone

    def holds(self, item: Mapping[str, Any]) -> bool:
        """Say whether an item from a watch is meant."""
        if self.kind in WORKLOAD_KINDS and str(item.get("kind", "")).lower() != WORKLOAD_KINDS[self.kind]:
            return False
        has_namespace = self.kind not in GLOBAL and self.namespace is not None
        # What a delete leaves of an allocation is its id alone: then it may be of this namespace.
        if has_namespace and item.get("namespace", self.namespace) != self.namespace:
            return False
        return not self.names or name_of(self.kind, item) in self.names


def list_items(transport: Transport, scope: Scope) -> tuple[int, list[Item]]:
    """Return the revision and the items of a scope, in the server's order; unknown names are not an error here."""
    query: dict[str, str | int | None] = {}
    if scope.kind not in GLOBAL:
        query["namespace"] = scope.namespace
    if scope.kind in WORKLOAD_KINDS:
        query["kind"] = WORKLOAD_KINDS[scope.kind]
    if scope.kind == EVENTS:
        query["limit"] = EVENTS_SHOWN
    if scope.kind == ALLOCATIONS:
        query["ended"] = scope.ended
    path = "/v1/workloads" if scope.kind in WORKLOAD_KINDS else f"/v1/{scope.kind}"
    answer = transport.get(path, query)
    if "items" not in answer:
        raise WherryError(f"the answer to {path} is not a list", fix="Is this address that of a Wherry server?")
    items = answer["items"]
    if scope.names:
        items = [item for item in items if name_of(scope.kind, item) in scope.names]
    return int(answer["revision"]), items


def get_named(transport: Transport, scope: Scope) -> list[Item]:
    """Return the items that were named, in that order. Raises NotFoundError with the nearest name."""
    if scope.kind in (EVENTS, WORKLOADS):
        raise UsageError(f"{scope.kind} have no names of their own", fix=f"Run `wherry get {scope.kind}`.")
    return [item for name in scope.names for item in _get_one(transport, scope, name)]


def get_workload(transport: Transport, workload: Workload) -> Item:
    """Return the workload. Raises NotFoundError with the nearest name of its kind."""
    kind = kind_of(workload.kind)
    return get_named(transport, Scope(kind, (workload.name,), workload.namespace))[0]


def allocations_of(transport: Transport, workload: Workload, *, ended: str | None = None) -> list[Item]:
    """Return the workload's allocations by slot, the newest of a slot last."""
    query = {"namespace": workload.namespace, "kind": workload.kind, "name": workload.name, "ended": ended}
    items: list[Item] = transport.get("/v1/allocations", query)["items"]
    return sorted(items, key=lambda a: (a.get("index") or 0, str(a.get("createdAt"))))


def workload_of(item: Mapping[str, Any]) -> Workload:
    """Return the workload that an item of the API, or a result, is or belongs to."""
    return Workload(str(item["namespace"]), str(item["kind"]).lower(), str(item["name"]))


def not_found(transport: Transport, scope: Scope, name: str) -> NotFoundError:
    """Return an error that names what there is, as near as possible."""
    everywhere = scope._replace(names=(), namespace=None)
    _, items = list_items(transport, everywhere)
    noun = WORKLOAD_KINDS.get(scope.kind, scope.kind.rstrip("s"))
    elsewhere = next((i for i in items if name_of(scope.kind, i) == name and i.get("namespace")), None)
    if elsewhere is not None and scope.namespace not in (None, elsewhere["namespace"]):
        fix = f"There is one in the namespace {elsewhere['namespace']}: add -n {elsewhere['namespace']}."
        return NotFoundError(f"there is no {noun} '{name}' in the namespace {scope.namespace}", fix=fix)
    here = [name_of(scope.kind, item) for item in items if scope._replace(names=()).holds(item)]
    where = f" in the namespace {scope.namespace}" if scope.kind in WORKLOAD_KINDS else ""
    near = did_you_mean(name, here)
    return NotFoundError(f"there is no {noun} '{name}'{where}{near}", fix=f"Run `wherry get {scope.kind}` for all.")


def _get_one(transport: Transport, scope: Scope, name: str) -> Sequence[Item]:
    if scope.kind == VOLUMES:
        found = list_items(transport, scope._replace(names=(name,)))[1]
        if not found:
            raise not_found(transport, scope, name)
        return found
    if scope.kind == ALLOCATIONS and "/" in name:
        return _allocations_named_by_workload(transport, scope, name)
    try:
        return [transport.get(_path_of(scope, name))]
    except NotFoundError:
        raise not_found(transport, scope, name) from None


def _allocations_named_by_workload(transport: Transport, scope: Scope, name: str) -> Sequence[Item]:
    kind, _, rest = name.partition("/")
    workload = Workload(scope.namespace or "default", WORKLOAD_KINDS.get(kind_of(kind), kind), rest)
    get_workload(transport, workload)
    return allocations_of(transport, workload)


def _path_of(scope: Scope, name: str) -> str:
    if scope.kind in WORKLOAD_KINDS:
        if scope.namespace is None:
            raise UsageError("a name can't be looked up in all namespaces", fix="Give its namespace with -n NS.")
        return Workload(segment(scope.namespace), WORKLOAD_KINDS[scope.kind], segment(name)).path
    if scope.kind == CONFIGS:
        return f"/v1/configs/{segment(scope.namespace or 'default')}/{segment(name)}"
    return f"/v1/{scope.kind}/{segment(name)}"
