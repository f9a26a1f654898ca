"""What happens, as it happens: one stream of changed views and events, from a revision or from all there is."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator

from aiohttp import web

from control_plane import event_views, keys, node_views, rollout_views, views
from control_plane.api.bodies import whole_number
from control_plane.api.context import Context, context_of
from control_plane.api.guard import GENERATION
from control_plane.changes import Subscription, View, ViewKey
from manifests.errors import CompactedError, UsageError

PROGRESS_EVERY_S = 10.0
TYPES = frozenset({"node", "workload", "allocation", "event", "config"})


async def watch(request: web.Request) -> web.StreamResponse:
    """Stream changes until the caller goes away."""
    context = context_of(request)
    types = _types_of(request)
    after = whole_number(request, "after", most=10**18)
    if after is not None:
        _check_generation(request, context)
        await context.state.wait_for(after)
    subscription, unsubscribe = context.changes.subscribe(after)
    try:
        if after is None:
            subscription.touch(_all_keys(context))
        is_sse = "text/event-stream" in request.headers.get("Accept", "")
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream" if is_sse else "application/x-ndjson"}
        )
        await response.prepare(request)
        async for changes in _changes(context, subscription, types, is_first=after is None):
            await response.write(b"".join(_line(change, is_sse=is_sse) for change in changes))
    finally:
        unsubscribe()
    return response


def _check_generation(request: web.Request, context: Context) -> None:
    """Refuse to go on from a revision of another generation of the store."""
    asked, ours = request.headers.get(GENERATION), str(context.state.generation)
    if asked not in (None, ours):
        raise CompactedError(
            "the changes since that revision are not known",
            why="the store was restored from a snapshot, and its revisions are others now",
            fix="Watch without `after`, which begins with all there is.",
        )


def _types_of(request: web.Request) -> frozenset[str]:
    if "types" not in request.query:
        return TYPES
    types = frozenset(request.query["types"].split(","))
    if unknown := sorted(types - TYPES):
        raise UsageError(f"there is no type {unknown[0][:40]}", why=f"the types are: {', '.join(sorted(TYPES))}")
    return types


def _all_keys(context: Context) -> Iterator[ViewKey]:
    state = context.state
    yield from (("node", i) for i in sorted(state.nodes.ids()))
    yield from (("workload", i) for i in sorted(state.workloads.ids()))
    yield from (("allocation", i) for i in sorted(state.allocations.ids()))
    yield from (("config", i) for i in sorted(state.configs.ids()))


async def _changes(
    context: Context, subscription: Subscription, types: frozenset[str], *, is_first: bool
) -> AsyncIterator[list[View]]:
    """Yield changes as they come, `synced` after the first lot of a stream that began with everything."""
    while True:
        touched, events = subscription.take()
        revision = context.state.revision
        changes = [change for key in touched if key[0] in types and (change := _change(context, key, revision))]
        if "event" in types:
            changes += [_put("event", e.revision, event_views.live(e)) for e in events]
            changes.sort(key=_place)
        if is_first:
            changes.append({"type": "synced", "revision": revision})
            is_first = False
        if changes:
            yield changes
        try:
            async with asyncio.timeout(PROGRESS_EVERY_S):
                await subscription.woken.wait()
        except TimeoutError:
            yield [{"type": "progress", "revision": context.state.revision}]


def _place(change: View) -> int:
    """Put events behind the rest, in the order in which what they tell has happened."""
    return int(change["object"]["revision"]) if change["type"] == "event" and change["action"] == "put" else 0


_SHOW = {
    "node": node_views.node,
    "workload": views.workload,
    "allocation": views.allocation,
    "event": event_views.stored,
    "config": rollout_views.config,
}


def _change(context: Context, key: ViewKey, revision: int) -> View | None:
    type_, object_id = key
    view = _SHOW[type_](context.state, object_id)
    if view is None and type_ == "event":
        return None  # it was too old to be kept, which is no news
    if view is not None:
        return _put(type_, revision, view)
    return {"type": type_, "action": "delete", "revision": revision, "object": _name(type_, object_id)}


def _put(type_: str, revision: int, view: View) -> View:
    return {"type": type_, "action": "put", "revision": revision, "object": view}


def _name(type_: str, object_id: str) -> View:
    if type_ == "workload":
        namespace, kind, name = object_id.split("/")
        return {"namespace": namespace, "kind": keys.KINDS[kind], "name": name}
    if type_ == "config":
        namespace, _, name = object_id.partition("/")
        return {"namespace": namespace, "kind": "Config", "name": name}
    return {"id" if type_ == "allocation" else "name": object_id}


def _line(change: View, *, is_sse: bool) -> bytes:
    text = json.dumps(change, separators=(",", ":"))
    return (f"data: {text}\n\n" if is_sse else f"{text}\n").encode()
