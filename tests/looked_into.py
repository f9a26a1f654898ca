"""A server, one real agent and its containers by docker or by the oci driver: for tests of what can be seen of them."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.drivers.choice import OCI_FOLDER
from agent.options import AgentOptions
from tests.agents import in_network_namespace, running_agent
from tests.containerd import containerd
from tests.dockerd import dockerd
from tests.lab.waiting import wait_until
from tests.oci import oci_rig
from tests.podman import podman
from tests.scripted import Served, served
from wherry.client import Client

BUSYBOX = "wherry/busybox:1"
DRIVERS = ("docker", "oci")
ALL_DRIVERS = (*DRIVERS, "cri", "podman")
_ENGINES: Mapping[str, Callable[[Path], AbstractAsyncContextManager[Any]]] = {
    "docker": dockerd,
    "cri": containerd,
    "podman": podman,
}


@dataclass
class Looked:
    """A cluster of one node, `n1`."""

    client: Client
    server: Served
    driver_name: str
    engine: Path  # the engine's socket, or the oci driver's folder
    netns: str  # the network namespace in which the server answers

    async def run(self, manifest: dict[str, Any]) -> list[dict[str, Any]]:
        """Run a service until it is healthy, and return its allocations."""
        name = manifest["metadata"]["name"]
        await self.client.apply([manifest])
        await wait_until(
            lambda: self.client.workload("default", "service", name),
            60,
            f"{name} is healthy",
            lambda w: w["state"] == "healthy",
        )
        return list((await self.client.list("allocations", name=name))["items"])


@asynccontextmanager
async def looked_into(driver: str, folder: Path) -> AsyncIterator[Looked]:
    async with AsyncExitStack() as stack:
        images: tuple[Path, ...] = ()
        if driver in _ENGINES:
            daemon = await stack.enter_async_context(_ENGINES[driver](folder))
            netns, parent, engine = daemon.netns, daemon.cgroup_parent, daemon.socket
        else:
            rig = await stack.enter_async_context(oci_rig())
            netns, parent, folder = rig.netns, rig.cgroup_parent, rig.folder  # what runs is known by it in the end
            images, engine = (rig.images,), folder / "agent" / OCI_FOLDER
        stack.enter_context(in_network_namespace(netns))
        server = await stack.enter_async_context(served(folder / "server"))
        data_dir = folder / "agent"
        data_dir.mkdir(exist_ok=True)
        options = AgentOptions(
            servers=(server.url,),
            name="n1",
            data_dir=data_dir,
            driver=driver,
            docker_socket=str(engine),
            podman_socket=str(engine),
            cri_socket=str(engine),
            image_dirs=images,
            token=_token(server.join),
            cpu_m=4000,
            memory_bytes=2 * 2**30,
            cgroup_parent=f"{parent}/n1",
        )
        await stack.enter_async_context(running_agent(options))
        client = await stack.enter_async_context(Client([server.url], _token(server.admin)))
        yield Looked(client, server, driver, engine, netns)


def service(name: str, command: str, *, replicas: int = 1, **spec: Any) -> dict[str, Any]:
    """Return a service of shells that run the command."""
    own = {"image": BUSYBOX, "command": ["sh", "-c", command], "replicas": replicas, "stop": {"grace": "100ms"}}
    update = {"update": {"minHealthyTime": "0s"}}
    return {
        "apiVersion": "wherry/v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {**own, **update, **spec},
    }


def _token(headers: dict[str, str]) -> str:
    return headers["Authorization"].removeprefix("Bearer ")
