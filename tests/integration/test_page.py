"""The live page in a real browser, against a real server: what a person sees once the token is given."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.lab.waiting import wait_until
from tests.scripted import ScriptedAgent, Served, connected, facts, manifest, served

CHROMIUM = shutil.which("chromium")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
)
DEADLINE_S = 60

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: script/setup --tests brings it")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path / "server") as running:
        yield running


class Page:
    """A page that is open in a browser, asked over the browser's own debugging protocol."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._last = 0

    async def evaluate(self, expression: str) -> str:
        self._last += 1
        ask = {"id": self._last, "method": "Runtime.evaluate", "params": {"expression": expression}}
        await self._socket.send_json(ask)
        while (answer := await self._socket.receive_json()).get("id") != self._last:
            pass
        return str(answer["result"]["result"].get("value", ""))

    async def text(self) -> str:
        return await self.evaluate("document.body.innerText")


@asynccontextmanager
async def opened(http: aiohttp.ClientSession, url: str, profile: Path) -> AsyncIterator[Page]:
    """Open the page in a browser of its own, which ends with the block."""
    command = [CHROMIUM or "", *FLAGS, f"--user-data-dir={profile}", "--remote-debugging-port=0", url]
    null = asyncio.subprocess.DEVNULL
    browser = await asyncio.create_subprocess_exec(*command, stdout=null, stderr=null, start_new_session=True)
    try:

        async def page_socket() -> str:
            port = (profile / "DevToolsActivePort").read_text().splitlines()[0]
            async with http.get(f"http://127.0.0.1:{port}/json") as answer:
                pages = [p for p in await answer.json() if p["type"] == "page" and p["url"].startswith(url[:20])]
                return str(pages[0]["webSocketDebuggerUrl"]) if pages else ""

        address = await wait_until(page_socket, DEADLINE_S, "the browser has opened the page")
        async with http.ws_connect(address) as socket:
            yield Page(socket)
    finally:
        os.killpg(browser.pid, signal.SIGKILL)
        await browser.wait()


async def test_the_page_shows_nodes_workloads_and_why_something_is_blocked(server: Served, tmp_path: Path) -> None:
    async with connected(server, ScriptedAgent(server, facts("n1"))):
        await server.apply(manifest(replicas=1), manifest(name="huge", resources={"memory": "100Gi"}))
        await server.until_state("/v1/workloads/default/service/web", "healthy")
        await server.until_state("/v1/workloads/default/service/huge", "blocked")
        token = server.admin["Authorization"].removeprefix("Bearer ")
        wanted = ("n1", "web", "huge", "n1 lacks memory (100Gi needed")
        async with opened(server.http, f"{server.url}/#token={token}", tmp_path / "profile") as page:
            await wait_until(page.text, 20, f"it shows {wanted}", lambda text: all(w in text for w in wanted))
            assert token not in await page.evaluate("location.href"), "the token stays in the address bar"

            await server.call("POST", "/v1/nodes/n1/cordon")
            await wait_until(page.text, 10, "it shows at once that n1 is cordoned", lambda text: "cordoned" in text)


async def test_the_page_says_that_the_brake_is_on(server: Served, tmp_path: Path) -> None:
    agents = [ScriptedAgent(server, facts(f"n{number}")) for number in range(4)]
    async with connected(server, *agents):
        for agent in agents[1:]:
            agent.is_silent = True
        token = server.admin["Authorization"].removeprefix("Bearer ")
        async with opened(server.http, f"{server.url}/#token={token}", tmp_path / "profile") as page:
            wanted = ("The brake on mass loss is on", "n1, n2, n3 fell silent at once", "suspect")
            await wait_until(page.text, 20, f"it shows {wanted}", lambda text: all(w in text for w in wanted))
            for agent in agents[1:]:
                agent.is_silent = False
            await wait_until(page.text, 20, "it shows that they are back", lambda text: "brake" not in text)


async def test_without_a_token_the_page_asks_for_one_and_shows_nothing(server: Served, tmp_path: Path) -> None:
    async with (
        connected(server, ScriptedAgent(server, facts("node-one"))),
        opened(server.http, server.url + "/", tmp_path / "profile") as page,
    ):
        text = await wait_until(page.text, 20, "it asks for a token", lambda text: "token" in text.lower())
        assert "node-one" not in text
