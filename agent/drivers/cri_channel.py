"""gRPC over the Unix socket of a container runtime: calls and streams, time limits, and errors turned into ours, once.

NotFoundError and ConflictError for what isn't there and what is there already, UnavailableError when the runtime is
away or hangs, UnimplementedError for what it doesn't know, DriverError for the rest, each with its own text as `why`.
The calls are in agent.drivers.cri_methods.
"""

from collections.abc import AsyncGenerator, Callable
from typing import Any, Generic

import grpc
from grpc.aio import AioRpcError

from agent.drivers.cri_methods import VERSION
from foundation.grpc_method import Method, Request, Response
from manifests.errors import ConflictError, DriverError, NotFoundError, UnavailableError, WherryError

MOST_MESSAGE_BYTES = 16 << 20  # as containerd has it
_OPTIONS = (
    ("grpc.max_receive_message_length", MOST_MESSAGE_BYTES),
    ("grpc.use_local_subchannel_pool", 1),  # else drivers of one socket share a connection, and its backoff
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    ("grpc.default_authority", "localhost"),
)
# Texts of errors that come without a status of their own.
_RESERVED = "is reserved"
_STARTS = "server is not initialized yet"
_NO_CONNECTION = ("failed to connect", "connection refused", "no such file or directory")


class UnimplementedError(DriverError):
    """The runtime doesn't know this call."""


class CriChannel:
    """One runtime, by the path of its socket. Connects at the first call; safe for concurrent calls."""

    def __init__(self, socket: str, *, timeout_s: float) -> None:
        self.socket = socket
        self.timeout_s = timeout_s
        self._channel: grpc.aio.Channel | None = None
        self._calls: dict[str, Any] = {}  # by path, of this channel

    async def close(self) -> None:
        channel, self._channel = self._channel, None
        self._calls = {}
        if channel is not None:
            await channel.close()

    async def call(
        self, method: Method[Request, Response], request: Request, what: str, *, timeout_s: float | None = None
    ) -> Response:
        """Return the answer; `what` follows "cannot" in what is said of a failure."""
        limit_s = self.timeout_s if timeout_s is None else timeout_s
        made = await self._made("unary_unary", method)
        try:
            answer: Response = await made(request, timeout=limit_s)
        except AioRpcError as error:
            raise self.translated(error, what, limit_s) from error
        return answer

    async def stream(self, method: Method[Request, Response], request: Request, what: str) -> "Stream[Response]":
        """Return what comes from now on, however long it is silent, until the runtime ends it or goes away."""
        made = await self._made("unary_stream", method)
        return Stream(made(request), lambda error: self.translated(error, what, self.timeout_s))

    async def _made(self, kind: str, method: Method[Request, Response]) -> Any:
        """Return the call, on a channel that doesn't wait before it tries to connect again."""
        failed = self._channel
        if failed is not None and failed.get_state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
            self._channel, self._calls = None, {}
            await failed.close()
        if self._channel is None:
            self._channel, self._calls = grpc.aio.insecure_channel(f"unix:{self.socket}", options=_OPTIONS), {}
        if method.path not in self._calls:
            self._calls[method.path] = getattr(self._channel, kind)(
                method.path,
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.response.FromString,
            )
        return self._calls[method.path]

    def translated(self, error: AioRpcError, what: str, limit_s: float) -> WherryError:
        text, code = error.details() or "", error.code()
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            why = f"the container runtime did not answer within {limit_s:g} s"
            return UnavailableError(f"cannot {what}", why=why, fix=_LOOK)
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED) or _STARTS in text:
            if any(part in text.lower() for part in _NO_CONNECTION):
                return UnavailableError(
                    f"cannot {what}",
                    why=f"there is no container runtime at {self.socket} ({text})",
                    fix="Start it (`systemctl start containerd`), or tell the agent its socket, and let it use that.",
                )
            return UnavailableError(f"cannot {what}", why=f"the container runtime broke off: {text}", fix=_LOOK)
        if code is grpc.StatusCode.UNIMPLEMENTED:
            return UnimplementedError(
                f"cannot {what}",
                why=text,
                fix="Use containerd 1.6 or later, or a CRI-O of its time, with its CRI switched on.",
            )
        if code is grpc.StatusCode.NOT_FOUND:
            return NotFoundError(f"cannot {what}", why=text)
        if code is grpc.StatusCode.ALREADY_EXISTS or _RESERVED in text:
            return ConflictError(f"cannot {what}", why=text)
        return DriverError(f"cannot {what}", why=text, fix="See the runtime's own words, and its log on the node.")


def answers_in(socket: str, seconds: float) -> bool:
    """Say whether a runtime with this CRI answers on the socket. Blocks so long at most."""
    with grpc.insecure_channel(f"unix:{socket}", options=_OPTIONS) as channel:
        ask = channel.unary_unary(VERSION.path, VERSION.request.SerializeToString, VERSION.response.FromString)
        try:
            ask(VERSION.request(), timeout=seconds)
        except grpc.RpcError:
            return False
        return True


class Stream(Generic[Response]):
    """Answers that come one by one. `aclose` it."""

    def __init__(self, call: Any, translate: Callable[[AioRpcError], WherryError]) -> None:
        self._call, self._translate = call, translate

    async def __aiter__(self) -> AsyncGenerator[Response, None]:
        try:
            async for answer in self._call:
                yield answer
        except AioRpcError as error:
            raise self._translate(error) from error

    async def aclose(self) -> None:
        self._call.cancel()


_LOOK = "Look at the runtime on this node (`systemctl status containerd`): it may hang or restart."
