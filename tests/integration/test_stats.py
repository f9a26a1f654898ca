"""What containers use, seen from the API: read by a real agent from real cgroups, and checked against the kernel's."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from agent.kernel import Kernel, cgroup_of, read_number
from tests.lab.waiting import wait_until
from tests.looked_into import DRIVERS, Looked, looked_into, service

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]
BUSY = "dd if=/dev/zero of=/tmp/file bs=1M count=20 2>/dev/null; while true; do :; done"


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=DRIVERS)
async def looked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Looked]:
    async with looked_into(request.param, tmp_path_factory.mktemp("stats")) as cluster:
        yield cluster


async def stats_of(looked: Looked, allocation: str) -> dict[str, Any]:
    found = await looked.client.request("GET", f"/v1/allocations/{allocation}/stats")
    return dict(found["containers"][0]) if found["containers"] else {}


async def test_a_busy_container_is_seen_at_its_limit_and_throttled(looked: Looked) -> None:
    limits: dict[str, Any] = {"resources": {"cpu": "100m", "memory": "32Mi", "pids": 50}, "limits": {"cpu": "200m"}}
    (allocation,) = await looked.run(service("busy", BUSY, **limits))
    found = await wait_until(
        lambda: stats_of(looked, allocation["id"]),
        40,
        "it is throttled",
        lambda c: bool(c) and (c["cpuMillicores"] or 0) > 0 and c["throttledPeriods"] > 5,
    )
    assert found["cpuMillicores"] < 320
    assert found["cpuSeconds"] > 0
    assert found["periods"] >= found["throttledPeriods"]
    assert found["reserved"] == {"cpuMillicores": 100, "memoryBytes": 32 * 2**20, "pids": 50}
    assert found["limit"]["cpuMillicores"] == 200
    assert found["memoryUsedBytes"] >= found["memoryBytes"] > 0
    assert found["memoryPeakBytes"] >= found["memoryBytes"]
    assert 0 < found["pids"] <= found["pidsPeak"]
    assert (found["namespace"], found["kind"], found["name"]) == ("default", "service", "busy")
    await looked.client.delete("default", "service", "busy")


async def test_numbers_are_those_of_the_kernel_and_live_through_a_restart(looked: Looked) -> None:
    (allocation,) = await looked.run(service("calm", "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done; sleep 1000"))
    before = await wait_until(
        lambda: stats_of(looked, allocation["id"]), 40, "it is calm", lambda c: c and c["cpuSeconds"] > 0.01
    )
    pid = await asyncio.to_thread(main_pid, allocation["id"])
    cgroup = cgroup_of(Kernel(), pid)
    assert cgroup is not None
    pids = read_number(cgroup.file("pids", "pids.current"))
    assert before["pids"] == pids
    os.kill(pid, signal.SIGKILL)
    after = await wait_until(
        lambda: stats_of(looked, allocation["id"]), 40, "its next attempt is seen", lambda c: c and c["attempt"] == 2
    )
    assert after["cpuSeconds"] >= before["cpuSeconds"]
    assert after["since"] == before["since"]
    await looked.client.delete("default", "service", "calm")


async def test_all_are_listed_with_their_node_and_filtered_by_workload(looked: Looked) -> None:
    await looked.run(service("one", "sleep 1000", replicas=2))
    await looked.run(service("two", "sleep 1000"))

    async def seen() -> list[str]:
        answer = await looked.client.request("GET", "/v1/stats")
        return sorted(c["name"] for item in answer["items"] for c in item["containers"])

    await wait_until(seen, 20, "all are seen", lambda names: names == ["one", "one", "two"])
    answer = await looked.client.request("GET", "/v1/stats", query={"namespace": "default", "name": "two"})
    (item,) = answer["items"]
    assert [c["name"] for c in item["containers"]] == ["two"]
    assert item["node"] == "n1"
    assert item["machine"]["memoryTotalBytes"] > item["machine"]["memoryBytes"] > 0
    assert answer["silent"] == []
    for name in ("one", "two"):
        await looked.client.delete("default", "service", name)


async def test_asking_writes_nothing_to_the_store(looked: Looked) -> None:
    (allocation,) = await looked.run(service("still", "sleep 1000"))

    async def written() -> int:
        """Return how many revisions are made while it is asked ten times."""
        before = (await looked.client.list("allocations"))["revision"]
        for _ in range(10):
            await stats_of(looked, allocation["id"])
            await asyncio.sleep(0.2)
        return int((await looked.client.list("allocations"))["revision"] - before)

    await wait_until(written, 40, "nothing is written, once what was before has settled", lambda count: count == 0)
    await looked.client.delete("default", "service", "still")


def main_pid(allocation: str) -> int:
    """Return the first process whose environment names the allocation."""
    for entry in sorted(Path("/proc").iterdir(), key=lambda e: int(e.name) if e.name.isdigit() else 0):
        if entry.name.isdigit():
            try:
                if f"WHERRY_ALLOCATION={allocation}\0".encode() in (entry / "environ").read_bytes():
                    return int(entry.name)
            except OSError:
                continue
    raise AssertionError(f"nothing runs of {allocation}")
