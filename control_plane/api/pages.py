"""The live page: three files of the package. It is an ordinary client of the API, and asks for a token itself."""

from importlib.resources import files

from aiohttp import web


def _file(name: str, content_type: str) -> web.Response:
    body = files("control_plane").joinpath("dashboard", name).read_bytes()
    return web.Response(body=body, content_type=content_type, charset="utf-8")


async def index(_request: web.Request) -> web.Response:
    return _file("index.html", "text/html")


async def script(_request: web.Request) -> web.Response:
    return _file("app.js", "text/javascript")


async def style(_request: web.Request) -> web.Response:
    return _file("style.css", "text/css")
