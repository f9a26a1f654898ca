"""Carries an agent's session over a WebSocket: text frames are JSON, binary ones are log bytes."""

import asyncio

from aiohttp import WSMsgType, web
from pydantic import ValidationError

from control_plane.api.context import context_of
from foundation.logs import Log
from manifests.errors import ConflictError, UnavailableError
from manifests.session import FROM_AGENT, FromAgent, FromServer, StreamData

log = Log(__name__)

MOST_FRAME_BYTES = 16 * 2**20
SEND_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 1.0


class WebSocketConnection:
    """A session's Connection over aiohttp."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    async def send(self, frame: FromServer) -> None:
        await self._send(frame.to_bytes().decode())

    async def send_bytes(self, data: bytes) -> None:
        await self._send(data)

    async def _send(self, data: str | bytes) -> None:
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                if isinstance(data, str):
                    await self._socket.send_str(data)
                else:
                    await self._socket.send_bytes(data)
        except (ConnectionError, RuntimeError, TimeoutError) as error:
            raise UnavailableError("the agent's connection is gone", why=str(error)) from error

    async def receive(self) -> FromAgent | StreamData | None:
        message = await self._socket.receive()
        if message.type is WSMsgType.BINARY:
            return StreamData.from_bytes(message.data)
        if message.type is not WSMsgType.TEXT:
            return None
        try:
            return FROM_AGENT.validate_json(message.data, extra="ignore")
        except ValidationError as error:
            raise ConflictError("an agent sent a frame that can't be read", why=str(error)[:200]) from error

    async def close(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._socket.close()
        except (TimeoutError, ConnectionError):
            log.debug("an agent's connection was dropped")


async def serve(request: web.Request) -> web.StreamResponse:
    socket = web.WebSocketResponse(max_msg_size=MOST_FRAME_BYTES, autoping=True, timeout=CLOSE_TIMEOUT_S)
    await socket.prepare(request)
    connection = WebSocketConnection(socket)
    try:
        await context_of(request).sessions.serve(connection)
    finally:
        await connection.close()
    return socket
