"""The blocking transport against a real HTTP server: failover, errors, streams."""

import json
import socket

import pytest

from manifests.errors import (
    CompactedError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    TimedOutError,
    UnauthorizedError,
    UnavailableError,
    UsageError,
    WherryError,
)
from wherry.cli.connection import Connection
from wherry.cli.transport import RefusedDocumentsError, Transport

from .api_stub import Request, api_stub, listed


def to(*servers: str, token: str = "t") -> Transport:
    return Transport(Connection(servers, token, None, "--server"))


def dead_url() -> str:
    """Return the URL of a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_a_dead_server_is_passed_over_and_the_living_one_kept_first() -> None:
    with api_stub({"GET /v1/nodes": listed()}) as stub:
        transport = to(dead_url(), stub.url)
        assert transport.get("/v1/nodes", {"a": "b c", "none": None})["items"] == []
        assert transport.get("/v1/nodes")["revision"] == 5
        assert stub.requests[0].target == "/v1/nodes?a=b+c"
        assert stub.requests[0].token == "Bearer t"


def test_when_none_answers_each_is_named_with_what_to_do() -> None:
    first, second = dead_url(), dead_url()
    with pytest.raises(UnavailableError) as caught:
        to(first, second).get("/v1/nodes")
    assert first in caught.value.why
    assert second in caught.value.why
    assert "wherry dev" in caught.value.fix


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, UsageError),
        (401, UnauthorizedError),
        (403, ForbiddenError),
        (404, NotFoundError),
        (409, ConflictError),
        (410, CompactedError),
        (503, UnavailableError),
        (504, TimedOutError),
        (500, WherryError),
    ],
)
def test_problem_details_become_the_class_with_its_words(status: int, error: type[WherryError]) -> None:
    with api_stub({"GET /v1/x": (status, {"title": "what", "detail": "why", "fix": "fix"})}) as stub:
        with pytest.raises(error) as caught:
            to(stub.url).get("/v1/x")
        assert type(caught.value) is error
        assert (caught.value.what, caught.value.why, caught.value.fix) == ("what", "why", "fix")


def test_faults_of_documents_keep_their_numbers() -> None:
    problems = [{"document": 1, "path": "spec.replicas", "message": "must be at least 0"}]
    with api_stub({"POST /v1/apply": (422, {"title": "1 problem", "problems": problems})}) as stub:
        with pytest.raises(RefusedDocumentsError) as caught:
            to(stub.url).post("/v1/apply", {})
        assert [tuple(p) for p in caught.value.refused] == [(1, "spec.replicas", "must be at least 0")]


def test_a_server_that_can_not_serve_now_is_passed_over_for_reads_only() -> None:
    away = (503, {"title": "no leader"})
    with (
        api_stub({"GET /v1/nodes": away, "POST /v1/apply": away}) as ill,
        api_stub({"GET /v1/nodes": listed(), "POST /v1/apply": (200, {})}) as well,
    ):
        assert to(ill.url, well.url).get("/v1/nodes")["items"] == []
        with pytest.raises(UnavailableError, match="no leader"):
            to(ill.url, well.url).post("/v1/apply", {})
        assert [r.method for r in well.requests] == ["GET"]


def test_a_write_whose_answer_is_lost_is_not_repeated() -> None:
    with socket.create_server(("127.0.0.1", 0)) as rude, api_stub({"POST /v1/apply": (200, {})}) as other:
        import threading

        def accept_and_hang_up() -> None:
            connection, _ = rude.accept()
            connection.recv(65536)
            connection.close()

        thread = threading.Thread(target=accept_and_hang_up)
        thread.start()
        url = f"http://127.0.0.1:{rude.getsockname()[1]}"
        with pytest.raises(UnavailableError) as caught:
            to(url, other.url).post("/v1/apply", {})
        thread.join()
        assert "may have been done" in caught.value.fix
        assert other.requests == []


def test_a_kept_connection_that_the_server_closed_is_replaced() -> None:
    with api_stub({"GET /v1/nodes": listed(), "GET /v1/close": (200, b"{}")}) as stub:
        transport = to(stub.url)
        assert [len(transport.get(p)) for p in ("/v1/nodes", "/v1/close", "/v1/nodes")] == [2, 0, 2]


def test_what_is_not_json_is_said_to_be_no_wherry_server() -> None:
    with api_stub({"GET /v1/nodes": (200, b"<html>")}) as stub, pytest.raises(WherryError, match="not JSON"):
        to(stub.url).get("/v1/nodes")


def test_a_watch_yields_its_lines() -> None:
    lines = [{"type": "synced", "revision": 3}, {"type": "node", "action": "put", "revision": 4, "object": {}}]
    body = b"\n".join(json.dumps(line).encode() for line in lines) + b"\n"

    def watch(request: Request) -> tuple[int, object]:
        return 200, body

    with api_stub({"GET /v1/watch": watch}) as stub:
        assert list(to(stub.url).watch(types="node", after=2)) == lines
        assert stub.requests[0].target == "/v1/watch?types=node&after=2"


def test_a_stream_gives_its_bytes_as_they_are() -> None:
    with api_stub({"GET /v1/allocations/a/logs": (200, b"\xff\x00log")}) as stub:
        transport, data = to(stub.url), b""
        with transport.open_stream("/v1/allocations/a/logs") as response:
            while chunk := transport.read_chunk(response):
                data += chunk
        assert data == b"\xff\x00log"


def test_an_answer_that_may_be_out_of_date_is_said_to_be_once(capsys: pytest.CaptureFixture[str]) -> None:
    with api_stub({"GET /v1/nodes": (200, {"items": []})}) as stub:
        stub.headers["Warning"] = '110 wherry "this server has lost the store"'
        transport = Transport(Connection((stub.url,), "t", None, "test"))
        transport.get("/v1/nodes")
        transport.get("/v1/nodes")
    assert capsys.readouterr().err == "warning: this server has lost the store\n"
