"""The servers of the control plane, which of them leads, how the store below them is, and all that is in it."""

from typing import Any

from aiohttp import web

from control_plane import snapshots
from control_plane.api.context import Context, context_of
from control_plane.records import ServerRecord
from control_plane.store.health import MemberHealth, SupportsHealth
from manifests.base import render_timestamp
from manifests.nodes import Liveness


async def list_servers(request: web.Request) -> web.Response:
    context = context_of(request)
    store = context.store
    members = await store.members() if isinstance(store, SupportsHealth) else ()
    items = [_server(context, s) for s in sorted(context.state.servers.values(), key=lambda s: (s.name, s.id))]
    return web.json_response(
        {"revision": context.state.revision, "items": items, "store": [_member(member) for member in members]}
    )


async def snapshot(request: web.Request) -> web.StreamResponse:
    """Stream a snapshot; one that breaks off has no last line, and so is no snapshot."""
    context = context_of(request)
    lines = snapshots.save(context.store, context.clock)
    first = await anext(lines)
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    await response.write(first)
    async for line in lines:
        await response.write(line)
    await response.write_eof()
    return response


def _server(context: Context, server: ServerRecord) -> dict[str, Any]:
    leader = context.state.leader.get("")
    return {
        "name": server.name,
        "id": server.id,
        "url": server.url,
        "version": server.version,
        "startedAt": render_timestamp(server.started_s),
        "isLeader": leader is not None and leader.server == server.id,
        "isThis": server.id == context.server.id,
        "agents": sum(n.server == server.id and n.liveness is Liveness.READY for n in context.state.nodes.values()),
    }


def _member(member: MemberHealth) -> dict[str, Any]:
    return {
        "endpoint": member.endpoint,
        "version": member.version,
        "isLeader": member.is_leader,
        "databaseBytes": member.database_bytes,
        "why": member.why,
        "warnings": list(member.warnings),
    }
