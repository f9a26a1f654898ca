"""WebSockets into containers: exec, files, connections.

What comes over the socket goes to the node's agent over its own session, and back.
Binary messages are one byte of channel (0 input, 1 stdout, 2 stderr) and the bytes. Text messages are JSON: from the
caller `{"type": "inputEnded"}` and `{"type": "resize", "columns", "rows"}`; to the caller, last of all,
`{"type": "ended", "exitCode"}` or `{"type": "ended", "error": PROBLEM}`: a problem is told here because callers of a
WebSocket can't read the body of a refusal.
"""

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Any

from aiohttp import ClientError, ClientWebSocketResponse, WSMsgType, web

from control_plane.api.allocations import FORWARDED, unknown
from control_plane.api.bodies import flag, whole_number
from control_plane.api.context import Context, context_of
from control_plane.attached_streams import AttachedStream
from control_plane.session_handler import ServedSession
from foundation.tasks import TaskGroup
from manifests.allocations import Allocation
from manifests.errors import ConflictError, UnavailableError, UsageError, WherryError
from manifests.session import (
    STDIN,
    Attach,
    CloseStream,
    InputEnded,
    MoreLogs,
    Offer,
    OpenExec,
    OpenFiles,
    OpenForward,
    Resize,
    StreamData,
)

MOST_MESSAGE_BYTES = 1 << 20
MOST_COMMAND_BYTES = 64 * 1024
MOST_SIZE = 10_000  # columns or rows
CLOSE_TIMEOUT_S = 2.0


async def execute(request: web.Request) -> web.StreamResponse:
    """Run a command in a container, attached to it."""
    query = request.query
    command = tuple(query.getall("command", []))
    shown = " ".join(command)

    def ask(number: int) -> OpenExec:
        return OpenExec(
            stream=number,
            allocation=request.match_info["id"],
            container=query.get("container", ""),
            command=command,
            has_input=flag(request, "stdin"),
            has_terminal=flag(request, "tty"),
            columns=whole_number(request, "columns", most=MOST_SIZE) or 80,
            rows=whole_number(request, "rows", most=MOST_SIZE) or 24,
        )

    def check() -> None:
        if not command or not command[0] or len(shown.encode()) > MOST_COMMAND_BYTES:
            raise UsageError("there is no command to run, or it is too long", fix="Give `command` once for each word.")

    return await _attach(request, Offer.EXEC, "run commands in containers", f"exec `{shown}`", ask, check)


async def files(request: web.Request) -> web.StreamResponse:
    """Copy what is at a path out of a container as a tar archive, or one into it."""
    query = request.query
    path, is_write = query.get("path", ""), flag(request, "write")

    def ask(number: int) -> OpenFiles:
        return OpenFiles(
            stream=number,
            allocation=request.match_info["id"],
            container=query.get("container", ""),
            path=path,
            is_write=is_write,
            name=query.get("name", ""),
        )

    def check() -> None:
        if not path.startswith("/") or "\0" in path:
            raise UsageError(f"'{path[:80]}' is no path in a container", fix="Begin it with /.")

    told = f"copy {'to' if is_write else 'from'} {path}"
    return await _attach(request, Offer.FILES, "copy files of containers", told, ask, check)


async def forward(request: web.Request) -> web.StreamResponse:
    """Connect to a port inside an allocation's network."""
    port = whole_number(request, "port", most=65535) or 0

    def ask(number: int) -> OpenForward:
        return OpenForward(stream=number, allocation=request.match_info["id"], port=port)

    def check() -> None:
        if not port:
            raise UsageError("there is no port to connect to", fix="Give `port`, from 1 to 65535.")

    return await _attach(request, Offer.FORWARD, "forward ports of containers", f"connect to port {port}", ask, check)


async def _attach(
    request: web.Request,
    offer: Offer,
    what: str,
    told: str,
    ask: Callable[[int], Attach],
    check: Callable[[], None],
) -> web.StreamResponse:
    """Open the caller's socket, then the stream of the agent or another server, and carry until either ends."""
    context = context_of(request)
    socket = web.WebSocketResponse(max_msg_size=MOST_MESSAGE_BYTES, timeout=CLOSE_TIMEOUT_S)
    if not socket.can_prepare(request).ok:
        raise UsageError("this needs a WebSocket", fix="See docs/api.md: the command line does it for you.")
    await socket.prepare(request)
    try:
        check()
        allocation = _allocation(context, request)
        served = context.sessions.of_node(allocation.node)
        if served is None:
            await _ask_on(request, context, allocation, socket)
        else:
            served.require(offer, what)
            opening = ask(0)
            await context.visit_writer.note(allocation, offer.value, told)
            await _serve(socket, served, opening)
    except WherryError as error:
        await _tell_end(socket, error=error)
    except (ConnectionError, ClientError):
        pass  # the caller is gone
    finally:
        await socket.close()
    return socket


