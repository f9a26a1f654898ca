"""Why something runs where it does, why it can't be elsewhere, and what would change that. Any server answers."""

from aiohttp import web

from control_plane import explain_views
from control_plane.api.context import context_of
from control_plane.api.nodes import known_node
from control_plane.api.workloads import id_of, no_such_workload
from control_plane.controllers import why_not
from control_plane.state import ClusterState
from manifests.errors import NotFoundError


async def explain_workload(request: web.Request) -> web.Response:
    context, node = context_of(request), _node_of(request)
    record = context.state.workloads.get(id_of(request))
    if record is None:
        raise no_such_workload(id_of(request))
    explanation = why_not.explain_workload(context.state, context.standing, record, node)
    view = explain_views.of_workload(context.state, record, explanation, context.state.revision, node)
    return web.json_response(view)


async def explain_allocation(request: web.Request) -> web.Response:
    context, node = context_of(request), _node_of(request)
    allocation = context.state.allocations.get(request.match_info["id"])
    if allocation is None:
        raise _no_such_allocation(context.state, request.match_info["id"])
    explanation = why_not.explain_allocation(context.state, context.standing, allocation, node)
    return web.json_response(explain_views.of_allocation(context.state, allocation, explanation, node))


def _node_of(request: web.Request) -> str | None:
    """Return the node that is asked about alone, if one is."""
    node = request.query.get("node")
    if node is not None:
        known_node(context_of(request).state, node)
    return node


def _no_such_allocation(state: ClusterState, allocation: str) -> NotFoundError:
    ended = any(e.id == allocation for e in state.ended.values())
    why = "it is gone, and why it was there is not kept" if ended else ""
    return NotFoundError(f"there is no allocation {allocation[:80]} to explain", why=why)
