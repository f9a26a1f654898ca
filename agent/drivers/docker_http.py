"""HTTP over the Unix socket of a dockerd: whole answers, streams, time limits, and errors turned into ours, once.

NotFoundError for 404, ConflictError for 409, UnavailableError when dockerd is away or hangs, DriverError for the rest,
each with Docker's own text as `why`. Knows no calls: those are in agent.drivers.docker_api.
"""

import asyncio
import io
import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from agent.drivers.docker_codec import Json
from manifests.errors import ConflictError, DriverError, NotFoundError, UnavailableError

WANTED_VERSION = "1.41"
_LONGEST_LINE = 1 << 20
_BY_STATUS: dict[int, type[DriverError] | type[NotFoundError] | type[ConflictError] | type[UnavailableError]] = {
    404: NotFoundError,
    409: ConflictError,
    503: UnavailableError,
}
# Podman answers 500 to what the client did, and names the cause.
_BY_CAUSE: dict[str, type[NotFoundError] | type[ConflictError]] = {
    "no such container": NotFoundError,
    "container state improper": ConflictError,
    "that name is already in use": ConflictError,
}


class StalledError(UnavailableError):
    """A stream was silent for too long."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request: what it is for, in words that follow "cannot", and its parts."""

    what: str
    method: str
    path: str
    params: dict[str, str] = field(default_factory=dict)
    body: Json | None = None
    data: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict, repr=False)  # one has credentials
    prefix: str | None = None  # before the path; None: the version that was agreed on


