"""The cluster as a whole: is this server well, who leads, at which revision."""

from aiohttp import web

from control_plane import node_views
from control_plane.api.context import context_of


async def health(request: web.Request) -> web.Response:
    """Say that this server answers, without a token and without a word about the cluster."""
    return web.json_response({"status": "ok", "version": context_of(request).server.version})


async def show(request: web.Request) -> web.Response:
    context = context_of(request)
    state = context.state
    cluster, leader = state.cluster.get(""), state.leader.get("")
    leading = state.servers.get(leader.server) if leader else None
    return web.json_response(
        {
            "cluster": cluster.id if cluster else "",
            "version": context.server.version,
            "server": context.server.name,
            "leader": leading.name if leading else "",
            "isLeading": context.membership.is_leading,
            "hasStore": context.membership.has_lease,
            "revision": state.revision,
            "brake": node_views.brake(state),
        }
    )
