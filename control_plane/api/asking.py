"""Asks a node's agent over its session, which this server or another one holds; the caller's own token goes along."""

import json
from typing import Any

from aiohttp import ClientError, ClientTimeout, web

from control_plane.api.allocations import FORWARDED
from control_plane.api.context import Context
from control_plane.questions import WAIT_S, What
from manifests.errors import UnavailableError
from manifests.session import Answer

PEER_S = WAIT_S + 2.0


async def ask_node(
    request: web.Request, context: Context, node: str, what: What, path: str, *, allocation: str = ""
) -> Any:
    """Return what the node answers, as JSON. `path` is where another server answers the same, as it stands.

    Raises UnavailableError if the node is not connected, or the server of its session can't be asked.
    """
    served = context.sessions.of_node(node)
    if served is not None:
        return body_of(await served.questions.ask(what, allocation))
    status = context.state.nodes.get(node)
    server = context.state.servers.get(status.server) if status else None
    if server is None or server.id == context.server.id or FORWARDED in request.headers:
        raise UnavailableError(
            f"node {node} is not connected",
            fix=f"Look at `wherry describe node {node}`; it answers again when it is back.",
        )
    headers = {"Authorization": request.headers["Authorization"], FORWARDED: context.server.name}
    try:
        async with context.peers.get(server.url + path, headers=headers, timeout=ClientTimeout(total=PEER_S)) as answer:
            found = json.loads(await answer.read())
    except (TimeoutError, ClientError, ValueError) as error:
        raise UnavailableError(f"server {server.name} can't be asked for node {node}", why=str(error)) from error
    if answer.status != 200:
        raise UnavailableError(str(found.get("title")), why=str(found.get("detail") or ""), fix=str(found.get("fix")))
    return found


def body_of(answer: Answer) -> Any:
    if answer.layers is not None:
        return [layer.to_json() for layer in answer.layers]
    if answer.stats is None:
        raise UnavailableError("the node answered something else than was asked")
    return answer.stats.to_json()
