"""The cluster as a whole: is this server well, who leads, at which revision."""

from aiohttp import web

from control_plane import node_views, settings_views, views
from control_plane.api.bodies import json_object
from control_plane.api.context import context_of
from manifests.base import checked_text
from manifests.errors import UsageError

MOST_REASON = 500


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
            "frozen": views.frozen(state),
            "settings": settings_views.cluster(state),
        }
    )


async def delete_settings(request: web.Request) -> web.Response:
    """Go back to the defaults."""
    revision = await context_of(request).settings_writer.delete("Cluster", "cluster")
    return web.json_response({"revision": revision})


async def freeze(request: web.Request) -> web.Response:
    body = await json_object(request)
    reason = body.get("reason", "")
    if body.keys() - {"reason"} or not isinstance(reason, str) or len(reason) > MOST_REASON:
        fix = f'Send {{"reason": "TEXT"}} with at most {MOST_REASON} characters.'
        raise UsageError("the body doesn't say why the cluster is to be frozen", fix=fix)
    try:
        checked_text(reason)
    except ValueError as error:
        raise UsageError("the reason can't be used", why=str(error)) from error
    await context_of(request).freeze_writer.freeze(reason)
    return await show(request)


async def unfreeze(request: web.Request) -> web.Response:
    await context_of(request).freeze_writer.unfreeze()
    return await show(request)
