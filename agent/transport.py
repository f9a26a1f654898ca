"""How frames travel between an agent and a server: a Protocol for the session, and the WebSocket that implements it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import aiohttp
from pydantic import ValidationError

from manifests.errors import UnavailableError
from manifests.session import FROM_SERVER, FromAgent, FromServer, StreamData
from wherry.client import Client

SEND_TIMEOUT_S = 10.0


class Channel(Protocol):
    """One open connection. All methods raise UnavailableError once it is gone."""

    async def send(self, frame: FromAgent) -> None: ...

    async def send_bytes(self, data: bytes) -> None:
        """Send the bytes of a stream; returns when the peer has room for more."""
        ...

    async def receive(self) -> FromServer | StreamData: ...


class Transport(Protocol):
    def connect(self, server: str) -> AbstractAsyncContextManager[Channel]: ...


class WebSocketTransport:
    """Opens sessions through the client library."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @asynccontextmanager
    async def connect(self, server: str) -> AsyncIterator[Channel]:
        async with self._client.session(server) as socket:
            yield _WebSocketChannel(socket)


class _WebSocketChannel:
    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket

    async def send(self, frame: FromAgent) -> None:
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
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise UnavailableError("the session's connection is gone", why=str(error)) from error

    async def receive(self) -> FromServer | StreamData:
        message = await self._socket.receive()
        if message.type is aiohttp.WSMsgType.BINARY:
            return StreamData.from_bytes(message.data)
        if message.type is not aiohttp.WSMsgType.TEXT:
            raise UnavailableError("the server closed the session")
        try:
            return FROM_SERVER.validate_json(message.data, extra="ignore")
        except ValidationError as error:
            # Nothing is obeyed of what can't be read; a new session begins with everything once more.
            raise UnavailableError("a server sent a frame that can't be read", why=str(error)[:300]) from error
