"""What containers and nodes use, and what an allocation is made of, asked of the nodes now: nothing of it is stored."""

import asyncio
from typing import Any

from aiohttp import web

from control_plane.api.allocations import known_allocation
from control_plane.api.asking import ask_node
from control_plane.api.context import Context, context_of
from control_plane.api.nodes import known_node
from control_plane.layer_views import layers_of
from foundation.tasks import TaskGroup
from manifests.errors import UnavailableError
from manifests.layers import Layer

MOST_AT_ONCE = 32  # nodes that are asked at the same time

Json = dict[str, Any]


async def of_node(request: web.Request) -> web.Response:
    """Return what a node's machine and all its containers use."""
    context, name = context_of(request), request.match_info["name"]
    known_node(context.state, name)
    return web.json_response(await _ask(request, context, name))


async def of_allocation(request: web.Request) -> web.Response:
    """Return what the containers of one allocation use; none are listed while none runs."""
    context = context_of(request)
    allocation = known_allocation(request, context)
    found = await _ask(request, context, allocation.node)
    mine = [c for c in found["containers"] if c["allocation"] == allocation.id]
    return web.json_response(
        {"allocation": allocation.id, "node": allocation.node, "at": found["at"], "containers": mine}
    )


async def layers(request: web.Request) -> web.Response:
    """Return what an allocation is made of, from its manifest down to its processes."""
    context = context_of(request)
    allocation = known_allocation(request, context)
    path = f"/v1/allocations/{allocation.id}/layers"
    found = await ask_node(request, context, allocation.node, "layers", path, allocation=allocation.id)
    if isinstance(found, dict):  # another server's whole answer
        return web.json_response(found)
    below = tuple(Layer.model_validate(layer) for layer in found)
    tree = layers_of(context.state, allocation, below)
    return web.json_response({"allocation": allocation.id, "node": allocation.node, "layers": tree.to_json()})


async def of_all(request: web.Request) -> web.Response:
    """Return what is used on each node, or only by the containers that the query names, and who didn't answer."""
    context = context_of(request)
    wanted = {name: request.query[name].lower() for name in ("namespace", "kind", "name") if name in request.query}
    nodes = sorted(context.state.nodes.ids())
    if wanted:
        nodes = sorted({a.node for a in context.state.allocations.values() if _matches(a.workload, wanted)} & {*nodes})
    places, found, silent = asyncio.Semaphore(MOST_AT_ONCE), dict[str, Json](), dict[str, str]()

    async def ask(node: str) -> None:
        async with places:
            try:
                found[node] = await _ask(request, context, node)
            except UnavailableError as error:
                silent[node] = f"{error.what}: {error.why}" if error.why else error.what

    async with TaskGroup() as tasks:
        for node in nodes:
            tasks.create_task(ask(node), name=f"ask {node}")
    items = [found[node] for node in nodes if node in found]
    for item in items:
        item["containers"] = [c for c in item["containers"] if all(c[key].lower() == v for key, v in wanted.items())]
    unreached = [{"node": node, "why": silent[node]} for node in nodes if node in silent]
    return web.json_response({"revision": context.state.revision, "items": items, "silent": unreached})


def _matches(ref: Any, wanted: dict[str, str]) -> bool:
    return all(str(getattr(ref, name)).lower() == value for name, value in wanted.items())


async def _ask(request: web.Request, context: Context, node: str) -> Json:
    found: Json = await ask_node(request, context, node, "stats", f"/v1/nodes/{node}/stats")
    return found
