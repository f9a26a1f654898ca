"""Blocking HTTP to the control plane: several servers tried in turn, errors as WherryError, and streams.

A call moves on to the next server when one can't be reached. Once a request was sent, only reads are tried elsewhere:
an unknown outcome of a write is the user's to look at. Stdlib only, because start-up time is a feature.
"""

import json
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from manifests.errors import BY_HTTP_STATUS, InvalidError, UnauthorizedError, UnavailableError, UsageError, WherryError
from wherry.cli.connection import Connection
from wherry.cli.text import clean

CONNECT_TIMEOUT_S = 4.0
ANSWER_TIMEOUT_S = 30.0
WATCH_SILENCE_S = 25.0  # a watch says `progress` every 10 s
_MOST_PROBLEM_BYTES = 1_000_000

Query = Mapping[str, str | int | None]


class Problem(NamedTuple):
    """What a server found wrong in one document of a request."""

    document: int
    path: str
    message: str


class RefusedDocumentsError(InvalidError):
    """The server found the documents of a request wrong, each problem with the document's number."""

    def __init__(self, what: str, *, why: str, fix: str, refused: Sequence[Problem]) -> None:
        super().__init__(what, why=why, fix=fix)
        self.refused = tuple(refused)

    def __str__(self) -> str:
        lines = [f"  document {p.document + 1}: {p.path}: {p.message}" for p in self.refused]
        return "\n".join([super().__str__(), *lines])


