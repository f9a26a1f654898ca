"""A small real HTTP server that speaks as much of docs/api.md as the command line's tests need."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

Answer = tuple[int, object]


@dataclass
class Request:
    method: str
    target: str
    token: str
    body: Any
    min_revision: str = ""


@dataclass
class Stub:
    """Answers by `METHOD path`, each a status and a body or what makes them; what isn't there is 404."""

    url: str
    answers: dict[str, Answer | Callable[[Request], Answer]]
    requests: list[Request] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)  # of every answer


@contextmanager
def api_stub(answers: Mapping[str, Answer | Callable[[Request], Answer]]) -> Iterator[Stub]:
    """Serve until the block ends. A body of bytes is sent as it is and ends the connection, as a stream does."""
    stub = Stub("", dict(answers))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            token, revision = (self.headers.get(name, "") for name in ("Authorization", "Wherry-Min-Revision"))
            request = Request(self.command, self.path, token, body, revision)
            stub.requests.append(request)
            known = stub.answers.get(f"{self.command} {urlsplit(self.path).path}", (404, {"title": "there is none"}))
            status, answer = known(request) if callable(known) else known
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            if isinstance(answer, bytes):
                self.send_header("Connection", "close")
            else:
                self.send_header("Content-Length", str(len(data)))
            for name, value in stub.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PATCH = do_DELETE = _serve

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    stub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def workload(name: str, **changes: object) -> dict[str, Any]:
    """Return a healthy service as the API shows it."""
    return {
        "namespace": "default",
        "kind": "Service",
        "name": name,
        "version": 1,
        "createdAt": "2026-01-01T00:00:00.000Z",
        "manifest": {"apiVersion": "wherry/v1", "kind": "Service", "metadata": {"name": name}, "spec": {"image": "a"}},
        "state": "healthy",
        "counts": {"desired": 2, "running": 2, "ready": 2, "updated": 2, "succeeded": 0, "failed": 0},
        "blocked": [],
        "messages": [],
        **changes,
    }


def allocation(name: str, **changes: object) -> dict[str, Any]:
    """Return a running allocation as the API shows it."""
    return {
        "id": name,
        "namespace": "default",
        "kind": "Service",
        "name": "web",
        "version": 1,
        "index": 0,
        "node": "n1",
        "desired": "run",
        "createdAt": "2026-01-01T00:00:00.000Z",
        "phase": "running",
        "health": "healthy",
        "attempt": 1,
        "restarts": 0,
        "message": "",
        "lastEnding": None,
        "whySentence": "score 0.50",
        **changes,
    }


def listed(*items: object, revision: int = 5) -> Answer:
    return 200, {"revision": revision, "items": list(items)}
