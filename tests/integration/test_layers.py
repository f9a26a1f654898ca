"""What an allocation is made of: each command that is shown is run, and must say what was said."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from functools import cache
from typing import Any

import pytest
import pytest_asyncio

from tests.lab.waiting import wait_until
from tests.looked_into import ALL_DRIVERS, BUSYBOX, Looked, looked_into, service

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]
LSNS_TRIES = 10  # it gives up when some process of the machine ends while it reads them all
SHELL = "trap exit TERM; echo hello; sleep 1000 & wait"
Json = dict[str, Any]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ALL_DRIVERS)
async def looked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Looked]:
    async with looked_into(request.param, tmp_path_factory.mktemp("layers")) as cluster:
        yield cluster


async def layers_of(looked: Looked, allocation: str) -> Json:
    return dict((await looked.client.request("GET", f"/v1/allocations/{allocation}/layers"))["layers"])


def walk(layer: Json) -> Iterator[Json]:
    yield layer
    for below in layer["below"]:
        yield from walk(below)


def only(tree: Json, kind: str) -> Json:
    (found,) = [layer for layer in walk(tree) if layer["kind"] == kind]
    return found


@cache
def said_by(command: str, url: str, token: str, netns: str) -> str:
    """Return what the command prints, run as on the node with a way to the cluster."""
    inside = f"nsenter --net=/run/netns/{netns} {sys.executable} -m wherry "
    words = command.replace("wherry ", inside, 1) if command.startswith("wherry ") else command
    env = {**os.environ, "WHERRY_SERVER": url, "WHERRY_TOKEN": token}
    for _ in range(LSNS_TRIES if words.startswith("lsns") else 1):
        done = subprocess.run(["bash", "-c", words], capture_output=True, text=True, timeout=60, check=False, env=env)
        if done.returncode == 0:
            break
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return " ".join(done.stdout.split())


def check(layer: Json, looked: Looked) -> int:
    """Run the layer's commands; return how many facts were compared with what they said."""
    cluster = looked.server.url, looked.server.admin["Authorization"].removeprefix("Bearer "), looked.netns
    ran = 0
    if _can_run(layer["command"]):
        said_by(layer["command"], *cluster)
    for fact in layer["facts"]:
        if not _can_run(fact["command"]):
            continue
        said, value = said_by(fact["command"], *cluster), " ".join(fact["value"].split())
        ran += 1
        if fact["isLive"]:  # numbers move on; what kind of thing is said doesn't
            said, value = re.sub(r"[\d.]+", "N", said), re.sub(r"[\d.]+", "N", value)
        assert value in said, f"{layer['kind']} {fact['name']}: {fact['value']!r} is not in {said!r}"
    return ran


def _can_run(command: str) -> bool:
    """Say whether there is a command, of a program that apt has: it has none of Kubernetes'."""
    return bool(command) and (not command.startswith("crictl") or shutil.which("crictl") is not None)


async def test_every_command_says_what_is_shown(looked: Looked) -> None:
    limits = {"cpu": "200m", "memory": "32Mi", "pids": 40}
    (allocation,) = await looked.run(service("web", SHELL, resources=limits))
    tree = await layers_of(looked, allocation["id"])
    print(json.dumps(tree, indent=1))
    kinds = [layer["kind"] for layer in walk(tree)]
    assert kinds[:5] == ["manifest", "version", "allocation", "container", "image"]
    assert {"bundle", "runtime", "shim", "namespaces", "cgroup", "processes", "process"} <= set(kinds)
    compared = [await asyncio.to_thread(check, layer, looked) for layer in walk(tree)]
    assert sum(compared) > 50
    cgroup = {fact["name"]: fact["value"] for fact in only_first(tree, "cgroup")["facts"]}
    assert str(32 * 2**20) in (cgroup.get("memory.limit_in_bytes"), cgroup.get("memory.max"))
    assert cgroup["pids.max"] == "40"
    assert cgroup.get("cpu.cfs_quota_us", cgroup.get("cpu.max", "").split(" ")[0]) == "20000"
    above = only_first(tree, "cgroup")["below"]
    assert any(str(2 * 2**30) == fact["value"] for layer in above for fact in layer["facts"])
    commands = {fact["value"] for p in walk(tree) if p["kind"] == "process" for fact in p["facts"]}
    assert "sleep 1000" in commands
    namespaces = {fact["name"]: fact["note"] for fact in only(tree, "namespaces")["facts"]}
    assert (namespaces["pid"], namespaces["mnt"], namespaces["net"]) == ("its own",) * 3
    assert namespaces["user"] == "the host's"
    image = only(tree, "image")
    assert image["name"].removeprefix("localhost/") == BUSYBOX  # which Podman puts before it
    await looked.client.delete("default", "service", "web")


def only_first(tree: Json, kind: str) -> Json:
    return next(layer for layer in walk(tree) if layer["kind"] == kind)


async def test_containers_of_a_group_share_the_network_of_its_sandbox(looked: Looked) -> None:
    box = {"image": BUSYBOX, "command": ["sh", "-c", SHELL], "stop": {"grace": "100ms"}}
    spec = {"replicas": 1, "containers": [{**box, "name": "app"}, {**box, "name": "helper"}]}
    group = {"apiVersion": "wherry/v1", "kind": "Service", "metadata": {"name": "pair"}, "spec": spec}
    (allocation,) = await looked.run(group)
    tree = await layers_of(looked, allocation["id"])
    containers = [layer for layer in walk(tree) if layer["kind"] == "container"]
    assert [c["name"] for c in containers] == ["the group's sandbox", "app", "helper"]
    app = next(layer for layer in containers[1]["below"] if layer["kind"] == "namespaces")
    notes = {fact["name"]: fact["note"] for fact in app["facts"]}
    assert notes["net"] == "shared with the group's sandbox and helper"
    assert notes["mnt"] == "its own"
    await looked.client.delete("default", "service", "pair")


async def test_an_allocation_without_a_container_says_why(looked: Looked) -> None:
    manifest = service("never", "true", image="wherry/missing:1", pull="never")
    await looked.client.apply([manifest])
    (allocation,) = await wait_until(
        lambda: allocations(looked, "never"), 30, "it has been tried", lambda found: bool(found and found[0]["message"])
    )
    with pytest.raises(Exception, match=r"has no container now"):
        await layers_of(looked, allocation["id"])
    await looked.client.delete("default", "service", "never")


async def allocations(looked: Looked, name: str) -> list[Json]:
    return list((await looked.client.list("allocations", name=name))["items"])
