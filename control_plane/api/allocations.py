"""Allocations: where they are and how, and what their containers write."""

import re

from aiohttp import ClientError, web

from control_plane import views
from control_plane.api.bodies import flag, whole_number
from control_plane.api.context import Context, context_of
from control_plane.records import EndedAllocation
from control_plane.session_handler import ServedSession
from manifests.allocations import Allocation
from manifests.errors import NotFoundError, UnavailableError, UsageError
from manifests.session import CloseStream, MoreLogs, Offer, OpenLogs

FORWARDED = "X-Wherry-Forwarded"  # set by a server that asks on: the next one must answer by itself
MOST_TAIL = 1_000_000
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")


async def list_allocations(request: web.Request) -> web.Response:
    """List allocations that are there; with `ended=true` also those that are gone, with `ended=only` these alone."""
    state, ended = context_of(request).state, request.query.get("ended", "false")
    if ended not in ("false", "true", "only"):
        raise UsageError(f"ended={ended[:40]} is none of false, true and only")
    found: list[Allocation | EndedAllocation] = []
    found += [a for a in state.allocations.values() if ended != "only" and _matches(request, a)]
    found += [e for e in state.ended.values() if ended != "false" and _matches(request, e)]
    found.sort(key=lambda a: (a.workload.namespace, a.workload.kind, a.workload.name, a.index, a.created_s))
    items = [views.ended_view(a) if isinstance(a, EndedAllocation) else views.allocation(state, a.id) for a in found]
    return web.json_response({"revision": state.revision, "items": items})


def _matches(request: web.Request, a: Allocation | EndedAllocation) -> bool:
    query, ref = request.query, a.workload
    found = {"namespace": ref.namespace, "kind": ref.kind.lower(), "name": ref.name, "node": a.node}
    return all(query[name].lower() == value for name, value in found.items() if name in query)


async def show(request: web.Request) -> web.Response:
    state, id_ = context_of(request).state, request.match_info["id"]
    view = views.allocation(state, id_) or views.ended(state, id_)
    if view is None:
        raise unknown(request)
    return web.json_response(view)


def known_allocation(request: web.Request, context: Context) -> Allocation:
    """Return the allocation that the path names. Raises NotFoundError."""
    allocation = context.state.allocations.get(request.match_info["id"])
    if allocation is None:
        raise unknown(request)
    return allocation


def unknown(request: web.Request) -> NotFoundError:
    return NotFoundError(f"there is no allocation {request.match_info['id'][:80]}")


async def logs(request: web.Request) -> web.StreamResponse:
    """Stream what an allocation's container wrote, from its node over the node's own session, whoever holds that."""
    context = context_of(request)
    allocation = known_allocation(request, context)
    tail = whole_number(request, "tail", most=MOST_TAIL)
    served = context.sessions.of_node(allocation.node)
    if served is None:
        return await _ask_on(request, context, allocation)
    if is_previous := flag(request, "previous"):
        served.require(Offer.PREVIOUS_LOGS, "show the log of an earlier attempt")
    number = served.logs.open()
    ask = OpenLogs(
        stream=number,
        allocation=allocation.id,
        container=request.query.get("container", ""),
        follow=flag(request, "follow"),
        tail=tail,
        timed=flag(request, "timestamps"),
        since=_since_of(request),
        previous=is_previous,
    )
    try:
        await served.connection.send(ask)
        return await _pass_on(request, served, number)
    finally:
        served.logs.close(number)


def _since_of(request: web.Request) -> str:
    """Return the time from which on lines are asked for, as the log writes times; nothing if all are."""
    text = request.query.get("since", "")
    if not text:
        return ""
    if not _TIME.fullmatch(text):
        raise UsageError(f"since={text[:40]} is not a time", fix="Write for example 2026-11-24T22:15:00.123456789Z.")
    return text


async def _pass_on(request: web.Request, served: ServedSession, number: int) -> web.StreamResponse:
    """Send the stream's bytes as they come. An error before the first byte is a proper answer; later it cuts off."""
    chunks = served.logs.read(number)
    first = await anext(chunks, b"")
    response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
    await response.prepare(request)
    try:
        await _write(response, served, number, first)
        async for chunk in chunks:
            await _write(response, served, number, chunk)
    except (UnavailableError, NotFoundError, ConnectionError):
        if request.transport:
            request.transport.abort()  # the reader must see that this is not the end
        return response
    finally:
        await served.connection.send(CloseStream(stream=number))
    await response.write_eof()
    return response


async def _write(response: web.StreamResponse, served: ServedSession, number: int, chunk: bytes) -> None:
    """Send bytes to the reader, and let the agent send as many more."""
    await response.write(chunk)
    if chunk:
        await served.connection.send(MoreLogs(stream=number, count=len(chunk)))


async def _ask_on(request: web.Request, context: Context, allocation: Allocation) -> web.StreamResponse:
    """Ask the server that holds the node's session, with the caller's own token."""
    status = context.state.nodes.get(allocation.node)
    server = context.state.servers.get(status.server) if status else None
    if server is None or server.id == context.server.id or FORWARDED in request.headers:
        raise UnavailableError(
            f"the logs of {allocation.id} are on node {allocation.node}, which is not connected",
            fix=f"Look at `wherry describe node {allocation.node}`; the logs are there again when the node is back.",
        )
    headers = {"Authorization": request.headers["Authorization"], FORWARDED: context.server.name}
    try:
        async with context.peers.get(server.url + request.path_qs, headers=headers) as answer:
            response = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.content_type})
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response
    except ClientError as error:
        raise UnavailableError(f"server {server.name} can't be asked for the logs", why=str(error)) from error
