"""Digest pinning with a real server, two agents and a registry: a version runs the same bits everywhere, and always."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.drivers.choice import OCI_FOLDER
from agent.drivers.oci import OciDriver
from agent.options import AgentOptions
from agent.registries import Registries
from manifests.containers import PullPolicy
from tests import private_registry as registries
from tests.agents import in_network_namespace, running_agent
from tests.lab.waiting import wait_until
from tests.oci import OciRig, oci_rig
from tests.private_registry import Authority, PrivateRegistry, private_registry
from tests.scripted import served
from wherry.cli.description import allocation_page, workload_page
from wherry.cli.text import Style
from wherry.client import Client

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(not registries.is_installed(), reason="needs docker-registry and htpasswd"),
]
SAY = ["sh", "-c", "trap exit TERM; echo $MARK; while true; do sleep 0.05; done"]


@dataclass
class Cluster:
    rig: OciRig
    registry: PrivateRegistry
    file: Path
    folder: Path
    client: Client

    def driver(self, node: str) -> OciDriver:
        """Return one more driver on the node's images."""
        return OciDriver(self.folder / node / OCI_FOLDER, registries=Registries(self.file))

    async def push(self, mark: str) -> str:
        return await asyncio.to_thread(self.registry.push, "web:1", mark)

    async def apply(self, replicas: int, **spec: Any) -> None:
        spec |= {"image": f"{self.registry.host}/web:1", "command": SAY, "replicas": replicas}
        spec |= {"placement": {"maxPerNode": 1}, "update": {"minHealthyTime": "0s", "maxSurge": 0, "maxUnavailable": 1}}
        service = {"apiVersion": "wherry/v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec}
        await self.client.apply([service])

    async def workload(self) -> dict[str, Any]:
        return await self.client.workload("default", "service", "web")

    async def said(self, version: int, replicas: int) -> tuple[set[str], set[str], dict[str, Any]]:
        """Return what that version's replicas say, at which digests they run, and the workload, once all of it runs."""
        workload = await wait_until(
            self.workload,
            90,
            f"version {version} runs",
            lambda w: w["version"] == version and w["state"] == "healthy" and w["counts"]["updated"] == replicas,
        )
        allocations = [a for a in (await self.client.list("allocations", name="web"))["items"] if a["desired"] == "run"]
        assert [a["version"] for a in allocations] == [version] * replicas
        marks = {await self._first_line(a["id"]) for a in allocations}
        return marks, {digest for a in allocations for digest in (a["images"] or {}).values()}, workload

    async def _first_line(self, allocation: str) -> str:
        async def logs() -> bytes:
            return b"".join([chunk async for chunk in self.client.logs(allocation)])

        return (await wait_until(logs, 20, "it has spoken")).decode().strip()


@asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        rig = await stack.enter_async_context(oci_rig())
        stack.enter_context(in_network_namespace(rig.netns))
        registry = stack.enter_context(private_registry(rig.netns, Authority(folder)))
        server = await stack.enter_async_context(served(folder / "server"))
        client = await stack.enter_async_context(Client([server.url], server.admin["Authorization"].split()[-1]))
        made = Cluster(rig, registry, registry.registries_file(), folder, client)
        for name in ("n1", "n2"):
            (folder / name).mkdir()
            options = AgentOptions(
                (server.url,),
                name,
                folder / name,
                driver="oci",
                registries_file=made.file,
                token=server.join["Authorization"].split()[-1],
                cpu_m=2000,
                cgroup_parent=f"{rig.cgroup_parent}/{name}",
            )
            await stack.enter_async_context(running_agent(options))
        yield made


async def test_all_replicas_of_a_version_run_the_bits_that_its_first_one_found(tmp_path: Path) -> None:
    async with cluster(tmp_path) as made:
        old = await made.push("old")
        stale = made.driver("n2")
        assert (await stale.ensure_image(f"{made.registry.host}/web:1", PullPolicy.IF_MISSING)).digest == old
        await stale.close()
        new = await made.push("new")

        # One node has an old image under the tag, and the other has none: who is first decides for both.
        await made.apply(2)
        marks, digests, workload = await made.said(1, 2)
        assert (marks, digests) in (({"old"}, {old}), ({"new"}, {new}))
        assert set(workload["images"].values()) == digests
        page = "\n".join(workload_page(workload, [], 0.0, Style()))
        assert f"web:1 at {next(iter(digests))}" in page

        # `always` asks the registry, once for a version: what is added later runs the same, wherever the tag is by now.
        third = await made.push("third")
        await made.apply(1, pull="always")
        assert (await made.said(2, 1))[:2] == ({"third"}, {third})
        await made.push("fourth")
        await made.apply(2, pull="always")
        assert (await made.said(2, 2))[:2] == ({"third"}, {third})

        # An undo goes back to the bits, not just to the tag.
        await made.client.rollout("default", "service", "web", "undo")
        assert (await made.said(3, 2))[:2] == (marks, digests)
        (one, _) = (await made.client.list("allocations", name="web"))["items"][:2]
        assert f"web:1 at {next(iter(digests))}" in "\n".join(allocation_page(one, [], 0.0, Style()))
