"""Connects to ports inside a container's network: a socket that is made there connects there, from any thread."""

import asyncio
import ctypes
import os
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from agent.driver import Container, LogChunk
from agent.drivers.container_processes import cgroups_of
from agent.drivers.descriptors import READ_BYTES
from manifests.errors import ConflictError, DriverError, UnavailableError

CONNECT_TIMEOUT_S = 10.0
_CLONE_NEWNET = 0x40000000


class Forward:
    """Implements agent.driver.Attached."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    async def read(self) -> LogChunk | None:
        try:
            data = await asyncio.get_running_loop().sock_recv(self._connection, READ_BYTES)
        except OSError as broken:
            raise UnavailableError(
                "the connection inside the container broke", why=broken.strerror or str(broken)
            ) from broken
        return LogChunk("stdout", data) if data else None

    async def write(self, data: bytes) -> None:
        with suppress(OSError):
            await asyncio.get_running_loop().sock_sendall(self._connection, data)

    async def end_input(self) -> None:
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)

    async def resize(self, columns: int, rows: int) -> None:
        """There is no terminal."""

    async def exit_code(self) -> int:
        return 0


@asynccontextmanager
async def connecting(container: Container, port: int) -> AsyncGenerator[Forward, None]:
    """Be connected for the block. Raises ConflictError if nothing listens there."""
    with await _connected(container, port) as connection:
        yield Forward(connection)


async def _connected(container: Container, port: int) -> socket.socket:
    """Try localhost, then the container's address: some listen on the one alone, some on the other."""
    loop, refused = asyncio.get_running_loop(), ""
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"), (socket.AF_INET, container.address)):
        if not host:
            continue
        connection: socket.socket | None = None
        try:
            connection = await asyncio.to_thread(_socket_inside, container, family)
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await loop.sock_connect(connection, (host, port))
            return connection
        except (OSError, TimeoutError) as error:
            refused = refused or getattr(error, "strerror", None) or "it didn't answer in time"
            if connection is not None:
                connection.close()
    raise ConflictError(
        f"nothing listens on port {port} in the container",
        why=refused.lower(),
        fix="Is it the port of the container (not the published one), and is the program up? `wherry logs` may tell.",
    )


def _socket_inside(container: Container, family: socket.AddressFamily) -> socket.socket:
    """Return a socket of the container's network. Changes this thread's network for a moment."""
    libc = ctypes.CDLL(None, use_errno=True)
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        inside = os.open(f"/proc/{container.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if container.id not in cgroups_of(container.pid):
                raise DriverError("the container has just ended")
            if libc.setns(inside, _CLONE_NEWNET) != 0:
                number = ctypes.get_errno()
                why = os.strerror(number)
                raise DriverError("cannot enter the container's network", why=why, fix="Run the agent as root.")
            try:
                connection = socket.socket(family, socket.SOCK_STREAM)
            finally:
                if libc.setns(own, _CLONE_NEWNET) != 0:
                    os._exit(70)  # a thread of ours in a stranger's network must serve nobody any more
        finally:
            os.close(inside)
    finally:
        os.close(own)
    connection.setblocking(False)
    return connection
