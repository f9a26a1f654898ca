"""Nodes: what they are and hold, and what operators want of them."""

from aiohttp import web

from control_plane import node_views
from control_plane.api.bodies import flag, json_object, model_of
from control_plane.api.context import context_of
from control_plane.rehearsal import views as rehearsal_views
from control_plane.rehearsal.question import Question
from control_plane.state import ClusterState
from manifests.errors import NotFoundError
from manifests.node_changes import DrainRequest, NodePatch


async def list_nodes(request: web.Request) -> web.Response:
    state = context_of(request).state
    items = [node_views.node(state, name) for name in sorted(state.nodes.ids())]
    return web.json_response({"revision": state.revision, "items": items})


async def show(request: web.Request) -> web.Response:
    state, name = context_of(request).state, request.match_info["name"]
    known_node(state, name)
    return web.json_response(node_views.node(state, name))


def known_node(state: ClusterState, name: str) -> None:
    """Raise NotFoundError unless there is that node."""
    if name not in state.nodes:
        known = ", ".join(sorted(state.nodes.ids())) or "none"
        raise NotFoundError(f"there is no node {name}", why=f"the nodes are: {known}")


async def cordon(request: web.Request) -> web.Response:
    return await _intend(request, is_cordoned=True)


async def uncordon(request: web.Request) -> web.Response:
    return await _intend(request, is_cordoned=False, is_draining=False, drain_deadline_s=None)


async def drain(request: web.Request) -> web.Response:
    """Begin a drain, or say what it would do."""
    asked = model_of(await json_object(request) if request.can_read_body else {}, DrainRequest)
    if flag(request, "dryRun"):
        context, name = context_of(request), request.match_info["name"]
        known_node(context.state, name)
        answer = await context.rehearser.answer(Question(drain=(name,)))
        return web.json_response(rehearsal_views.drain(answer, name))
    return await _intend(request, is_cordoned=True, is_draining=True, drain_deadline_s=asked.deadline_s)


async def change(request: web.Request) -> web.Response:
    """Change its labels, taints and metadata."""
    patch = model_of(await json_object(request), NodePatch)
    await context_of(request).node_writer.change(request.match_info["name"], patch)
    return await show(request)


async def confirm_lost(request: web.Request) -> web.Response:
    """End the brake for one silent node."""
    await context_of(request).node_writer.confirm_lost(request.match_info["name"])
    return await show(request)


async def release(request: web.Request) -> web.Response:
    await context_of(request).node_writer.release(request.match_info["name"])
    return await show(request)


async def _intend(request: web.Request, **changes: object) -> web.Response:
    await context_of(request).node_writer.set_intent(request.match_info["name"], **changes)
    return await show(request)


async def delete(request: web.Request) -> web.Response:
    await context_of(request).node_writer.delete(request.match_info["name"])
    return web.Response(status=204)
