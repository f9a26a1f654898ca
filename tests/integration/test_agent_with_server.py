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
    spec = {"image": "wherry/busybox:1", "command": COMMAND, "replicas": replicas, "env": env}
    return {"apiVersion": "wherry/v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec}


async def test_a_service_is_run_logged_rolled_scaled_and_deleted(tmp_path: Path) -> None:
    async with dockerd(tmp_path) as daemon:
        with in_network_namespace(daemon.netns):
            async with served(tmp_path / "server") as server:
                await run_through(tmp_path, server.url, server.admin, server.join, daemon.socket, daemon.cgroup_parent)


async def test_the_example_of_a_group_runs_and_answers_through_its_sidecar(tmp_path: Path) -> None:
    async with dockerd(tmp_path) as daemon:
        with in_network_namespace(daemon.netns):
            async with served(tmp_path / "server") as server:
                (tmp_path / "agent").mkdir()
                options = AgentOptions(
                    *((server.url,), "n1", tmp_path / "agent", str(daemon.socket), token(server.join)),
                    cpu_m=2000,
                    publish_address="127.0.0.1",
                    cgroup_parent=f"{daemon.cgroup_parent}/n1",
                )
                async with running_agent(options), Client([server.url], token(server.admin)) as client:
                    await run_example(client)


async def run_example(client: Client) -> None:
    async def workload() -> dict[str, Any]:
        return await client.workload("default", "service", "shop")

    (example,) = load_files([str(EXAMPLES / "group.yaml")])
    await client.apply([example.workload.to_json()])
    await wait_until(workload, 60, "it is healthy", lambda w: w["state"] == "healthy")
    (allocation,) = (await client.list("allocations", name="shop"))["items"]
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
    await client.delete("default", "service", "shop")


async def run_through(
    folder: Path, url: str, admin: dict[str, str], join: dict[str, str], socket: Path, cgroup_parent: str
) -> None:
    data_dir = folder / "agent"
    await asyncio.to_thread(data_dir.mkdir)
    options = AgentOptions(
        (url,), "n1", data_dir, str(socket), token(join), cpu_m=2000, cgroup_parent=f"{cgroup_parent}/n1"
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


def token(headers: dict[str, str]) -> str:
    return headers["Authorization"].removeprefix("Bearer ")
