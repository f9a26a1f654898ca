"""Configs: what there are, and who uses them. They are applied as workloads are."""

from aiohttp import web

from control_plane import keys, rollout_views
from control_plane.api.context import context_of
from manifests.errors import NotFoundError


async def list_configs(request: web.Request) -> web.Response:
    state, namespace = context_of(request).state, request.query.get("namespace")
    items = rollout_views.configs(state, namespace)
    return web.json_response({"revision": state.revision, "items": items})


async def show(request: web.Request) -> web.Response:
    view = rollout_views.config(context_of(request).state, _id_of(request))
    if view is None:
        info = request.match_info
        raise NotFoundError(f"there is no config {info['name']} in namespace {info['namespace']}")
    return web.json_response(view)


async def delete(request: web.Request) -> web.Response:
    revision = await context_of(request).config_writer.delete(_id_of(request))
    return web.json_response({"revision": revision})


def _id_of(request: web.Request) -> str:
    return keys.config_id(request.match_info["namespace"], request.match_info["name"])
