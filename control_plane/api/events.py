"""Events: what happened, to what, how often, and who did it. From the cache, so every server tells the same."""

from aiohttp import web

from control_plane import event_views
from control_plane.api.bodies import whole_number
from control_plane.api.context import context_of
from control_plane.state import ClusterState
from control_plane.views import View
from manifests.base import render_timestamp

MOST_EVENTS = 10_000
MOST_SINCE_S = 10**10


async def list_events(request: web.Request) -> web.Response:
    """List the newest events, oldest first: all, or those of one subject, of a namespace, or of the last seconds."""
    context = context_of(request)
    state, query = context.state, request.query
    limit = whole_number(request, "limit", most=MOST_EVENTS)
    since_s = whole_number(request, "since", most=MOST_SINCE_S)
    items = _events_for(state, query["for"]) if "for" in query else _all(state)
    if "namespace" in query:
        items = [e for e in items if e["namespace"] == query["namespace"]]
    if since_s is not None:
        earliest = render_timestamp(max(0.0, context.clock.wall_s() - since_s))
        items = [e for e in items if e["at"] >= earliest]
    items.sort(key=lambda e: (e["at"], e["revision"]))
    newest = items if limit is None else items[len(items) - min(limit, len(items)) :]
    return web.json_response({"revision": state.revision, "items": newest})


def _all(state: ClusterState) -> list[View]:
    return [view for id_ in state.events.ids() if (view := event_views.stored(state, id_))]


def _events_for(state: ClusterState, subject: str) -> list[View]:
    """Return the events about `service/web`, `service/NAMESPACE/web`, `node/n1` or `allocation/ID`."""
    allocation = subject.removeprefix("allocation/")
    if allocation == subject:
        return [view for view in _all(state) if view["subject"] == subject]
    own = list(event_views.of_allocation(state, allocation))
    told = {(view["reason"], view["at"]) for view in own}
    about = [view for view in _all(state) if view["allocation"] == allocation and view["reason"] != "placed"]
    return own + [view for view in about if (view["reason"], view["at"]) not in told]
