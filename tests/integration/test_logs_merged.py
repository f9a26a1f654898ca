"""`wherry logs` against a real server, agent and dockerd: replicas, groups and attempts, in order, none lost."""

import asyncio
import itertools
import re
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
import pytest_asyncio

from tests.lab.waiting import wait_until
from tests.streams_world import World, service, streams_world

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]
COUNT = 3000
STAMPED = f"i=0; while [ $i -lt {COUNT} ]; do echo $(date +%s) $i; i=$((i+1)); done; exec sleep 1000"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with streams_world(tmp_path_factory.mktemp("logs")) as world:
        yield world


def by_source(out: bytes) -> dict[str, list[str]]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for line in out.decode().splitlines():
        source, _, text = line.partition(" | ")
        found[source].append(text)
    return found


async def test_replicas_are_merged_in_time_order_and_nothing_is_lost(world: World) -> None:
    allocations = await world.run(service("many", STAMPED, replicas=3))

    async def logs() -> Any:
        return await world.wherry("logs", "many")

    ended = await wait_until(logs, 60, "all is written", lambda e: len(e.out.splitlines()) >= 3 * COUNT)
    assert ended.code == 0
    assert b"\x1b" not in ended.out
    found = by_source(ended.out)
    assert sorted(found) == sorted(allocations)
    for lines in found.values():
        assert [int(line.split()[1]) for line in lines] == list(range(COUNT))
    seconds = [int(line.split(" | ")[1].split()[0]) for line in ended.out.decode().splitlines()]
    # A replica's second is when it wrote, the order that of when docker read it: a moment later.
    assert all(later >= earlier - 1 for earlier, later in itertools.pairwise(seconds))
    tail = await world.wherry("logs", "service/many", "--tail", "2")
    assert {source: len(lines) for source, lines in by_source(tail.out).items()} == dict.fromkeys(allocations, 2)
    assert (await world.wherry("logs", allocations[0], "--since", "2035-01-01 00:00")).out == b""
    await world.client.delete("default", "service", "many")


async def test_all_containers_of_a_group_are_shown_or_the_one_that_is_named(world: World) -> None:
    box = {"image": "wherry/busybox:1"}
    group = [{"name": n, **box, "command": ["sh", "-c", f"echo I am {n}; exec sleep 1000"]} for n in ("app", "proxy")]
    (allocation,) = await world.run(service("pair", containers=group))

    async def logs() -> Any:
        return await world.wherry("logs", allocation)

    both = await wait_until(logs, 30, "both have spoken", lambda e: len(e.out.splitlines()) >= 2)
    assert by_source(both.out) == {f"{allocation}/app": ["I am app"], f"{allocation}/proxy": ["I am proxy"]}
    assert (await world.wherry("logs", allocation, "-c", "proxy")).out == b"I am proxy\n"
    wrong = await world.wherry("logs", allocation, "-c", "prox")
    assert wrong.code == 3
    assert "its containers are app, proxy" in wrong.err
    await world.client.delete("default", "service", "pair")


async def test_the_attempt_before_is_shown_and_a_first_one_has_none(world: World) -> None:
    once = "echo attempt $WHERRY_ATTEMPT; sleep 0.3; [ $WHERRY_ATTEMPT -gt 1 ] || exit 3; exec sleep 1000"
    await world.client.apply([service("phoenix", once)])

    async def allocation() -> dict[str, Any]:
        found: list[dict[str, Any]] = (await world.client.list("allocations", name="phoenix"))["items"]
        return found[0] if found else {}

    now = await wait_until(allocation, 30, "it runs again", lambda a: a.get("attempt") == 2 and a["phase"] == "running")
    assert (await world.wherry("logs", now["id"], "--previous")).out == b"attempt 1\n"
    (other,) = await world.run(service("calm"))
    none = await world.wherry("logs", other, "--previous")
    assert none.code != 0
    assert "no earlier attempt" in none.err
    for name in ("phoenix", "calm"):
        await world.client.delete("default", "service", name)


async def test_followed_logs_take_in_replicas_that_come_and_outlive_those_that_go(world: World) -> None:
    await world.run(service("flow", "i=0; while true; do echo $i; i=$((i+1)); sleep 0.1; done", replicas=1))
    following = await world.start("logs", "flow", "-f")
    assert following.stdout is not None
    out = bytearray()

    async def read() -> None:
        assert following.stdout is not None
        while chunk := await following.stdout.read(65536):
            out.extend(chunk)

    async def sources() -> set[str]:
        return set(re.findall(r"^(flow-\S+) \| ", out.decode(), re.MULTILINE))

    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(read())
            await wait_until(lambda: _length(out), 20, "lines come", lambda n: n > 5)
            await world.client.scale("default", "service", "flow", 3)
            await wait_until(sources, 30, "three speak", lambda found: len(found) == 3)
            await world.client.scale("default", "service", "flow", 1)
            await wait_until(lambda: _running(world), 30, "one is left", lambda n: n == 1)
            before = len(out)
            await wait_until(lambda: _length(out), 20, "it goes on", lambda n: n > before + 50)
            await world.client.delete("default", "service", "flow")
            assert await asyncio.wait_for(following.wait(), 30) == 0
    finally:
        with suppress(ProcessLookupError):
            following.kill()
        await following.wait()
    followed = {name: lines for name, lines in by_source(bytes(out)).items() if name.startswith("flow-")}
    for source, lines in followed.items():  # the first lines have no prefix: it was alone
        numbers = [int(line) for line in lines]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), source


async def _length(out: bytearray) -> int:
    return len(out)


async def _running(world: World) -> int:
    items = (await world.client.list("allocations", name="flow"))["items"]
    return len([a for a in items if a["phase"] == "running"])
