"""Rollouts: what users say about them, and the versions that a workload has had."""

from aiohttp import web

from control_plane import rollout_views
from control_plane.api.bodies import json_object
from control_plane.api.context import context_of
from control_plane.api.workloads import id_of
from control_plane.desired.versions import shown
from manifests.errors import NotFoundError, UsageError

ACTIONS = ("pause", "resume", "promote", "undo", "restart")


async def act(request: web.Request) -> web.Response:
    """Pause, resume, promote, undo or restart. `undo` takes {"version": N}; without it, the last that was healthy."""
    writer, workload, action = context_of(request).rollout_writer, id_of(request), request.match_info["action"]
    if action not in ACTIONS:
        raise NotFoundError(f"a rollout can't be told to {action[:40]}", why=f"it can: {', '.join(ACTIONS)}")
    to = await _version_of(request)
    if to is not None and action != "undo":
        raise UsageError(f"{action} takes no version")
    match action:
        case "pause":
            revision, result = await writer.pause(workload)
        case "resume":
            revision, result = await writer.resume(workload)
        case "promote":
            revision, result = await writer.promote(workload)
        case "restart":
            revision, result = await writer.restart(workload)
        case _:
            revision, result = await writer.undo(workload, to)
    return web.json_response({**shown(result), "revision": revision})


async def _version_of(request: web.Request) -> int | None:
    if not request.can_read_body:
        return None
    body = await json_object(request)
    version = body.get("version")
    is_number = isinstance(version, int) and not isinstance(version, bool) and 1 <= version < 10**8
    if body.keys() - {"version"} or not (version is None or is_number):
        raise UsageError("the body can't be used", fix='Send {"version": 3}, or nothing.')
    return version


async def list_versions(request: web.Request) -> web.Response:
    state, workload = context_of(request).state, id_of(request)
    if workload not in state.workloads:
        namespace, kind, name = workload.split("/")
        raise NotFoundError(f"there is no {kind} {name} in namespace {namespace}")
    return web.json_response({"revision": state.revision, "items": rollout_views.versions(state, workload)})
