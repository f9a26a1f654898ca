"""Calls to a cluster of etcd: one channel a member, our own rotation among them, short tries, retries, and tokens.

A proposal that was forwarded to a leader which then dies is lost, and the call waits for its own deadline: so the
deadline of one try, not the client, sets the length of an outage. Retries are safe here only because every request is
idempotent: etcd_commit makes even a transaction so.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar
from urllib.parse import urlsplit

import grpc
from grpc.aio import AioRpcError
from tenacity import AsyncRetrying, retry_if_exception

from control_plane.store.access import Credentials, Tls
from control_plane.store.etcd_errors import details, is_stale_token, is_transient, translated
from control_plane.store.etcd_methods import AUTHENTICATE
from control_plane.store.etcd_stubs import etcd_pb2 as pb
from foundation.backoff import Backoff
from foundation.clock import Clock
from foundation.grpc_method import Method, Request, Response
from foundation.logs import Log
from manifests.errors import UnavailableError, UsageError

TRY_S = 1.5
TOTAL_S = 15.0
RETRY = Backoff(first_s=0.05, most_s=1.0)
CONNECTION_OPTIONS = (
    ("grpc.max_receive_message_length", 16 << 20),  # larger pages are asked for in halves; the default is 4 MiB
    ("grpc.use_local_subchannel_pool", 1),  # else channels with the same options share a connection and its backoff
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),  # has no effect by itself (grpc 1.67 to 1.85): ping_timeout_ms has
    ("grpc.http2.ping_timeout_ms", 3_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),  # is also the deadline to connect
    ("grpc.max_reconnect_backoff_ms", 1_000),
)

Metadata: TypeAlias = tuple[tuple[str, str], ...]
Result = TypeVar("Result")
log = Log(__name__)


class Member:
    """One endpoint of etcd and its channel."""

    def __init__(self, endpoint: str, tls: Tls | None) -> None:
        url = urlsplit(endpoint)
        if url.scheme not in ("http", "https") or not url.netloc:
            raise UsageError(f"'{endpoint}' is not an endpoint of etcd", fix="Write it like http://10.0.0.1:2379.")
        self.endpoint = endpoint
        self.heard_s = float("-inf")  # when it last answered anything
        self.is_failing = False
        if url.scheme == "https":
            self._channel = grpc.aio.secure_channel(url.netloc, _channel_credentials(tls), options=CONNECTION_OPTIONS)
        else:
            self._channel = grpc.aio.insecure_channel(url.netloc, options=CONNECTION_OPTIONS)
        self._calls: dict[str, Any] = {}  # by path

    def unary(self, method: Method[Request, Response]) -> "grpc.aio.UnaryUnaryMultiCallable[Request, Response]":
        call: grpc.aio.UnaryUnaryMultiCallable[Request, Response] = self._call(self._channel.unary_unary, method)
        return call

    def stream(
        self, method: Method[Request, Response], metadata: Metadata, *, timeout_s: float | None = None
    ) -> "grpc.aio.StreamStreamCall[Request, Response]":
        """Return a new stream to write to and read from; whoever asked for it cancels it."""
        call: grpc.aio.StreamStreamCall[Request, Response]
        call = self._call(self._channel.stream_stream, method)(timeout=timeout_s, metadata=metadata)
        return call

    async def close(self) -> None:
        await self._channel.close(None)

    def _call(self, make: Callable[..., Any], method: Method[Request, Response]) -> Any:
        if method.path not in self._calls:
            self._calls[method.path] = make(
                method.path,
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.response.FromString,
            )
        return self._calls[method.path]


class Cluster:
    """All members of one etcd, of which one at a time is asked: the current one, until it fails."""

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        clock: Clock,
        rng: random.Random,
        tls: Tls | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        if not endpoints:
            raise UsageError("no endpoint of etcd is given")
        self.clock = clock
        self.rng = rng
        self.members = tuple(Member(endpoint, tls) for endpoint in endpoints)
        self._current = rng.randrange(len(self.members))  # spreads the servers over the members
        self._credentials = credentials
        self._token: str | None = None
        self._renewing = asyncio.Lock()
        self._is_closed = False

    @property
    def current(self) -> Member:
        return self.members[self._current]

    async def call(
        self, method: Method[Request, Response], request: Request, *, on_doubt: Callable[[], None] | None = None
    ) -> Response:
        """Return the answer of the first member that gives one, within TOTAL_S.

        `on_doubt` is called after each try that failed with an unknown outcome. Errors that another try can't mend
        come as AioRpcError; UnavailableError says that no member answered.
        """

        async def attempt(member: Member, timeout_s: float) -> Response:
            return await self.call_member(member, method, request, timeout_s=timeout_s)

        return await self.retry(attempt, on_doubt=on_doubt)

    async def retry(
        self,
        attempt: Callable[[Member, float], Awaitable[Result]],
        *,
        within_s: float = TOTAL_S,
        try_s: float = TRY_S,
        on_doubt: Callable[[], None] | None = None,
    ) -> Result:
        """Return the result of an idempotent attempt at the current member, which gets a timeout and is tried again."""
        ends_s = self.clock.now_s() + within_s

        async def once() -> Result:
            if self._is_closed:
                raise UnavailableError("the store is closed")
            member = self.current
            left_s = max(0.01, ends_s - self.clock.now_s())
            try:
                result = await attempt(member, min(try_s, left_s))
            except AioRpcError as error:
                if not is_transient(error):
                    raise
                if on_doubt is not None:
                    on_doubt()
                self.rotate(member, why=details(error))
                raise
            except asyncio.CancelledError:
                self._raise_if_closed()
                raise
            self.note_answer(member)
            return result

        retrying = AsyncRetrying(
            retry=_IF_TRANSIENT,
            wait=lambda state: RETRY.delay_s(state.attempt_number, self.rng),
            stop=lambda _: self.clock.now_s() + RETRY.first_s >= ends_s,
            sleep=self.clock.sleep,
            reraise=True,
        )
        try:
            return await retrying(once)
        except AioRpcError as error:
            if not is_transient(error):
                raise
            raise self._unavailable(within_s, details(error)) from error

    async def call_member(
        self, member: Member, method: Method[Request, Response], request: Request, *, timeout_s: float
    ) -> Response:
        """Return this member's answer, with a new token if the old one is dead; no other retry."""
        metadata, token = await self.metadata(member)
        try:
            return await member.unary(method)(request, timeout=timeout_s, metadata=metadata)
        except AioRpcError as error:
            if self._credentials is None or not is_stale_token(error):
                raise
        self.forget_token(token)
        metadata, _ = await self.metadata(member)
        return await member.unary(method)(request, timeout=timeout_s, metadata=metadata)

    async def metadata(self, member: Member) -> tuple[Metadata, str | None]:
        """Return what goes with each request, and the token in it, which is fetched if there is none."""
        if self._credentials is None:
            return (), None
        if self._token is None:
            async with self._renewing:
                if self._token is None:
                    self._token = await self._authenticate(member, self._credentials)
        return (("token", self._token),), self._token

    def forget_token(self, token: str | None) -> None:
        if self._token == token:
            self._token = None

    def rotate(self, member: Member, *, why: str) -> None:
        """Go on with the next member, unless somebody else did already."""
        if not member.is_failing:
            member.is_failing = True
            log.warning("etcd member failed", endpoint=member.endpoint, why=why)
        if self.current is member:
            self._current = (self._current + 1) % len(self.members)

    def note_answer(self, member: Member) -> None:
        member.heard_s = self.clock.now_s()
        if member.is_failing:
            member.is_failing = False
            log.info("etcd member recovered", endpoint=member.endpoint)

    async def close(self) -> None:
        self._is_closed = True
        for member in self.members:
            await member.close()

    async def _authenticate(self, member: Member, credentials: Credentials) -> str:
        request = pb.AuthenticateRequest(name=credentials.user, password=credentials.password)
        try:
            return (await member.unary(AUTHENTICATE)(request, timeout=TRY_S)).token
        except AioRpcError as error:
            if is_transient(error):
                raise
            raise translated(error, member.endpoint) from error

    def _raise_if_closed(self) -> None:
        """Tell the cancellation of a call by `close` from that of the calling task, which must pass."""
        task = asyncio.current_task()
        if self._is_closed and task is not None and not task.cancelling():
            raise UnavailableError("the store is closed")

    def _unavailable(self, within_s: float, why: str) -> UnavailableError:
        endpoints = ", ".join(member.endpoint for member in self.members)
        return UnavailableError(
            f"etcd did not answer in {within_s:g} s",
            why=f"the last of {endpoints} said: {why or 'nothing'}",
            fix="Check that most of its members run and can be reached.",
        )


_IF_TRANSIENT = retry_if_exception(lambda error: isinstance(error, AioRpcError) and is_transient(error))


def _channel_credentials(tls: Tls | None) -> grpc.ChannelCredentials:
    def content(path: Path | None) -> bytes | None:
        return path.read_bytes() if path is not None else None

    if tls is None:
        return grpc.ssl_channel_credentials()
    return grpc.ssl_channel_credentials(content(tls.ca), content(tls.key), content(tls.certificate))
