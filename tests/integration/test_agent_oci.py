"""The real `wherry agent --driver oci`, without any container manager, told by a scripted server what to run."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from agent.driver import Container
from agent.drivers.oci import OciDriver
from agent.ownership import NODE
from manifests.allocations import HostPort, Phase
from tests.agents import in_network_namespace
from tests.conformance.driver_lab import process_status, say
from tests.lab.waiting import wait_until
from tests.oci import OciRig, oci_rig
from tests.scripted_server import IMAGE, ScriptedServer, assigned, grouped

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]
ROOT = Path(__file__).parent.parent.parent
SLEEP_S = "86413"  # nobody else's
ANSWER = ["nc", "-ll", "-p", "8080", "-e", "echo", "hello"]


def box(name: str, *command: str) -> dict[str, Any]:
    return {"name": name, "image": IMAGE, "command": list(command), "resources": {"cpu": "100m", "memory": "16Mi"}}


class Node:
    """The rig, a server, and how an agent is started between them."""

    def __init__(self, rig: OciRig, server: ScriptedServer) -> None:
        self.rig, self.server = rig, server
        self.data_dir = rig.folder / "agent"
        self.data_dir.mkdir(exist_ok=True)

    def driver(self) -> OciDriver:
        """Return a driver on the agent's own folder, for looking."""
        return OciDriver(self.data_dir / "oci", image_dirs=[self.rig.images])

    @asynccontextmanager
    async def agent(self, *flags: str) -> AsyncIterator[asyncio.subprocess.Process]:
        words = ("agent", "--name", "n1", "--server", self.server.url, "--data-dir", str(self.data_dir))
        own = ("--driver", "oci", "--image-dir", str(self.rig.images), "--cpu", "16", "--memory", "2Gi", *flags)
        with (self.rig.folder / "agent.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(
                    sys.executable,
                    "-m",
                    "wherry",
                    *words,
                    *own,
                    *flags,
                    "--cgroup-parent",
                    f"{self.rig.cgroup_parent}/n1",
                ),
                cwd=ROOT,
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


@pytest_asyncio.fixture(loop_scope="module")
async def node() -> AsyncIterator[Node]:
    async with oci_rig() as rig:
        with in_network_namespace(rig.netns):
            async with ScriptedServer().serve() as server:
                yield Node(rig, server)
        print((rig.folder / "agent.log").read_text()[-4000:])  # pytest shows it if the test failed


async def there(driver: OciDriver) -> dict[str, Container]:
    """Return all containers by the ids of their allocations."""
    return {c.labels["wherry.allocation"]: c for c in await driver.list_containers({NODE: "n1"})}


async def test_containers_run_crash_and_run_again_and_go(node: Node) -> None:
    driver = node.driver()
    async with node.agent():
        hello = await node.server.until_hello(1)
        assert hello.facts.attributes["driver"] == "oci"
        assert "oci" in hello.facts.attributes["drivers"].split(",")
        assert hello.facts.attributes["runtime.runc"]
        names = [f"web-{n}-a" for n in range(5)]
        await node.server.run(*(assigned(name) for name in names))
        for name in names:
            await node.server.until_phase(name, Phase.RUNNING)
        victim = (await there(driver))["web-2-a"]
        assert victim.pid
        os.kill(victim.pid, signal.SIGKILL)
        status = await node.server.until_phase("web-2-a", Phase.RUNNING, attempt=2)
        ended = await driver.inspect(victim.id)
        assert ended is not None
        assert ended.exit_code == 137
        assert status.started_s is not None
        print(f"running again {(status.started_s - ended.finished_s) * 1000:.0f} ms after its end")
        assert status.started_s - ended.finished_s < 5
        await node.server.withdraw(*names)
        await wait_until(lambda: there(driver), 30, "all are gone", lambda found: not found)
    await driver.close()


async def test_what_the_nodes_operator_allows_is_had_and_the_rest_refused(node: Node) -> None:
    driver = node.driver()
    media = node.rig.folder / "media"
    media.mkdir()
    volumes = [{"name": "media", "host": str(media)}]
    mounts = [{"volume": "media", "path": "/media"}]
    async with node.agent("--allow", "capability:NET_ADMIN", "--allow", f"host-path:{node.rig.folder}/media"):
        hello = await node.server.until_hello(1)
        assert hello.facts.attributes["allows"] == f"capability:NET_ADMIN,host-path:{media}"
        asked = assigned(
            "web-0-a",
            command=["sh", "-c", "touch /media/here; sleep 1000"],
            capabilities={"drop": ["ALL"], "add": ["NET_ADMIN"]},
            ulimits={"nofile": "64:128"},
            limits={"cpuWeight": 300},
            volumes=volumes,
            mounts=mounts,
        )
        admin = assigned("web-1-a", capabilities={"add": ["SYS_ADMIN"]})
        above = [{"name": "media", "host": str(node.rig.folder)}]
        await node.server.run(asked, admin, assigned("web-2-a", volumes=above, mounts=mounts))
        await node.server.until_phase("web-0-a", Phase.RUNNING)
        pid = (await there(driver))["web-0-a"].pid
        assert process_status(pid)["CapEff"] == f"{1 << 12:016x}"
        await wait_until(lambda: asyncio.to_thread((media / "here").exists), 10, "it has written", bool)
        for allocation, permission in (
            ("web-1-a", "capability:SYS_ADMIN"),
            ("web-2-a", f"host-path:{node.rig.folder}"),
        ):
            status = await node.server.until_phase(allocation, Phase.FAILED)
            assert status.last_ending is not None
            assert status.last_ending.reason == "refused"
            assert f"the node doesn't allow {permission}: only its operator can" in status.message
        assert set(await there(driver)) == {"web-0-a"}
        await node.server.withdraw("web-0-a", "web-1-a", "web-2-a")
        await wait_until(lambda: there(driver), 30, "all are gone", lambda found: not found)
    await driver.close()


