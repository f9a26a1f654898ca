"""Named volumes: which nodes keep them, and who uses them. Agents alone remove them, when told over their session."""

import asyncio

from aiohttp import ClientError, web

from control_plane import volume_views
from control_plane.api.context import Context, context_of
from manifests.errors import ConflictError, NotFoundError, UnavailableError
from manifests.session import RemoveVolume

FORWARDED = "X-Wherry-Forwarded"  # set by a server that asks on: the next one must answer by itself
REMOVAL_S, LOOK_S = 10.0, 0.05


async def list_volumes(request: web.Request) -> web.Response:
    state, namespace = context_of(request).state, request.query.get("namespace")
    return web.json_response({"revision": state.revision, "items": volume_views.volumes(state, namespace)})


async def delete(request: web.Request) -> web.StreamResponse:
    """Have its node remove an unused one, and answer once that is done."""
    context, info = context_of(request), request.match_info
    node, volume = info["node"], f"{info['namespace']}/{info['name']}"
    _check_unused(context, node, volume)
    served = context.sessions.of_node(node)
    if served is None:
        return await _ask_on(request, context, node)
    await served.connection.send(RemoveVolume(volume=volume))
    try:
        async with asyncio.timeout(REMOVAL_S):
            while _is_kept(context, node, volume):
                await context.clock.sleep(LOOK_S)
    except TimeoutError as late:
        raise UnavailableError(
            f"volume {volume} is still on node {node}",
            why=f"its agent did not remove it within {REMOVAL_S:g} s",
            fix="An allocation that uses it may have come meanwhile: look at `wherry get volumes`.",
        ) from late
    return web.Response(status=204)


def _is_kept(context: Context, node: str, volume: str) -> bool:
    status = context.state.nodes.get(node)
    return status is not None and volume in status.facts.volumes


def _check_unused(context: Context, node: str, volume: str) -> None:
    if not _is_kept(context, node, volume):
        raise NotFoundError(f"there is no volume {volume} on node {node}", fix="Run `wherry get volumes -A` for all.")
    if users := volume_views.users(context.state, node, volume):
        raise ConflictError(
            f"volume {volume} on node {node} is in use",
            why=f"by {', '.join(users)}",
            fix="Delete or scale down what uses it first: its content is lost with it.",
        )


async def _ask_on(request: web.Request, context: Context, node: str) -> web.StreamResponse:
    """Ask the server that holds the node's session, with the caller's own token."""
    status = context.state.nodes.get(node)
    server = context.state.servers.get(status.server) if status else None
    if server is None or server.id == context.server.id or FORWARDED in request.headers:
        raise UnavailableError(f"node {node} is not connected", fix="Its volumes can be removed when it is back.")
    headers = {"Authorization": request.headers["Authorization"], FORWARDED: context.server.name}
    try:
        async with context.peers.delete(server.url + request.path_qs, headers=headers) as answer:
            return web.Response(status=answer.status, body=await answer.read(), content_type=answer.content_type)
    except ClientError as error:
        raise UnavailableError(f"server {server.name} can't be asked", why=str(error)) from error
