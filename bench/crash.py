"""How soon a container whose main process was killed runs again: from its State.FinishedAt to the next StartedAt."""

import os
import signal
import statistics
from functools import partial

from bench.figures import Figure, at_most, reported
from bench.rig import Json, OneNode, inspect, one_node, service, state_time_s, until_ready, wanted
from tests.lab.cluster import NodeSize
from tests.lab.waiting import wait_until

CRASHES, SHORT_CRASHES = 10, 4
TARGET_S = 1.0
DEADLINE_S = 30.0


async def measure(*, short: bool) -> list[Figure]:
    """Crash each of some containers once: a first crash is answered at once, and a later one after a backoff."""
    count = SHORT_CRASHES if short else CRASHES
    async with one_node(NodeSize()) as node:
        await node.api.apply(service("crashing", count))
        await until_ready(node.api, "crashing", count)
        downs = [await _down_s(node, allocation) for allocation in await wanted(node.api, "crashing")]
    return [
        at_most(f"crash to running again, max of {count}", max(downs), "s", TARGET_S),
        reported("crash to running again, median", statistics.median(downs), "s"),
    ]


async def _down_s(node: OneNode, allocation: str) -> float:
    """Kill the main process of the allocation's container, and return for how long none ran."""
    before = (await _allocation(node, allocation))["containerId"]
    os.kill((await inspect(node.host, before))["State"]["Pid"], signal.SIGKILL)
    crashed = await wait_until(
        partial(inspect, node.host, before), DEADLINE_S, "it crashed", lambda c: not c["State"]["Running"]
    )
    now = await wait_until(
        partial(_allocation, node, allocation),
        DEADLINE_S,
        f"{allocation} runs again",
        lambda a: a["phase"] == "running" and a["containerId"] != before,
    )
    again = await inspect(node.host, now["containerId"])
    return state_time_s(again, "StartedAt") - state_time_s(crashed, "FinishedAt")


async def _allocation(node: OneNode, allocation: str) -> Json:
    found: Json = await node.api.get(f"/v1/allocations/{allocation}")
    return found
