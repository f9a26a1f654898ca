"""A TCP proxy for tests of what goes wrong on the way to a server: replies get lost, requests come late."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

CHUNK_BYTES = 65_536


class TcpProxy:
    """Passes bytes on to one port; `requests` and `replies` are gates, closed by `clear()` and opened by `set()`.

    Opening a gate and closing it at once lets out the one chunk that waits there.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: set[asyncio.StreamWriter] = set()
        self.requests = asyncio.Event()
        self.replies = asyncio.Event()
        self.requests.set()
        self.replies.set()
        self.endpoint = ""
        self.replied = 0  # chunks that came from the server

    def cut(self) -> None:
        """Break all connections, with whatever waits at a gate."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers |= {writer, upstream_writer}
        try:
            async with asyncio.TaskGroup() as pipes:
                pipes.create_task(self._pass_on(reader, upstream_writer, self.requests), name="requests")
                pipes.create_task(self._pass_on(upstream_reader, writer, self.replies), name="replies")
        except* OSError:
            pass  # cut, or the server went away
        finally:
            self._writers -= {writer, upstream_writer}
            writer.transport.abort()
            upstream_writer.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event) -> None:
        while chunk := await reader.read(CHUNK_BYTES):
            self.replied += gate is self.replies
            await gate.wait()
            writer.write(chunk)
            await writer.drain()
        raise ConnectionResetError("the other side closed")


@asynccontextmanager
async def tcp_proxy(port: int) -> AsyncIterator[TcpProxy]:
    proxy = TcpProxy(port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        proxy.requests.set()
        proxy.replies.set()
        proxy.cut()
        await server.wait_closed()
