"""Servers are restarted one after the other, as in an upgrade: who follows logs or watches notices a pause at most."""

import asyncio
import json
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import aiohttp
import pytest

from tests.lab.api import ApiError
from tests.lab.cluster import Cluster, admin_token_file
from tests.lab.faults import converged, leader_of
from tests.lab.marks import ON_A_CLUSTER
from tests.lab.waiting import wait_until

pytestmark = [*ON_A_CLUSTER, pytest.mark.asyncio(loop_scope="module")]

PAUSE_S = 10.0  # twice what is promised, for a machine with much else to do
TICKER = ["sh", "-c", "trap 'exit 0' TERM; n=0; while true; do n=$((n+1)); echo tick $n; sleep 0.1; done"]
MANIFEST: dict[str, object] = {
    "apiVersion": "wherry/v1",
    "kind": "Service",
    "metadata": {"name": "ticker"},
    "spec": {
        "replicas": 2,
        "image": "wherry/busybox:1",
        "command": TICKER,
        "resources": {"cpu": "100m", "memory": "16Mi", "pids": 20},
        "update": {"minHealthyTime": "0s"},
    },
}


@dataclass
class Output:
    """The lines of a command as they came, and the longest pause between two of them."""

    lines: list[str] = field(default_factory=list)
    longest_pause_s: float = 0.0

    async def read(self, stream: asyncio.StreamReader) -> None:
        last_s = time.monotonic()
        while line := await stream.readline():
            now_s = time.monotonic()
            self.longest_pause_s = max(self.longest_pause_s, now_s - last_s) if self.lines else 0.0
            last_s = now_s
            self.lines.append(line.decode().rstrip("\n"))

    async def count(self) -> int:
        return len(self.lines)


@asynccontextmanager
async def command(cluster: Cluster, *words: str) -> AsyncIterator[Output]:
    """Run `wherry` with all servers for the block."""
    servers = [word for url in cluster.server_urls for word in ("--server", url)]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "wherry", *words, *servers),
        env={"WHERRY_TOKEN": admin_token_file(cluster.net.folder).read_text().strip(), "PATH": "/usr/bin:/bin"},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    output = Output()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(output.read(process.stdout), name="read")
        try:
            yield output
        finally:
            process.terminate()
            await process.wait()


async def restart_all_servers(cluster: Cluster) -> None:
    for server in cluster.servers:
        assert await server.stop() == 0
        await leader_of(cluster, but=server)
        server.start()
        url = cluster.server_urls[cluster.servers.index(server)]
        await wait_until(lambda url=url: cluster.api.get_from(url, "/v1/cluster"), 30, "it is back")  # type: ignore[misc]  # bound now


async def test_followed_logs_lose_and_repeat_nothing(shared_cluster: Cluster) -> None:
    cluster = shared_cluster
    await cluster.api.apply(MANIFEST)
    await converged(cluster)
    async with command(cluster, "logs", "service/ticker", "-f") as output:
        await wait_until(output.count, 30, "lines come", lambda count: count > 20)
        await restart_all_servers(cluster)
        before = len(output.lines)
        await wait_until(output.count, 30, "lines come again", lambda count: count > before + 40)
    ticks: defaultdict[str, list[int]] = defaultdict(list)
    for line in output.lines:
        allocation, _, text = line.partition(" | ")
        ticks[allocation].append(int(text.removeprefix("tick ")))
    print(f"longest pause of the logs: {output.longest_pause_s:.1f} s")
    assert len(ticks) == 2
    assert all(numbers == list(range(numbers[0], numbers[-1] + 1)) for numbers in ticks.values())
    assert output.longest_pause_s < PAUSE_S


async def test_a_watch_misses_no_change(shared_cluster: Cluster) -> None:
    cluster = shared_cluster
    await cluster.api.apply(MANIFEST)
    await converged(cluster)
    async with command(cluster, "get", "service/ticker", "-w", "-o", "json") as output:
        await wait_until(output.count, 30, "the service is shown", lambda count: count > 0)
        restarting = asyncio.create_task(restart_all_servers(cluster))
        while not restarting.done():
            with suppress(aiohttp.ClientError, ApiError):  # the one that was asked was just leaving
                await cluster.api.apply(_labelled(str(len(output.lines))))
            await asyncio.sleep(0.3)
        await restarting
        await cluster.api.apply(_labelled("last"))

        async def labels() -> set[str]:
            return {json.loads(line)["object"]["manifest"]["metadata"]["labels"].get("at", "") for line in output.lines}

        await wait_until(labels, 30, "the last change is shown", lambda seen: "last" in seen)
    print(f"longest pause of the watch: {output.longest_pause_s:.1f} s")
    assert output.longest_pause_s < PAUSE_S


def _labelled(at: str) -> dict[str, object]:
    return MANIFEST | {"metadata": {"name": "ticker", "labels": {"at": at}}}
