"""Namespaces: which there are, and the way back to the defaults of one. Settings are applied as workloads are."""

from aiohttp import web

from control_plane import settings_views
from control_plane.api.context import context_of
from manifests.errors import NotFoundError


async def list_namespaces(request: web.Request) -> web.Response:
    state = context_of(request).state
    return web.json_response({"revision": state.revision, "items": settings_views.namespaces(state)})


async def show(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    view = settings_views.namespace(context_of(request).state, name)
    if view is None:
        raise NotFoundError(f"there is no namespace {name[:80]}", why="nothing is in it, and it has no settings")
    return web.json_response(view)


async def delete(request: web.Request) -> web.Response:
    revision = await context_of(request).settings_writer.delete("Namespace", request.match_info["name"])
    return web.json_response({"revision": revision})
