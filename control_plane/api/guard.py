"""Stands before every handler: who may call it, and what an error looks like from outside."""

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from aiohttp import web

from control_plane import views
from control_plane.api.context import context_of
from control_plane.bootstrap import hash_of
from control_plane.desired.actor import acting_as
from control_plane.records import Role, TokenRecord
from control_plane.state import ClusterState
from foundation.logs import Log
from manifests.errors import (
    ForbiddenError,
    NotFoundError,
    StoreFullError,
    UnauthorizedError,
    UnavailableError,
    UsageError,
    WherryError,
)

log = Log(__name__)

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

ROLE: web.RequestKey[Role] = web.RequestKey("role", Role)  # of the caller
ROLES: web.AppKey[dict[Handler, frozenset[Role] | None]] = web.AppKey("roles", dict)  # None: anyone, without a token

STORE_TIMEOUT_S = 3.0  # a lease that is only lost is replaced sooner
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}
GENERATION = "Wherry-Generation"  # of the store: another one since a snapshot was restored, with revisions of its own
REVISION = "Wherry-Revision"  # at which an answer is true
STALENESS = "Wherry-Staleness"  # seconds since this server last heard of the store
MIN_REVISION = "Wherry-Min-Revision"  # which an answer must have, so that nobody goes back in time between servers
MOST_WARNING = 300  # characters
STALE = '110 wherry "this server has lost the store, so what it says may be out of date"'


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let the call pass if its token may make it, and turn errors into problem details."""
    try:
        if isinstance(request.match_info.http_exception, web.HTTPException):
            raise _no_route(request)
        token = _authorize(request)
        await _await_revision(request)
        if request.method not in ("GET", "HEAD"):
            await _await_store(request)
        with acting_as(_words_of(token, request)):
            return await handler(request)
    except WherryError as error:
        return problem(error)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return web.json_response(
            {"type": "about:blank", "title": error.reason.lower(), "status": error.status, "detail": error.text or ""},
            status=error.status,
            content_type="application/problem+json",
        )
    except (ConnectionResetError, ConnectionError):
        raise
    except Exception as error:
        log.error("a request failed", method=request.method, path=request.path, exc_info=error)
        return problem(WherryError("the server failed", why="this is a bug in Wherry", fix="Its log has the details."))


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Add what keeps browsers safe, how new the answer is, and a warning when it may be out of date."""
    response.headers.update(SECURITY_HEADERS)
    context = context_of(request)
    response.headers[GENERATION] = str(context.state.generation)
    response.headers[REVISION] = str(context.state.revision)
    response.headers[STALENESS] = f"{context.state.staleness_s():.1f}"
    if not context.membership.has_lease:
        response.headers.add("Warning", STALE)
    if ROLE in request and (frozen := views.frozen(context.state)):
        response.headers.add("Warning", _frozen_warning(frozen))


def _frozen_warning(frozen: views.View) -> str:
    """Return the words of a header: plain characters, and no quotes within."""
    by = f" by {frozen['by']}" if frozen["by"] else ""
    reason = f": {frozen['reason']}" if frozen["reason"] else ""
    text = f"the cluster is frozen since {frozen['since'] or '?'}{by}{reason}"
    plain = "".join(c if " " <= c <= "~" and c not in '"\\' else "?" for c in text)
    return f'199 wherry "{plain[:MOST_WARNING]}"'


def problem(error: WherryError) -> web.Response:
    """Return RFC 9457 problem details."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": error.what,
        "status": error.http_status,
        "detail": error.why,
        "fix": error.fix,
    }
    problems = getattr(error, "problems", ())
    if problems:
        body["problems"] = [{"document": p.document, "path": p.path, "message": p.message} for p in problems]
    headers = {"Retry-After": "1"} if error.http_status == 503 else None
    return web.json_response(body, status=error.http_status, content_type="application/problem+json", headers=headers)


async def _await_store(request: web.Request) -> None:
    """Return if writes can be tried. Raises UnavailableError if this server has lost the store for a while."""
    membership = context_of(request).membership
    try:
        async with asyncio.timeout(STORE_TIMEOUT_S):
            await membership.wait_for_lease()
    except TimeoutError:
        if isinstance(membership.failure, StoreFullError):
            raise membership.failure from None
        raise UnavailableError(
            "nothing can be changed now",
            why="this server can't reach the store",
            fix="Ask another server, or look at the store's members; what runs goes on running meanwhile.",
        ) from None


async def _await_revision(request: web.Request) -> None:
    """Return once this server is as new as the caller asks. Raises UnavailableError if it stays behind."""
    text = request.headers.get(MIN_REVISION)
    state = context_of(request).state
    if text is None or request.headers.get(GENERATION, str(state.generation)) != str(state.generation):
        return
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise UsageError(f"{MIN_REVISION}: {text[:40]} is not a revision", fix="Send one that an answer carried.")
    await state.wait_for(int(text))


def _no_route(request: web.Request) -> WherryError:
    return NotFoundError(
        f"there is no {request.method} {request.path}", fix="GET /v1/health tells the version; see docs/api.md."
    )


def _authorize(request: web.Request) -> TokenRecord | None:
    """Return the caller's token, or None where anyone may call. Raises unless it has one of the route's roles."""
    roles = request.app[ROLES].get(request.match_info.handler, frozenset())
    if roles is None:
        return None
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise UnauthorizedError(
            "this needs a token",
            why="the call carries no bearer token",
            fix="The command line finds its own on a server's host; elsewhere set WHERRY_TOKEN.",
        )
    known = _known_token(context_of(request).state, token.strip())
    if known is None:
        raise UnauthorizedError("the token is not known here", fix="Look whether it is for this cluster.")
    if known.role not in roles:
        raise ForbiddenError(f"a {known.role} token may not do this", fix="Use an admin token.")
    request[ROLE] = known.role
    return known


def _known_token(state: ClusterState, token: str) -> TokenRecord | None:
    sha256 = hash_of(token)
    return next((t for t in state.tokens.values() if hmac.compare_digest(t.sha256, sha256)), None)


def _words_of(token: TokenRecord | None, request: web.Request) -> str:
    """Return who calls, for the records: `admin token of s1, from 10.0.0.5`."""
    if token is None:
        return ""
    named = f"{token.role} token of {token.name}" if token.name else f"{token.role} token"
    return f"{named}, from {request.remote}" if request.remote else named
