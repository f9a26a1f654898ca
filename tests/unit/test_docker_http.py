"""Tests of agent.drivers.docker_http against what the dockerd at hand doesn't do: other versions, broken answers.

The dockerd that is at hand is tried in tests/conformance.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from agent.drivers.docker_http import Call, DockerHttp, StalledError
from manifests.errors import ConflictError, DriverError, NotFoundError, UnavailableError, WherryError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
INFO = Call("ask", "GET", "/info")


@asynccontextmanager
async def server(
    folder: Path, handler: Handler, *, oldest: str = "1.12", newest: str = "1.41"
) -> AsyncIterator[DockerHttp]:
    """Serve the versions, and the handler for the rest."""

    async def version(request: web.Request) -> web.Response:
        return web.json_response({"MinAPIVersion": oldest, "ApiVersion": newest})

    app = web.Application()
    app.router.add_get("/version", version)
    app.router.add_get("/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    http = DockerHttp(str(folder / "s"), timeout_s=1.0)
    try:
        await web.UnixSite(runner, str(folder / "s")).start()
        yield http
    finally:
        await http.close()
        await runner.cleanup()


async def tell_path(request: web.Request) -> web.Response:
    return web.json_response({"path": request.path})


@pytest.mark.parametrize(
    ("oldest", "newest", "used"), [("1.12", "1.41", "1.41"), ("1.24", "1.47", "1.41"), ("1.44", "1.52", "1.44")]
)
async def test_the_oldest_version_that_will_do_is_spoken(tmp_path: Path, oldest: str, newest: str, used: str) -> None:
    async with server(tmp_path, tell_path, oldest=oldest, newest=newest) as http:
        assert await http.object(INFO) == {"path": f"/v{used}/info"}


async def test_a_docker_that_is_too_old_is_refused(tmp_path: Path) -> None:
    async with server(tmp_path, tell_path, newest="1.9") as http:
        with pytest.raises(DriverError, match=r"up to 1\.9"):
            await http.object(INFO)


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, DriverError), (404, NotFoundError), (409, ConflictError), (500, DriverError), (503, UnavailableError)],
)
@pytest.mark.parametrize("body", ['{"message": "docker says so"}', "docker says so\n"])
async def test_a_status_becomes_an_error_with_docker_s_words(
    tmp_path: Path, status: int, error: type[WherryError], body: str
) -> None:
    async def refuse(request: web.Request) -> web.Response:
        return web.Response(status=status, text=body)

    async with server(tmp_path, refuse) as http:
        with pytest.raises(error) as caught:
            await http.read(INFO)
    assert (caught.value.what, caught.value.why) == ("cannot ask", "docker says so")


def streaming(*pieces: bytes, hold: bool = False) -> Handler:
    """Return a handler that sends the pieces, then breaks off, or holds the connection open."""

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
        if hold:
            await asyncio.sleep(30)
        assert request.transport is not None
        request.transport.abort()
        return response

    return stream


async def test_objects_come_apart_wherever_the_chunks_are_cut(tmp_path: Path) -> None:
    got: list[object] = []

    async def collect(http: DockerHttp) -> None:
        async for line in http.objects(INFO):
            got.append(line)  # noqa: PERF401  # what came before the error counts

    async with server(tmp_path, streaming(b'{"a": 1}\r\n{"b"', b': 2}\n\n{"c": 3}\n')) as http:
        with pytest.raises(UnavailableError, match="broke off"):
            await collect(http)
    assert got == [{"a": 1}, {"b": 2}, {"c": 3}]


async def test_a_stream_that_is_silent_for_too_long_is_stalled(tmp_path: Path) -> None:
    async with server(tmp_path, streaming(b"{}\n", hold=True)) as http:
        with pytest.raises(StalledError, match=r"0\.2 s"):
            async for _ in http.objects(INFO, idle_s=0.2):
                pass


async def test_a_line_without_end_is_refused(tmp_path: Path) -> None:
    async with server(tmp_path, streaming(b"x" * 700_000, b"x" * 700_000, hold=True)) as http:
        with pytest.raises(DriverError, match="a line of over"):
            async for _ in http.objects(INFO):
                pass


async def test_an_answer_that_never_comes_is_unavailable(tmp_path: Path) -> None:
    async def hang(request: web.Request) -> web.Response:
        await asyncio.sleep(30)
        return web.Response()

    async with server(tmp_path, hang) as http:
        with pytest.raises(UnavailableError, match="did not answer within 1 s"):
            await http.read(INFO)


async def test_an_answer_that_ends_half_way_is_unavailable(tmp_path: Path) -> None:
    async with server(tmp_path, streaming(b'{"half')) as http:
        with pytest.raises(UnavailableError, match="broke off"):
            await http.object(INFO)
