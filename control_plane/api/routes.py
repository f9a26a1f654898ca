"""Every route, its handler, and who may call it: what isn't named here doesn't exist, and without roles nobody may."""

from aiohttp import web

from control_plane.api import (
    allocations,
    attach,
    cluster,
    configs,
    events,
    explain,
    moves,
    namespaces,
    nodes,
    pages,
    rehearsals,
    rollouts,
    servers,
    session,
    stats,
    volumes,
    watch,
    workloads,
)
from control_plane.api.bodies import MOST_BODY_BYTES
from control_plane.api.context import CONTEXT, Context
from control_plane.api.guard import ROLES, Handler, add_headers, guard
from control_plane.records import Role

ANYONE: frozenset[Role] | None = None
ADMIN = frozenset({Role.ADMIN})
NODE = frozenset({Role.NODE})

_WORKLOAD = "/v1/workloads/{namespace}/{kind}/{name}"

TABLE: tuple[tuple[str, str, Handler, frozenset[Role] | None], ...] = (
    ("GET", "/v1/health", cluster.health, ANYONE),
    ("GET", "/v1/cluster", cluster.show, ADMIN),
    ("DELETE", "/v1/cluster/settings", cluster.delete_settings, ADMIN),
    ("GET", "/v1/namespaces", namespaces.list_namespaces, ADMIN),
    ("GET", "/v1/namespaces/{name}", namespaces.show, ADMIN),
    ("DELETE", "/v1/namespaces/{name}", namespaces.delete, ADMIN),
    ("POST", "/v1/freeze", cluster.freeze, ADMIN),
    ("POST", "/v1/unfreeze", cluster.unfreeze, ADMIN),
    ("GET", "/v1/servers", servers.list_servers, ADMIN),
    ("GET", "/v1/snapshot", servers.snapshot, ADMIN),
    ("GET", "/v1/nodes", nodes.list_nodes, ADMIN),
    ("GET", "/v1/nodes/{name}", nodes.show, ADMIN),
    ("GET", "/v1/nodes/{name}/stats", stats.of_node, ADMIN),
    ("PATCH", "/v1/nodes/{name}", nodes.change, ADMIN),
    ("POST", "/v1/nodes/{name}/cordon", nodes.cordon, ADMIN),
    ("POST", "/v1/nodes/{name}/uncordon", nodes.uncordon, ADMIN),
    ("POST", "/v1/nodes/{name}/drain", nodes.drain, ADMIN),
    ("POST", "/v1/nodes/{name}/confirm-lost", nodes.confirm_lost, ADMIN),
    ("POST", "/v1/nodes/{name}/release", nodes.release, ADMIN),
    ("DELETE", "/v1/nodes/{name}", nodes.delete, ADMIN),
    ("GET", "/v1/workloads", workloads.list_workloads, ADMIN),
    ("GET", _WORKLOAD, workloads.show, ADMIN),
    ("PUT", _WORKLOAD, workloads.put, ADMIN),
    ("DELETE", _WORKLOAD, workloads.delete, ADMIN),
    ("POST", _WORKLOAD + "/scale", workloads.scale, ADMIN),
    ("POST", _WORKLOAD + "/rollout/{action}", rollouts.act, ADMIN),
    ("GET", _WORKLOAD + "/versions", rollouts.list_versions, ADMIN),
    ("GET", _WORKLOAD + "/explain", explain.explain_workload, ADMIN),
    ("GET", "/v1/configs", configs.list_configs, ADMIN),
    ("GET", "/v1/configs/{namespace}/{name}", configs.show, ADMIN),
    ("DELETE", "/v1/configs/{namespace}/{name}", configs.delete, ADMIN),
    ("POST", _WORKLOAD + "/run", workloads.run, ADMIN),
    ("GET", "/v1/volumes", volumes.list_volumes, ADMIN),
    ("DELETE", "/v1/volumes/{namespace}/{node}/{name}", volumes.delete, ADMIN),
    ("POST", "/v1/apply", workloads.apply, ADMIN),
    ("POST", "/v1/rehearse", rehearsals.rehearse, ADMIN),
    ("POST", "/v1/rebalance", rehearsals.rebalance, ADMIN),
    ("GET", "/v1/moves", moves.list_moves, ADMIN),
    ("POST", "/v1/moves", moves.order, ADMIN),
    ("DELETE", "/v1/moves", moves.cancel, ADMIN),
    ("GET", "/v1/allocations", allocations.list_allocations, ADMIN),
    ("GET", "/v1/allocations/{id}", allocations.show, ADMIN),
    ("GET", "/v1/allocations/{id}/stats", stats.of_allocation, ADMIN),
    ("GET", "/v1/allocations/{id}/layers", stats.layers, ADMIN),
    ("GET", "/v1/allocations/{id}/logs", allocations.logs, ADMIN),
    ("GET", "/v1/allocations/{id}/exec", attach.execute, ADMIN),
    ("GET", "/v1/allocations/{id}/files", attach.files, ADMIN),
    ("GET", "/v1/allocations/{id}/forward", attach.forward, ADMIN),
    ("GET", "/v1/allocations/{id}/explain", explain.explain_allocation, ADMIN),
    ("GET", "/v1/stats", stats.of_all, ADMIN),
    ("GET", "/v1/events", events.list_events, ADMIN),
    ("GET", "/v1/watch", watch.watch, ADMIN),
    ("GET", "/v1/session", session.serve, NODE),
    ("GET", "/", pages.index, ANYONE),
    ("GET", "/app.js", pages.script, ANYONE),
    ("GET", "/style.css", pages.style, ANYONE),
)


def make_app(context: Context) -> web.Application:
    app = web.Application(middlewares=[guard], client_max_size=MOST_BODY_BYTES)
    app[CONTEXT] = context
    app[ROLES] = {}
    for method, path, handler, roles in TABLE:
        route = app.router.add_route(method, path, handler)
        app[ROLES][route.handler] = roles
    app.on_response_prepare.append(add_headers)
    return app