def _allocation(context: Context, request: web.Request) -> Allocation:
    id_ = request.match_info["id"]
    if (allocation := context.state.allocations.get(id_)) is not None:
        return allocation
    if any(ended.id == id_ for ended in context.state.ended.values()):
        raise ConflictError(
            f"allocation {id_[:80]} has ended, and is gone from its node",
            fix="`wherry get allocations` lists those that run.",
        )
    raise unknown(request)


async def _serve(socket: web.WebSocketResponse, served: ServedSession, opening: Attach) -> None:
    stream = served.attached.open()
    try:
        await served.connection.send(opening.model_copy(update={"stream": stream.number}))
        async with TaskGroup() as tasks:
            taking = tasks.create_task(_take(socket, served, stream), name=f"input of stream {stream.number}")
            while (data := await stream.read()) is not None:
                await socket.send_bytes(bytes((data.channel,)) + data.data)
                await served.connection.send(MoreLogs(stream=stream.number, count=len(data.data)))
            taking.cancel()
    except* (ConnectionError, UnavailableError):
        pass
    finally:
        served.attached.close(stream.number)
        with contextlib.suppress(UnavailableError):
            await served.connection.send(CloseStream(stream=stream.number))
    ended = stream.ended
    if ended is None:
        return
    if ended.what:
        await _tell_problem(socket, ended.what, ended.why, ended.fix, ended.status)
    else:
        await _tell_end(socket, exit_code=ended.exit_code)


async def _take(socket: web.WebSocketResponse, served: ServedSession, stream: AttachedStream) -> None:
    """Hand the caller's input to the agent as it has room. When the caller goes, the stream ends."""
    send, number = served.connection.send, stream.number
    async for message in socket:
        if message.type is WSMsgType.BINARY and message.data[:1] == bytes((STDIN,)):
            data = message.data[1:]
            await stream.take_room(len(data))
            await served.connection.send_bytes(StreamData(number, data, STDIN).to_bytes())
        elif message.type is WSMsgType.TEXT:
            match _parsed(message.data):
                case {"type": "inputEnded"}:
                    await send(InputEnded(stream=number))
                case {"type": "resize", "columns": int(columns), "rows": int(rows)}:
                    await send(Resize(stream=number, columns=min(columns, MOST_SIZE), rows=min(rows, MOST_SIZE)))
    raise ConnectionResetError("the caller is gone")


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


async def _tell_end(
    socket: web.WebSocketResponse, *, exit_code: int | None = None, error: WherryError | None = None
) -> None:
    if error is not None:
        await _tell_problem(socket, error.what, error.why, error.fix, error.http_status)
        return
    with contextlib.suppress(ConnectionError, RuntimeError):
        await socket.send_str(json.dumps({"type": "ended", "exitCode": exit_code}))


async def _tell_problem(socket: web.WebSocketResponse, what: str, why: str, fix: str, status: int) -> None:
    problem = {"type": "about:blank", "title": what, "status": status, "detail": why, "fix": fix}
    with contextlib.suppress(ConnectionError, RuntimeError):
        await socket.send_str(json.dumps({"type": "ended", "error": problem}))


async def _ask_on(
    request: web.Request, context: Context, allocation: Allocation, socket: web.WebSocketResponse
) -> None:
    """Carry between the caller and the server that holds the node's session, with the caller's own token."""
    status = context.state.nodes.get(allocation.node)
    server = context.state.servers.get(status.server) if status else None
    if server is None or server.id == context.server.id or FORWARDED in request.headers:
        raise UnavailableError(
            f"{allocation.id} is on node {allocation.node}, which is not connected",
            fix=f"Look at `wherry describe node {allocation.node}`, and try again when the node is back.",
        )
    headers = {"Authorization": request.headers["Authorization"], FORWARDED: context.server.name}
    try:
        async with (
            context.peers.ws_connect(
                server.url + request.path_qs, headers=headers, max_msg_size=MOST_MESSAGE_BYTES
            ) as peer,
            TaskGroup() as tasks,
        ):
            back = tasks.create_task(_copy(peer, socket), name="attached: to the caller")
            forth = tasks.create_task(_copy(socket, peer), name="attached: from the caller")
            await asyncio.wait([back, forth], return_when=asyncio.FIRST_COMPLETED)
            back.cancel()
            forth.cancel()
    except ClientError as error:
        raise UnavailableError(f"server {server.name} can't be asked", why=str(error)) from error


async def _copy(
    source: web.WebSocketResponse | ClientWebSocketResponse, target: web.WebSocketResponse | ClientWebSocketResponse
) -> None:
    with contextlib.suppress(ConnectionError):
        async for message in source:
            if message.type is WSMsgType.BINARY:
                await target.send_bytes(message.data)
            elif message.type is WSMsgType.TEXT:
                await target.send_str(message.data)