async def test_a_killed_agent_leaves_its_containers_and_the_next_one_adopts_them(node: Node) -> None:
    driver = node.driver()
    names = [f"web-{n}-a" for n in range(3)]
    async with node.agent() as process:
        await node.server.until_hello(1)
        await node.server.run(*(assigned(name) for name in names), assigned("job-0-a", kind="Job", command=["true"]))
        for name in names:
            await node.server.until_phase(name, Phase.RUNNING)
        await node.server.until_phase("job-0-a", Phase.SUCCEEDED)
        process.kill()
        await process.wait()
    before = {name: (await there(driver))[name].pid for name in names}
    os.kill(before["web-1-a"], signal.SIGKILL)  # ends while nobody looks
    async with node.agent():
        hello = await node.server.until_hello(2)
        assert {status.id for status in hello.statuses} == {*names, "job-0-a"}
        status = await node.server.until_phase("web-1-a", Phase.RUNNING, attempt=2)
        assert status.last_ending is not None
        assert status.last_ending.exit_code == 137
        after = await there(driver)
        assert after["web-0-a"].pid == before["web-0-a"]
        assert after["web-2-a"].pid == before["web-2-a"]
    await driver.close()


async def test_agents_killed_amid_starts_leave_one_container_for_each_allocation(node: Node) -> None:
    driver = node.driver()
    names = [f"web-{n}-a" for n in range(12)]
    wanted = [assigned(name, command=["sleep", SLEEP_S], resources={"cpu": "50m", "memory": "16Mi"}) for name in names]
    for tries in range(1, 5):
        async with node.agent() as process:
            await node.server.until_hello(tries)
            await node.server.run(*wanted)
            await asyncio.sleep(0.05 * tries)  # somewhere amid the starts
            process.kill()
            await process.wait()
    async with node.agent():
        await node.server.until_hello(5)
        for name in names:
            await node.server.until_phase(name, Phase.RUNNING)
        await wait_until(running_sleeps, 20, "as many run as are wanted", lambda n: n == len(names))
        found = await driver.list_containers({NODE: "n1"})
        assert sorted(c.labels["wherry.allocation"] for c in found if c.pid) == sorted(names)
    await driver.close()


async def running_sleeps() -> int:
    """Return how many containers' processes really run, whatever anybody believes."""
    listed = await asyncio.to_thread(
        subprocess.run, ["pgrep", "-cf", f"^sleep {SLEEP_S}$"], capture_output=True, check=False
    )
    return int(listed.stdout or 0)


async def test_a_group_publishes_a_port_and_nothing_is_left_of_its_network(node: Node) -> None:
    port = HostPort(name="main", container=8080, host=18120)
    async with node.agent():
        await node.server.until_hello(1)
        app: dict[str, Any] = {**box("app", *ANSWER), "ports": [{"name": "main", "container": 8080}]}
        ask = box("ask", "sh", "-c", "until nc 127.0.0.1 8080; do sleep 0.1; done; sleep 99")
        await node.server.run(grouped(app, ask, ports=(port,), runtime="runc"))
        await node.server.until_phase("web-0-a", Phase.RUNNING)
        await wait_until(lambda: heard(node), 10, "the port answers")
        assert "18120" in await rest_of_network(node)
        made = [json.loads(file.read_text()) for file in node.data_dir.glob("oci/containers/*/spec.json")]
        assert sorted(one["runtime"] for one in made) == ["crun", "runc", "runc"]  # the sandbox has the default
        await node.server.withdraw("web-0-a")
        await wait_until(lambda: rest_of_network(node), 20, "the group's network is gone", lambda rest: not rest)


async def heard(node: Node) -> bool:
    return await asyncio.to_thread(say, node.rig.netns, "127.0.0.1", 18120) == "hello\n"


def inside(node: Node, *command: str) -> str:
    """Return what a command says in the rig's network namespace."""
    words = ["nsenter", f"--net=/run/netns/{node.rig.netns}", *command]
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=10).stdout


async def rest_of_network(node: Node) -> list[str]:
    links = await asyncio.to_thread(inside, node, "ip", "-brief", "link", "show", "type", "veth")
    rules = await asyncio.to_thread(inside, node, "nft", "list", "ruleset")
    return [*links.split(), *(["18120"] if "18120" in rules else [])]