class Transport:
    """Calls to one cluster. Not for use by several threads at once: give each its own."""

    def __init__(self, connection: Connection, *, connect_timeout_s: float = CONNECT_TIMEOUT_S) -> None:
        self._kept: HTTPConnection | None = None
        self.connection = connection
        self._connect_timeout_s = connect_timeout_s
        self._warnings: set[str] = set()  # said already
        self._newest: dict[str, str] = {}  # the headers that say how new an answer must be
        self._servers = list(connection.servers)  # the one that answered last stands first

    def __del__(self) -> None:
        if self._kept is not None:
            self._kept.close()

    def get(self, path: str, query: Query | None = None, *, timeout_s: float = ANSWER_TIMEOUT_S) -> Any:
        return self._call("GET", _target(path, query), None, timeout_s)

    def post(self, path: str, body: object = None, *, timeout_s: float = ANSWER_TIMEOUT_S) -> Any:
        return self._call("POST", _target(path, None), body, timeout_s)

    def delete(self, path: str, *, timeout_s: float = ANSWER_TIMEOUT_S) -> Any:
        return self._call("DELETE", _target(path, None), None, timeout_s)

    @contextmanager
    def open_stream(
        self, path: str, query: Query | None = None, *, silence_s: float | None = None
    ) -> Iterator[HTTPResponse]:
        """Yield an answer to be read as it comes; a read fails after `silence_s` without a byte (None: never)."""
        http, response = self._send("GET", _target(path, query), None, silence_s, keep=False)
        try:
            yield response
        finally:
            response.close()
            http.close()

    def watch(self, *, types: str, after: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield the CHANGEs of /v1/watch. Ends or raises UnavailableError when the server goes away."""
        with self.open_stream("/v1/watch", {"types": types, "after": after}, silence_s=WATCH_SILENCE_S) as response:
            while line := _foreseen(response.readline, "the watch broke off"):
                if line.strip():
                    yield _parsed(line, "/v1/watch")

    def read_chunk(self, response: HTTPResponse) -> bytes:
        """Return the next bytes of a stream as soon as there are any; none at its end."""
        return _foreseen(lambda: response.read1(65536), "the stream broke off")

    def _call(self, method: str, target: str, body: object, timeout_s: float) -> Any:
        http, response = self._send(method, target, body, timeout_s, keep=True)
        data = _foreseen(response.read, f"the answer to {method} {target} broke off")
        if response.will_close:
            http.close()
        else:
            self._kept = http
        return _parsed(data, target) if data.strip() else None

    def _send(
        self, method: str, target: str, body: object, timeout_s: float | None, *, keep: bool
    ) -> tuple[HTTPConnection, HTTPResponse]:
        """Return the first server's answer that is not an error. Raises what the last one tried said otherwise."""
        failures: list[str] = []
        refusal: WherryError | None = None
        for server in list(self._servers):
            try:
                http = self._connected(server, reuse=keep and method == "GET")
            except OSError as error:
                failures.append(f"{server}: {_reason(error)}")
                continue
            try:
                response = self._ask(http, server, method, target, body, timeout_s)
            except (OSError, HTTPException) as error:
                http.close()
                if method != "GET":
                    raise _unknown_outcome(method, target, server, error) from error
                failures.append(f"{server}: {_reason(error)}")
                continue
            if response.status < 400:
                self._note_revision(response)
                self._prefer(server)
                self._warn(response)
                return http, response
            refusal = _error_of(response, target, self.connection)
            http.close()
            if method != "GET" or not isinstance(refusal, UnavailableError):
                raise refusal
        raise refusal or self._unreachable(failures)

    def _connected(self, server: str, *, reuse: bool) -> HTTPConnection:
        kept, self._kept = self._kept, None
        if kept is not None:
            if reuse and _is_to(kept, server) and not _is_stale(kept):
                return kept
            kept.close()
        http = _connection_to(server, self.connection.ca_file, self._connect_timeout_s)
        http.connect()
        return http

    def _ask(
        self, http: HTTPConnection, server: str, method: str, target: str, body: object, timeout_s: float | None
    ) -> HTTPResponse:
        headers = {"Accept": "application/json", "User-Agent": "wherry", **self._newest}
        if self.connection.token:
            headers["Authorization"] = f"Bearer {self.connection.token}"
        data = None if body is None else json.dumps(body).encode()
        if data is not None:
            headers["Content-Type"] = "application/json"
        assert http.sock is not None
        http.sock.settimeout(timeout_s)
        http.request(method, target, body=data, headers=headers)
        return http.getresponse()

    def _note_revision(self, response: HTTPResponse) -> None:
        """Remember how new the newest answer was: another server must not take the user back in time."""
        generation, revision = response.getheader("Wherry-Generation"), response.getheader("Wherry-Revision")
        if not generation or not revision or not revision.isdigit():
            return
        is_same = self._newest.get("Wherry-Generation") == generation
        newest = max(int(revision), int(self._newest["Wherry-Min-Revision"])) if is_same else int(revision)
        self._newest = {"Wherry-Generation": generation, "Wherry-Min-Revision": str(newest)}

    def _warn(self, response: HTTPResponse) -> None:
        """Say once each what the server warns of: answers that may be out of date, a cluster that is frozen."""
        for warning in response.headers.get_all("Warning") or ():
            text = clean(warning.partition('"')[2].rstrip('"'))
            if text not in self._warnings:
                self._warnings.add(text)
                print(f"warning: {text}", file=sys.stderr)

    def _prefer(self, server: str) -> None:
        self._servers.remove(server)
        self._servers.insert(0, server)

    def _unreachable(self, failures: list[str]) -> UnavailableError:
        return UnavailableError(
            "the cluster doesn't answer",
            why="; ".join(failures),
            fix=f"The address comes from {self.connection.source}. Is the server running? Start one with `wherry dev` "
            "or `wherry server`,\nor name another with --server URL.",
        )


def segment(name: str) -> str:
    """Return a name as one segment of a path, whatever it holds."""
    return quote(name, safe="")


def _target(path: str, query: Query | None) -> str:
    given = {key: value for key, value in (query or {}).items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path


def _connection_to(server: str, ca_file: str | None, timeout_s: float) -> HTTPConnection:
    address = urlsplit(server)
    host = address.hostname or ""
    try:
        port = address.port
    except ValueError as error:
        raise UsageError(f"'{server}' is not a server's URL", why=str(error)) from error
    if address.scheme == "https":
        import ssl

        try:
            context = ssl.create_default_context(cafile=ca_file)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(f"can't use the CA file {ca_file}", why=_reason(error)) from error
        return HTTPSConnection(host, port, timeout=timeout_s, context=context)
    return HTTPConnection(host, port, timeout=timeout_s)


def _is_to(http: HTTPConnection, server: str) -> bool:
    address = urlsplit(server)
    return (http.host, http.port) == (address.hostname, address.port or http.default_port)


def _is_stale(http: HTTPConnection) -> bool:
    """Say whether the server has closed a connection that nothing is under way on: it would be readable."""
    import select

    if http.sock is None:
        return True
    return bool(select.select([http.sock], [], [], 0)[0])


def _foreseen(read: Callable[[], bytes], what: str) -> bytes:
    """Return what a read gives, with a broken connection as UnavailableError."""
    try:
        return read()
    except (OSError, HTTPException) as error:
        raise UnavailableError(what, why=_reason(error)) from error


def _parsed(data: bytes, target: str) -> dict[str, Any]:
    try:
        answer = json.loads(data)
    except ValueError as error:
        raise WherryError(f"the answer to {target} is not JSON", why=str(error), fix=_NOT_WHERRY) from error
    if not isinstance(answer, dict):
        raise WherryError(f"the answer to {target} is not a JSON object", fix=_NOT_WHERRY)
    return answer


_NOT_WHERRY = "Is this address that of a Wherry server?"


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it didn't answer in time"
    if isinstance(error, socket.gaierror):
        return "its name can't be resolved"
    text = (
        getattr(error, "verify_message", "") or getattr(error, "strerror", None) or str(error) or type(error).__name__
    )
    return str(text)[:1].lower() + str(text)[1:]


def _unknown_outcome(method: str, target: str, server: str, error: Exception) -> UnavailableError:
    return UnavailableError(
        f"no answer to {method} {target}",
        why=f"{server}: {_reason(error)}",
        fix="It may have been done or not: look with `wherry get`, and then run the command again if need be.",
    )


def _error_of(response: HTTPResponse, target: str, connection: Connection) -> WherryError:
    """Return the error that a problem document describes, or what can be said without one."""
    try:
        data = response.read(_MOST_PROBLEM_BYTES)
        body = json.loads(data) if data else {}
    except (ValueError, OSError, HTTPException):
        body = {}
    known = body if isinstance(body, dict) else {}
    what = str(known.get("title") or f"{response.status} {response.reason} for {target}")
    why = str(known.get("detail") or "")
    fix = str(known.get("fix") or ("" if known else _NOT_WHERRY))
    if why.startswith(what):
        what, why = why, ""
    if response.status == UnauthorizedError.http_status and not fix:
        fix = _fix_of_token(connection)
    if response.status == InvalidError.http_status:
        return RefusedDocumentsError(what, why=why, fix=fix, refused=_problems_of(known.get("problems")))
    return BY_HTTP_STATUS.get(response.status, WherryError)(what, why=why, fix=fix)


def _fix_of_token(connection: Connection) -> str:
    if not connection.token:
        return "Name the file that holds your token with --token-file FILE, or set WHERRY_TOKEN."
    return f"The servers come from {connection.source}; is the token of the same cluster?"


def _problems_of(problems: object) -> list[Problem]:
    listed = [p for p in problems if isinstance(p, dict)] if isinstance(problems, list) else []
    return [Problem(int(p.get("document") or 0), str(p.get("path") or ""), str(p.get("message") or "")) for p in listed]
