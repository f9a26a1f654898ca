"""The async client library: one method for each thing the API does, over any of several servers.

    async with Client(["https://10.0.0.1:7400"], token) as client:
        await client.apply([manifest])

Errors are the classes of manifests.errors, made from the server's problem details. Reads go on to the next server when
one doesn't answer; a write does so only when it can't have reached the first.
"""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias
from urllib.parse import quote, urlencode

import aiohttp

from manifests.errors import BY_HTTP_STATUS, UnavailableError, UsageError, WherryError

Json: TypeAlias = dict[str, Any]

CONNECT_TIMEOUT_S = 5.0
SESSION_CONNECT_TIMEOUT_S = 2.0  # an agent must be with another server before its node counts as lost
SESSION_CLOSE_TIMEOUT_S = 0.3  # likewise: where nobody answers, a goodbye is in vain
CALL_TIMEOUT_S = 30.0
STREAM_IDLE_S = 35.0  # a watch hears of progress every 10 s
MOST_LINE_BYTES = 16 * 2**20
GENERATION, MIN_REVISION = "Wherry-Generation", "Wherry-Min-Revision"


class Client:
    """Use it as an async context manager. `servers` are base URLs, `ca_file` the CA that signs their certificates."""

    def __init__(self, servers: Sequence[str], token: str, ca_file: Path | None = None) -> None:
        if not servers:
            raise UsageError("no server is given", fix="Name at least one, e.g. http://127.0.0.1:7400.")
        self._servers = [server.rstrip("/") for server in servers]
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._tls: ssl.SSLContext | bool = ssl.create_default_context(cafile=str(ca_file)) if ca_file else True
        self._http: aiohttp.ClientSession | None = None
        self._newest: dict[str, str] = {}  # the headers that say how new an answer must be

    async def __aenter__(self) -> Self:
        # No limit: a hundred followed logs must not keep other calls waiting.
        connector = aiohttp.TCPConnector(limit=0, ssl=self._tls)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)
        self._http = aiohttp.ClientSession(
            connector=connector, timeout=timeout, headers=self._headers, read_bufsize=2**16
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._http is not None:
            await self._http.close()

    # Calls.

    async def cluster(self) -> Json:
        return await self.request("GET", "/v1/cluster")

    async def list(self, collection: str, **query: str) -> Json:
        """Return `{"revision", "items"}` of nodes, workloads, allocations or events."""
        return await self.request("GET", f"/v1/{collection}", query=query)

    async def workload(self, namespace: str, kind: str, name: str) -> Json:
        return await self.request("GET", _path("workloads", namespace, kind, name))

    async def node(self, name: str) -> Json:
        return await self.request("GET", _path("nodes", name))

    async def allocation(self, allocation: str) -> Json:
        return await self.request("GET", _path("allocations", allocation))

    async def apply(self, documents: Sequence[Json], *, dry_run: bool = False) -> Json:
        """Apply all manifests or none; return `{"revision", "results"}`."""
        return await self.request("POST", "/v1/apply", body={"documents": list(documents), "dryRun": dry_run})

    async def delete(self, namespace: str, kind: str, name: str) -> None:
        await self.request("DELETE", _path("workloads", namespace, kind, name))

    async def scale(self, namespace: str, kind: str, name: str, replicas: int) -> Json:
        path = _path("workloads", namespace, kind, name)
        return await self.request("POST", f"{path}/scale", body={"replicas": replicas})

    async def rollout(self, namespace: str, kind: str, name: str, action: str, *, version: int | None = None) -> Json:
        """Pause, resume, promote, restart or undo (to that version, or to the last that was healthy)."""
        path = _path("workloads", namespace, kind, name)
        return await self.request("POST", f"{path}/rollout/{action}", body={"version": version} if version else None)

    async def versions(self, namespace: str, kind: str, name: str) -> Json:
        """Return `{"revision", "items"}` of the kept versions, newest first."""
        return await self.request("GET", _path("workloads", namespace, kind, name) + "/versions")

    async def explain(self, namespace: str, kind: str, name: str, **query: str) -> Json:
        """Return why it is where it is, why one more isn't elsewhere, and what would help; `node`: on it alone."""
        return await self.request("GET", _path("workloads", namespace, kind, name) + "/explain", query=query)

    async def rehearse(self, documents: Sequence[Json] = (), **question: Any) -> Json:
        """Return what would come of it, and of `lose`, `drain`, `add` and `atRevision`: see docs/api.md."""
        return await self.request("POST", "/v1/rehearse", body={"documents": list(documents), **question})

    async def request(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, body: Json | None = None
    ) -> Json:
        """Return the JSON answer, {} if there is none. Raises the WherryError that the server or the network meant."""
        failure: WherryError = UnavailableError("no server answers")
        for server in self._servers:
            try:
                async with asyncio.timeout(CALL_TIMEOUT_S):
                    return await self._call(method, _url(server, path, query), body)
            except aiohttp.ClientConnectorError as error:
                failure = _unreachable(server, error)
            except UnavailableError as error:  # this server can't, for want of the store or of news: another may
                failure = error
                if method != "GET":
                    raise
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                failure = _unreachable(server, error)
                if method != "GET":  # it may have been done: only the caller can find out
                    raise failure from error
        raise failure

    async def _call(self, method: str, url: str, body: Json | None) -> Json:
        async with self._open_http.request(
            method, url, json=body, allow_redirects=False, headers=self._newest
        ) as answer:
            data = await answer.read()
            if answer.status >= 300:
                raise error_from(answer.status, data)
            self._note_revision(answer)
            return dict(json.loads(data)) if data else {}

    def _note_revision(self, answer: aiohttp.ClientResponse) -> None:
        """Remember how new the newest answer was: another server must not take the caller back in time."""
        generation, revision = answer.headers.get(GENERATION, ""), answer.headers.get("Wherry-Revision", "")
        if not generation or not revision.isdigit():
            return
        is_same = self._newest.get(GENERATION) == generation
        newest = max(int(revision), int(self._newest[MIN_REVISION])) if is_same else int(revision)
        self._newest = {GENERATION: generation, MIN_REVISION: str(newest)}

    # Streams.

    async def watch(self, *, after: int | None = None, types: Sequence[str] = ()) -> AsyncIterator[Json]:
        """Yield CHANGEs until the server ends; then watch again after the last revision. CompactedError: list again."""
        query = {"after": str(after)} if after is not None else {}
        if types:
            query["types"] = ",".join(types)
        async with self._stream("/v1/watch", query, idle_s=STREAM_IDLE_S) as content:
            rest = b""
            async for chunk in content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                if len(rest) > MOST_LINE_BYTES:
                    raise WherryError("the server sent a line without end")
                for line in lines:
                    if line:
                        yield json.loads(line)

    async def logs(
        self,
        allocation: str,
        *,
        container: str = "",
        follow: bool = False,
        tail: int | None = None,
        timestamps: bool = False,
        since: str = "",
        previous: bool = False,
    ) -> AsyncIterator[bytes]:
        """Yield what an allocation wrote, as it comes; of a group, what the named container wrote.

        `timestamps`: each line begins with when it was written, and a space. The last of these, given as `since`, goes
        on where a stream broke off, beginning with the line of that time. `previous`: of the attempt before.
        """
        query = {"follow": str(follow).lower(), "timestamps": str(timestamps).lower()}
        if since:
            query["since"] = since
        if previous:
            query["previous"] = "true"
        if container:
            query["container"] = container
        if tail is not None:
            query["tail"] = str(tail)
        idle_s = None if follow else CALL_TIMEOUT_S
        async with self._stream(f"{_path('allocations', allocation)}/logs", query, idle_s=idle_s) as content:
            async for chunk in content.iter_any():
                yield chunk

    @asynccontextmanager
    async def _stream(
        self, path: str, query: Mapping[str, str], *, idle_s: float | None
    ) -> AsyncIterator[aiohttp.StreamReader]:
        failure: WherryError = UnavailableError("no server answers")
        for server in self._servers:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=idle_s)
            try:
                url = _url(server, path, query)
                answer = await self._open_http.get(url, timeout=timeout, allow_redirects=False, headers=self._newest)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                failure = _unreachable(server, error)
                continue
            async with answer:
                if answer.status >= 300:
                    raise error_from(answer.status, await answer.read())
                try:
                    yield answer.content
                except (aiohttp.ClientError, OSError, TimeoutError) as error:
                    raise _unreachable(server, error) from error
                return
        raise failure

    @asynccontextmanager
    async def attach(self, allocation: str, what: str, query: Sequence[tuple[str, str]]) -> AsyncIterator["Attachment"]:
        """Enter a container: `what` is exec, with its query; see docs/api.md. The server tells errors at the end."""
        failure: WherryError = UnavailableError("no server answers")
        for server in self._servers:
            url = f"{server}{_path('allocations', allocation)}/{what}?{urlencode(query)}"
            try:
                async with asyncio.timeout(CALL_TIMEOUT_S):
                    socket = await self._open_http.ws_connect(url, max_msg_size=MOST_LINE_BYTES, headers=self._newest)
            except aiohttp.WSServerHandshakeError as error:
                kind = BY_HTTP_STATUS.get(error.status, UnavailableError)
                why = f"it answered {error.status}"
                fix = "Is the token that of an admin of this cluster?" if error.status in (401, 403) else ""
                if error.status == 404:
                    fix = "Servers older than this command don't know how: upgrade them."
                raise kind(f"server {server} refused to {what}", why=why, fix=fix) from error
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                failure = _unreachable(server, error)
                continue
            try:
                yield Attachment(socket)
            finally:
                await socket.close()
            return
        raise failure

    @asynccontextmanager
    async def session(self, server: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """Open an agent's session with that very server."""
        try:
            async with asyncio.timeout(SESSION_CONNECT_TIMEOUT_S):
                socket = await self._open_http.ws_connect(
                    _url(server.rstrip("/"), "/v1/session", None),
                    max_msg_size=MOST_LINE_BYTES,
                    timeout=aiohttp.ClientWSTimeout(ws_close=SESSION_CLOSE_TIMEOUT_S),
                )
        except aiohttp.WSServerHandshakeError as error:
            kind = BY_HTTP_STATUS.get(error.status, UnavailableError)
            raise kind(f"server {server} refused the session", why=f"it answered {error.status}") from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _unreachable(server, error) from error
        try:
            yield socket
        finally:
            await socket.close()

    @property
    def servers(self) -> Sequence[str]:
        return tuple(self._servers)

    @property
    def _open_http(self) -> aiohttp.ClientSession:
        if self._http is None:
            raise RuntimeError("the client is used outside its `async with`")
        return self._http


class Attachment:
    """What `Client.attach` opens: bytes both ways, each output with its channel (1 stdout, 2 stderr)."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self.exit_code: int | None = None  # once the output has ended

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """Yield what comes until it ends. Raises what the server says went wrong, and if the connection breaks."""
        async for message in self._socket:
            if message.type is aiohttp.WSMsgType.BINARY:
                yield message.data[0], message.data[1:]
            elif message.type is aiohttp.WSMsgType.TEXT:
                ended = json.loads(message.data)
                if problem := ended.get("error"):
                    raise error_from(int(problem.get("status") or 500), json.dumps(problem).encode())
                self.exit_code = ended.get("exitCode")
                return
        raise UnavailableError(
            "the connection to the container broke off",
            why="the server went away",
            fix="A command that ran was ended with it. Run it again: another server will do.",
        )

    async def write(self, data: bytes) -> None:
        """Send input; returns as the way has room. Dropped once the other end is closed."""
        with suppress(ConnectionError, aiohttp.ClientError):
            await self._socket.send_bytes(b"\0" + data)

    async def end_input(self) -> None:
        with suppress(ConnectionError, aiohttp.ClientError):
            await self._socket.send_str('{"type": "inputEnded"}')

    async def resize(self, columns: int, rows: int) -> None:
        with suppress(ConnectionError, aiohttp.ClientError):
            await self._socket.send_str(json.dumps({"type": "resize", "columns": columns, "rows": rows}))


def error_from(status: int, data: bytes) -> WherryError:
    """Return the error that a server's problem details describe."""
    try:
        problem = dict(json.loads(data))
    except (ValueError, TypeError):
        problem = {}
    kind = BY_HTTP_STATUS.get(status, WherryError)
    what = str(problem.get("title") or f"the server answered {status}")
    why = str(problem.get("detail") or "")
    problems = [f"{p.get('path')}: {p.get('message')}" for p in problem.get("problems") or () if isinstance(p, dict)]
    return kind(what, why="; ".join([why, *problems] if why else problems), fix=str(problem.get("fix") or ""))


def _path(collection: str, *parts: str) -> str:
    return "/".join(["/v1", collection, *(quote(part.lower(), safe="") for part in parts)])


def _url(server: str, path: str, query: Mapping[str, str] | None) -> str:
    return f"{server}{path}?{urlencode(query)}" if query else f"{server}{path}"


def _unreachable(server: str, error: BaseException) -> UnavailableError:
    why = str(error) or type(error).__name__
    return UnavailableError(f"server {server} can't be reached", why=why, fix="Is it up, and is the address right?")
