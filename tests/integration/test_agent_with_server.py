"""A real server, a real agent and a real dockerd: from a manifest to processes and back to nothing."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

import manifests
from agent.drivers.docker import DockerDriver
from agent.options import AgentOptions
from agent.ownership import NODE
from manifests.errors import WherryError
from manifests.yaml_loader import load_files
from tests.agents import in_network_namespace, running_agent
from tests.dockerd import dockerd
from tests.lab.waiting import wait_until
from tests.scripted import served
from wherry.client import Client

pytestmark = pytest.mark.docker
EXAMPLES = Path(manifests.__file__).parent / "examples"
COMMAND = ["sh", "-c", "trap exit TERM; echo hello from $WHERRY_ALLOCATION; while true; do sleep 0.05; done"]


def web(replicas: int, **env: str) -> dict[str, Any]:
    spec: dict[str, Any] = {"image": "wherry/busybox:1", "command": COMMAND, "replicas": replicas, "env": env}
    spec["update"] = {"minHealthyTime": "0s"}
    return {"apiVersion": "wherry/v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec}


async def test_a_service_is_run_logged_rolled_scaled_and_deleted(tmp_path: Path) -> None:
    async with dockerd(tmp_path) as daemon:
        with in_network_namespace(daemon.netns):
            async with served(tmp_path / "server") as server:
                await run_through(tmp_path, server.url, server.admin, server.join, daemon.socket, daemon.cgroup_parent)


async def test_groups_and_configs_come_all_the_way_from_a_manifest(tmp_path: Path) -> None:
    async with dockerd(tmp_path) as daemon:
        with in_network_namespace(daemon.netns):
            async with served(tmp_path / "server") as server:
                (tmp_path / "agent").mkdir()
                options = AgentOptions(
                    servers=(server.url,),
                    name="n1",
                    data_dir=tmp_path / "agent",
                    docker_socket=str(daemon.socket),
                    token=token(server.join),
                    cpu_m=2000,
                    publish_address="127.0.0.1",
                    cgroup_parent=f"{daemon.cgroup_parent}/n1",
                )
                async with running_agent(options), Client([server.url], token(server.admin)) as client:
                    await run_example(client)
                    await run_with_config(client)


async def run_example(client: Client) -> None:
    async def workload() -> dict[str, Any]:
        return await client.workload("default", "service", "kiosk")

    (example,) = load_files([str(EXAMPLES / "group.yaml")])
    await client.apply([example.workload.to_json()])
    await wait_until(workload, 60, "it is healthy", lambda w: w["state"] == "healthy")
    (allocation,) = (await client.list("allocations", name="kiosk"))["items"]
    phases = {c["name"]: (c["phase"], c["health"]) for c in allocation["containers"]}
    assert phases["migrate"][0] == "succeeded"
    assert phases["proxy"] == phases["app"] == ("running", "healthy")
    reader, writer = await asyncio.open_connection("127.0.0.1", allocation["ports"][0]["host"])
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    assert answer.endswith(f"Hello from app of {allocation['id']}.\n".encode())
    migrated = b"".join([chunk async for chunk in client.logs(allocation["id"], container="migrate")])
    assert migrated == f"Nothing to migrate for {allocation['id']}.\n".encode()
    with pytest.raises(WherryError, match="3 containers: name one of proxy, migrate, app"):
        [chunk async for chunk in client.logs(allocation["id"])]
    await client.delete("default", "service", "kiosk")


async def run_with_config(client: Client) -> None:
    """A config is seen as a file, and a new version of it as the file of the allocation that replaces the old one."""
    mount = {"name": "site", "path": "/etc/site.conf"}
    spec = {"image": "wherry/busybox:1", "command": ["sh", "-c", "cat /etc/site.conf; exec sleep 1000"]}
    service = {**web(1), "spec": {**spec, "configs": [mount], "stop": {"grace": "100ms"}}}

    async def said() -> set[bytes]:
        found = [a for a in (await client.list("allocations", name="web"))["items"] if a["phase"] == "running"]
        return {b"".join([chunk async for chunk in client.logs(a["id"])]) for a in found}

    await client.apply([config("listen 80"), service])
    await wait_until(said, 60, "it has read its config", lambda found: found == {b"listen 80\n"})
    await client.apply([config("listen 81")])
    await wait_until(said, 60, "another one has read the new config", lambda found: found == {b"listen 81\n"})


def config(text: str) -> dict[str, Any]:
    return {
        "apiVersion": "wherry/v1",
        "kind": "Config",
        "metadata": {"name": "site"},
        "spec": {"data": f"{text}\n"},
    }


async def run_through(
    folder: Path, url: str, admin: dict[str, str], join: dict[str, str], socket: Path, cgroup_parent: str
) -> None:
    data_dir = folder / "agent"
    await asyncio.to_thread(data_dir.mkdir)
    options = AgentOptions(
        servers=(url,),
        name="n1",
        data_dir=data_dir,
        docker_socket=str(socket),
        token=token(join),
        cpu_m=2000,
        cgroup_parent=f"{cgroup_parent}/n1",
    )
    driver = DockerDriver(socket)
    async with running_agent(options), Client([url], token(admin)) as client:

        async def workload() -> dict[str, Any]:
            return await client.workload("default", "service", "web")

        async def containers() -> int:
            return len([c for c in await driver.list_containers({NODE: "n1"}) if c.pid])

        await client.apply([web(3)])
        await wait_until(workload, 30, "3 are ready", lambda w: w["counts"]["ready"] == 3)
        assert await containers() == 3
        allocation = (await client.list("allocations", name="web"))["items"][0]["id"]

        async def logs() -> bytes:
            return b"".join([chunk async for chunk in client.logs(allocation)])

        said = await wait_until(logs, 10, "it has said something")  # it may run a moment before it does
        assert said == f"hello from {allocation}\n".encode()
        await client.apply([web(3, MODE="new")])
        await wait_until(
            workload, 60, "3 are updated", lambda w: w["counts"]["updated"] == 3 and w["state"] == "healthy"
        )
        await client.scale("default", "service", "web", 1)
        await wait_until(containers, 30, "one runs", lambda count: count == 1)
        await client.delete("default", "service", "web")
        await wait_until(lambda: driver.list_containers({NODE: "n1"}), 30, "nothing is left", lambda found: not found)
    await driver.close()


SERVING = ["sh", "-c", "trap exit TERM; cat /etc/site.conf; while true; do sleep 0.05; done"]


def site(data: str) -> dict[str, Any]:
    return {"apiVersion": "wherry/v1", "kind": "Config", "metadata": {"name": "site"}, "spec": {"data": data}}


def checked(content: str) -> dict[str, Any]:
    """Return a service that is ready where its config says so."""
    check = ["sh", "-c", f"grep -q {content} /etc/site.conf"]
    spec: dict[str, Any] = {"image": "wherry/busybox:1", "command": SERVING, "replicas": 2}
    spec["configs"] = [{"name": "site", "path": "/etc/site.conf"}]
    spec["health"] = {"readiness": {"exec": {"command": check}, "interval": "200ms", "timeout": "5s"}}
    spec["update"] = {"minHealthyTime": "0s", "progressDeadline": "6s"}
    return {"apiVersion": "wherry/v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec}


async def test_a_config_that_breaks_a_service_is_taken_back_from_real_containers(tmp_path: Path) -> None:
    async with dockerd(tmp_path) as daemon:
        with in_network_namespace(daemon.netns):
            async with served(tmp_path / "server") as server:
                data_dir = tmp_path / "agent"
                await asyncio.to_thread(data_dir.mkdir)
                options = AgentOptions(
                    servers=(server.url,),
                    name="n1",
                    data_dir=data_dir,
                    docker_socket=str(daemon.socket),
                    token=token(server.join),
                    cpu_m=2000,
                    cgroup_parent=f"{daemon.cgroup_parent}/n1",
                )
                async with running_agent(options), Client([server.url], token(server.admin)) as client:
                    await break_and_recover(client)


async def break_and_recover(client: Client) -> None:
    async def web_now() -> dict[str, Any]:
        return await client.workload("default", "service", "web")

    async def run_versions() -> set[tuple[int, str]]:
        items = (await client.list("allocations", name="web"))["items"]
        return {(a["version"], a["health"]) for a in items if a["desired"] == "run"}

    await client.apply([site("well"), checked("well")])
    await wait_until(web_now, 30, "it is rolled out", lambda w: w["rollout"]["state"] == "complete")
    least = 2

    async def reverted() -> dict[str, Any]:
        nonlocal least
        now = await web_now()
        least = min(least, now["counts"]["ready"])
        return now

    await client.apply([site("broken")])
    after = await wait_until(reverted, 60, "it is reverted", lambda w: w["rollout"]["state"] == "reverted")
    assert least == 2
    assert (after["version"], after["rollout"]["target"], after["state"]) == (2, 1, "healthy")
    assert await run_versions() == {(1, "healthy")}
    await client.apply([site("well again")])
    await wait_until(web_now, 30, "it is rolled out", lambda w: w["rollout"]["state"] == "complete")
    assert await run_versions() == {(3, "healthy")}
    await client.delete("default", "service", "web")

    async def left() -> list[Any]:
        return list((await client.list("allocations", name="web"))["items"])

    await wait_until(left, 30, "nothing is left", lambda found: not found)


def token(headers: dict[str, str]) -> str:
    return headers["Authorization"].removeprefix("Bearer ")
