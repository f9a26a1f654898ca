"""The live page in a real browser, against a real server: what a person sees once the token is given."""

import asyncio
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.integration.test_rollouts import PickyAgent
from tests.lab.waiting import wait_until
from tests.scripted import ScriptedAgent, Served, connected, facts, manifest, served

CHROMIUM = shutil.which("chromium")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
)
DEADLINE_S = 60
WEB = "/v1/workloads/default/service/web"

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

    async def command(self, method: str, **params: object) -> dict[str, Any]:
        self._last += 1
        await self._socket.send_json({"id": self._last, "method": method, "params": params})
        while (answer := await self._socket.receive_json()).get("id") != self._last:
            pass
        return dict(answer["result"])

    async def evaluate(self, expression: str) -> str:
        answer = await self.command("Runtime.evaluate", expression=expression)
        return str(answer["result"].get("value", ""))

    async def show_on(self, width: int, height: int) -> None:
        """Have it drawn on a screen of that size."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        await self.command("Emulation.setDeviceMetricsOverride", **size)

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
            said = (profile / "DevToolsActivePort").read_text().splitlines()
            if not said:
                return ""  # the file is there before what it says
            port = said[0]
            async with http.get(f"http://127.0.0.1:{port}/json") as answer:
                pages = [p for p in await answer.json() if p["type"] == "page" and p["url"].startswith(url[:20])]
                return str(pages[0]["webSocketDebuggerUrl"]) if pages else ""

        address = await wait_until(page_socket, DEADLINE_S, "the browser has opened the page")
        async with http.ws_connect(address) as socket:
            yield Page(socket)
    finally:
        os.killpg(browser.pid, signal.SIGKILL)
        await browser.wait()


@asynccontextmanager
async def opened_with_token(server: Served, folder: Path) -> AsyncIterator[Page]:
    token = server.admin["Authorization"].removeprefix("Bearer ")
    async with opened(server.http, f"{server.url}/#token={token}", folder / "profile") as page:
        yield page


def cron(*, suspend: bool) -> dict[str, Any]:
    return manifest("CronJob", "tidy", schedule="17 3 1 1 *", suspend=suspend)


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


async def test_the_page_says_that_the_cluster_is_frozen_by_whom_and_why(server: Served, tmp_path: Path) -> None:
    async with opened_with_token(server, tmp_path) as page:
        await wait_until(page.text, 20, "it is live", lambda text: "live, revision" in text)
        assert "frozen" not in await page.text()
        await server.call("POST", "/v1/freeze", {"reason": "the <b>switch</b> is replaced"})
        wanted = ("The cluster is frozen since", "the <b>switch</b> is replaced", "wherry unfreeze")
        await wait_until(page.text, 10, f"it shows {wanted}", lambda text: all(w in text for w in wanted))
        assert await page.evaluate("document.getElementById('frozen').getAttribute('role')") == "status"
        await page.command("Page.reload")
        await wait_until(page.text, 20, "a new page says so too", lambda text: wanted[0] in text)
        await server.call("POST", "/v1/unfreeze")
        await wait_until(page.text, 10, "it shows the end", lambda text: "The cluster is frozen" not in text)


async def test_the_page_shows_canaries_that_wait_and_on_a_phone_too(server: Served, tmp_path: Path) -> None:
    async with connected(server, ScriptedAgent(server, facts("n1"))), opened_with_token(server, tmp_path) as page:
        await server.apply(manifest(replicas=3, env={"A": "one"}))
        await server.until_state(WEB, "healthy")
        await server.apply(manifest(replicas=3, env={"A": "two"}, update={"canary": 1}))
        wanted = ("waits for promotion", "1 of 3 ready at version 2, 3 of other versions left")
        await wait_until(page.text, 20, f"it shows {wanted}", lambda text: all(w in text for w in wanted))
        assert "1 canary of version 2 waits to be promoted" in await page.text()
        assert "wherry rollout promote service/web" in await page.text()
        bar = "document.querySelector('.passage [role=progressbar]')"
        assert await page.evaluate(f"{bar}.getAttribute('aria-valuenow')") == "1"
        assert await page.evaluate(f"{bar}.getAttribute('aria-label')") == "rollout of web to version 2"
        await page.show_on(360, 740)
        assert await page.evaluate("document.documentElement.scrollWidth") == "360"
        await server.call("POST", f"{WEB}/rollout/promote")
        gone = "document.querySelector('.passage').hidden"
        await wait_until(lambda: page.evaluate(gone), 10, "the rollout is over", lambda hidden: hidden == "True")


async def test_the_page_says_that_a_rollout_was_reverted_and_why(server: Served, tmp_path: Path) -> None:
    agent = PickyAgent(server, facts("n1"), sick={"bad"})
    async with connected(server, agent), opened_with_token(server, tmp_path) as page:
        await server.apply(manifest(replicas=2, env={"A": "good"}))
        await server.until_state(WEB, "healthy")
        await server.apply(manifest(replicas=2, env={"A": "bad"}, update={"progressDeadline": "1s"}))
        wanted = ("rollout reverted", "Back from version 2: 2 of 2 ready at version 1", "made no progress for 1s")
        text = await wait_until(page.text, 20, f"it shows {wanted}", lambda text: all(w in text for w in wanted))
        assert text.partition("Events")[0].count("ersion 2 made no progress for 1s: ") == 1


async def test_the_page_shows_when_a_cronjob_is_due_and_that_it_is_suspended(server: Served, tmp_path: Path) -> None:
    async with connected(server, ScriptedAgent(server, facts("n1"))), opened_with_token(server, tmp_path) as page:
        await server.apply(cron(suspend=False))
        wanted = ("17 3 1 1 *", "next ", "scheduled")
        text = await wait_until(page.text, 20, f"it shows {wanted}", lambda text: all(w in text for w in wanted))
        assert re.search(r"17 3 1 1 \*, next .*\b1\b.*\d\d:\d\d", text)
        await server.apply(cron(suspend=True))
        await wait_until(page.text, 10, "it is suspended", lambda text: "no next run: suspended" in text)


async def test_without_a_token_the_page_asks_for_one_and_shows_nothing(server: Served, tmp_path: Path) -> None:
    async with (
        connected(server, ScriptedAgent(server, facts("node-one"))),
        opened(server.http, server.url + "/", tmp_path / "profile") as page,
    ):
        text = await wait_until(page.text, 20, "it asks for a token", lambda text: "token" in text.lower())
        assert "node-one" not in text
