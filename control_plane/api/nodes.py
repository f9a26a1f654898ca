"""Nodes: what they are and hold, and what operators want of them."""

from aiohttp import web

from control_plane import views
from control_plane.api.context import context_of
from manifests.errors import NotFoundError


async def list_nodes(request: web.Request) -> web.Response:
    state = context_of(request).state
    items = [views.node(state, name) for name in sorted(state.nodes.ids())]
    return web.json_response({"revision": state.revision, "items": items})


async def show(request: web.Request) -> web.Response:
    state, name = context_of(request).state, request.match_info["name"]
    view = views.node(state, name)
    if view is None:
        known = ", ".join(sorted(state.nodes.ids())) or "none"
        raise NotFoundError(f"there is no node {name}", why=f"the nodes are: {known}")
    return web.json_response(view)


async def cordon(request: web.Request) -> web.Response:
    return await _intend(request, is_cordoned=True)


async def uncordon(request: web.Request) -> web.Response:
    return await _intend(request, is_cordoned=False, is_draining=False)


async def drain(request: web.Request) -> web.Response:
    return await _intend(request, is_cordoned=True, is_draining=True)


async def confirm_lost(request: web.Request) -> web.Response:
    """End the brake for one silent node."""
    await context_of(request).node_writer.confirm_lost(request.match_info["name"])
    return await show(request)


async def release(request: web.Request) -> web.Response:
    await context_of(request).node_writer.release(request.match_info["name"])
    return await show(request)


async def _intend(request: web.Request, **changes: bool) -> web.Response:
    await context_of(request).node_writer.set_intent(request.match_info["name"], **changes)
    return await show(request)


async def delete(request: web.Request) -> web.Response:
    await context_of(request).node_writer.delete(request.match_info["name"])
    return web.Response(status=204)
