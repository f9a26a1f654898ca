"""Workloads: apply, change, scale, delete, and how they are."""

import json

from aiohttp import web

from control_plane import keys, views
from control_plane.api.bodies import documents_of, expected_revision, json_object, model_of
from control_plane.api.context import context_of
from control_plane.desired.versions import shown
from manifests.errors import NotFoundError, UsageError
from manifests.plans import AppliedPlan

MOST_REPLICAS = 10_000


async def list_workloads(request: web.Request) -> web.Response:
    state = context_of(request).state
    namespace, kind = request.query.get("namespace"), request.query.get("kind")
    if kind is not None:
        _known_kind(kind)
    ids = sorted(w for w in state.workloads.ids() if _matches(w, namespace, kind))
    items = [views.workload(state, w) for w in ids]
    return web.json_response({"revision": state.revision, "items": items})


def _matches(workload: str, namespace: str | None, kind: str | None) -> bool:
    its_namespace, its_kind, _ = workload.split("/")
    return namespace in (None, its_namespace) and (kind is None or kind.lower() == its_kind)


async def show(request: web.Request) -> web.Response:
    workload = id_of(request)
    view = views.workload(context_of(request).state, workload)
    if view is None:
        raise no_such_workload(workload)
    return web.json_response(view)


def no_such_workload(workload: str) -> NotFoundError:
    namespace, kind, name = workload.split("/")
    return NotFoundError(f"there is no {kind} {name} in namespace {namespace}")


async def apply(request: web.Request) -> web.Response:
    body = await json_object(request)
    unknown = body.keys() - {"documents", "dryRun", "plan"}
    dry_run = body.get("dryRun", False)
    if unknown or not isinstance(dry_run, bool):
        wrong = ", ".join(sorted(unknown)) or "dryRun"
        raise UsageError(f"the body's {wrong} can't be used", fix='Send {"documents": [...], "dryRun": false}.')
    documents = documents_of(body.get("documents"))
    context, plan = context_of(request), body.get("plan")
    expected = await context.rehearser.check(model_of(plan, AppliedPlan), documents) if plan is not None else {}
    revision, results = await context.workload_writer.apply(documents, dry_run=dry_run, expected=expected)
    return web.json_response({"revision": revision, "results": [shown(r) for r in results]})


async def put(request: web.Request) -> web.Response:
    documents = documents_of([await json_object(request)])
    workload = documents[0]
    if keys.id_of_metadata(workload.kind, workload.metadata) != id_of(request):
        raise UsageError("the manifest is of another workload than the path", fix="Make them agree.")
    expected = expected_revision(request)
    at = {id_of(request): expected} if expected is not None else {}
    _, results = await context_of(request).workload_writer.apply(documents, expected=at)
    return web.json_response(shown(results[0]))


async def delete(request: web.Request) -> web.Response:
    revision = await context_of(request).workload_writer.delete(id_of(request), expected=expected_revision(request))
    return web.json_response({"revision": revision}, status=202)


async def scale(request: web.Request) -> web.Response:
    body = await json_object(request)
    replicas = body.get("replicas")
    if not isinstance(replicas, int) or isinstance(replicas, bool) or not 0 <= replicas <= MOST_REPLICAS:
        why = f"it is {json.dumps(replicas)}"
        raise UsageError(f"replicas must be a whole number from 0 to {MOST_REPLICAS}", why=why)
    _, result = await context_of(request).workload_writer.scale(id_of(request), replicas)
    return web.json_response(shown(result))


async def run(request: web.Request) -> web.Response:
    revision, job = await context_of(request).cron_runner.run(id_of(request))
    ref = job.record.ref
    answer = {"namespace": ref.namespace, "kind": ref.kind, "name": ref.name, "revision": revision}
    return web.json_response(answer, status=201)


def id_of(request: web.Request) -> str:
    info = request.match_info
    return keys.workload_id(info["namespace"], _known_kind(info["kind"]), info["name"])


def _known_kind(kind: str) -> str:
    if kind.lower() not in keys.KINDS:
        raise NotFoundError(f"there is no kind {kind[:40]}", why=f"the kinds are: {', '.join(keys.KINDS)}")
    return kind