class DockerHttp:
    """One dockerd, by the path of its socket. Connects at the first call; safe for concurrent calls."""

    def __init__(self, socket: str, *, timeout_s: float) -> None:
        self.socket = socket
        self.timeout_s = timeout_s
        self._opened: aiohttp.ClientSession | None = None
        self._prefix = ""

    async def close(self) -> None:
        session, self._opened = self._opened, None
        if session is not None:
            await session.close()

    async def read(self, call: Call, *, timeout_s: float | None = None) -> bytes:
        """Return the answer's body, all of the call within one time limit."""
        limit_s = self.timeout_s if timeout_s is None else timeout_s
        with self._translated(call.what, limit_s):
            async with asyncio.timeout(limit_s):
                response = await self._send(call)
                try:
                    return await response.read()
                finally:
                    response.close()
        raise AssertionError("unreachable: every error above was raised again")

    async def object(self, call: Call, *, timeout_s: float | None = None) -> Json:
        answer = json.loads(await self.read(call, timeout_s=timeout_s))
        if not isinstance(answer, dict):
            raise DriverError(f"cannot {call.what}", why="docker answered with something else than an object")
        return answer

    async def chunks(
        self, call: Call, *, first_s: float | None = None, idle_s: float | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Yield the body as it comes. `first_s` bounds the answer's beginning, `idle_s` (None: nothing) each silence.

        Raises StalledError after such a silence.
        """
        limit_s = self.timeout_s if first_s is None else first_s
        with self._translated(call.what, limit_s):
            async with asyncio.timeout(limit_s):
                response = await self._send(call)
        try:
            while data := await self._next(call, response, idle_s):
                yield data
        finally:
            response.close()

    async def objects(
        self, call: Call, *, first_s: float | None = None, idle_s: float | None = None
    ) -> AsyncGenerator[Json, None]:
        """Yield the JSON objects of a stream that has one a line."""
        rest = b""
        async with aclosing(self.chunks(call, first_s=first_s, idle_s=idle_s)) as chunks:
            async for data in chunks:
                *lines, rest = (rest + data).split(b"\n")
                if len(rest) > _LONGEST_LINE:
                    raise DriverError(f"cannot {call.what}", why=f"docker sent a line of over {_LONGEST_LINE} bytes")
                for line in filter(bytes.strip, lines):
                    yield json.loads(line)

    async def _next(self, call: Call, response: aiohttp.ClientResponse, idle_s: float | None) -> bytes:
        try:
            async with asyncio.timeout(idle_s):
                with self._translated(call.what, self.timeout_s, translate_timeout=False):
                    return await response.content.readany()
        except TimeoutError as silence:
            raise StalledError(
                f"cannot {call.what}", why=f"nothing came from docker for {idle_s:g} s", fix=_LOOK_AT_DOCKER
            ) from silence

    async def _send(self, call: Call) -> aiohttp.ClientResponse:
        """Return the response, its body still unread; raises when its status is an error."""
        prefix = await self._version_prefix() if call.prefix is None else call.prefix
        response = await self._session().request(
            call.method,
            f"http://docker{prefix}{call.path}",
            params=call.params,
            json=call.body,
            data=None if call.data is None else io.BytesIO(call.data),  # sent in pieces, which lets others run
            headers={**call.headers, **({"Content-Type": "application/x-tar"} if call.data is not None else {})},
        )
        if response.status < 400:
            return response
        try:
            text, cause = _message(await response.text())
        finally:
            response.close()
        error = _BY_CAUSE.get(cause) or _BY_STATUS.get(response.status, DriverError)
        raise error(f"cannot {call.what}", why=text, fix="See docker's own words, and dockerd's log on the node.")

    async def hijack(self, call: Call) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return the two directions of the connection that the call becomes; whoever gets them closes the writer."""
        with self._translated(call.what, self.timeout_s):
            async with asyncio.timeout(self.timeout_s):
                prefix = await self._version_prefix()
                reader, writer = await asyncio.open_unix_connection(self.socket)
                try:
                    body = json.dumps(call.body or {}).encode()
                    head = (
                        f"{call.method} {prefix}{call.path} HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\n"
                        "Upgrade: tcp\r\nContent-Type: application/json\r\n"
                        f"Content-Length: {len(body)}\r\n\r\n"
                    )
                    writer.write(head.encode() + body)
                    answer = await reader.readuntil(b"\r\n\r\n")
                    status = int(answer.split(b" ", 2)[1])
                    if status not in (101, 200):
                        text, cause = _message((await reader.read(_LONGEST_LINE)).decode(errors="replace"))
                        error = _BY_CAUSE.get(cause) or _BY_STATUS.get(status, DriverError)
                        raise error(f"cannot {call.what}", why=text)
                except BaseException:
                    writer.close()
                    raise
        return reader, writer

    async def _version_prefix(self) -> str:
        """Return `/v1.41`, or the oldest version that a newer dockerd still speaks."""
        if not self._prefix:
            call = Call("ask for docker's version", "GET", "/version", prefix="")
            response = await self._send(call)
            try:
                answer: Any = await response.json(content_type=None)
            finally:
                response.close()
            oldest, newest = str(answer.get("MinAPIVersion", WANTED_VERSION)), str(answer["ApiVersion"])
            if _numbers(newest) < _numbers(WANTED_VERSION):
                raise DriverError(
                    "cannot drive this docker",
                    why=f"it speaks the API up to {newest} and {WANTED_VERSION} is needed",
                    fix="Upgrade to Docker 20.10 or later.",
                )
            self._prefix = f"/v{max(oldest, WANTED_VERSION, key=_numbers)}"
        return self._prefix

    def _session(self) -> aiohttp.ClientSession:
        if self._opened is None:
            # No limit: a follower holds a connection for as long as its container lives, and must not hold up others.
            self._opened = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(self.socket, limit=0), timeout=aiohttp.ClientTimeout(total=None)
            )
        return self._opened

    @contextmanager
    def _translated(self, what: str, limit_s: float, *, translate_timeout: bool = True) -> Iterator[None]:
        """Raise aiohttp's errors, and a time that ran out, as UnavailableError."""
        try:
            yield
        except TimeoutError as late:
            if not translate_timeout:
                raise
            raise UnavailableError(
                f"cannot {what}", why=f"docker did not answer within {limit_s:g} s", fix=_LOOK_AT_DOCKER
            ) from late
        except aiohttp.ClientConnectorError as refused:
            self._prefix = ""  # what comes back may be another version
            raise UnavailableError(
                f"cannot {what}",
                why=f"there is no docker at {self.socket} ({refused.os_error.strerror})",
                fix="Start it (`systemctl start docker`), or tell the agent its socket, and let it use that.",
            ) from refused
        except (aiohttp.ClientError, OSError, EOFError) as broken:
            why = f"docker broke off the connection ({broken or type(broken).__name__})"
            raise UnavailableError(f"cannot {what}", why=why, fix=_LOOK_AT_DOCKER) from broken


_LOOK_AT_DOCKER = (
    "Look at dockerd on this node (`systemctl status docker`, `journalctl -u docker`): it may hang or restart."
)


def _message(text: str) -> tuple[str, str]:
    """Return the engine's message out of an error's body, and the cause, "" if it names none."""
    try:
        body = json.loads(text)
        return str(body["message"]).strip(), str(body.get("cause", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        return text.strip(), ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
