"""An agent with a real dockerd, told by a scripted server what to run."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from agent.drivers.docker import DockerDriver
from agent.options import AgentOptions
from agent.ownership import NODE
from manifests.allocations import Phase
from tests.agents import in_network_namespace, running_agent
from tests.dockerd import DockerdProcess, dockerd
from tests.scripted_server import ScriptedServer, assigned

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]
IGNORES_TERM = ["sh", "-c", "trap '' TERM; while true; do sleep 0.1; done"]
HEEDS_TERM = ["sh", "-c", "trap 'exit 7' TERM; while true; do sleep 0.05; done"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def daemon(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DockerdProcess]:
    async with dockerd(tmp_path_factory.mktemp("dockerd")) as running:
        with in_network_namespace(running.netns):
            yield running


@pytest_asyncio.fixture(loop_scope="module")
async def driver(daemon: DockerdProcess) -> AsyncIterator[DockerDriver]:
    driver = DockerDriver(daemon.socket)
    yield driver
    await driver.close()
    await daemon.remove_containers()


@pytest_asyncio.fixture(loop_scope="module")
async def server(driver: DockerDriver) -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer().serve() as server:
        yield server


@pytest.fixture
def options(daemon: DockerdProcess, server: ScriptedServer, tmp_path: Path) -> AgentOptions:
    folder = tmp_path / "agent"
    folder.mkdir()
    return AgentOptions(
        servers=(server.url,),
        name="n1",
        data_dir=folder,
        docker_socket=str(daemon.socket),
        cpu_m=2000,
        memory_bytes=2 * 2**30,
        pids=20_000,
        cgroup_parent=f"{daemon.cgroup_parent}/{tmp_path.name[-20:]}",
    )


@asynccontextmanager
async def running(options: AgentOptions, server: ScriptedServer) -> AsyncIterator[None]:
    count = len(server.hellos)
    async with running_agent(options):
        await server.until_hello(count + 1)
        yield


async def ids(driver: DockerDriver) -> dict[str, int]:
    """Return the running containers' ids and pids."""
    found = await driver.list_containers({NODE: "n1"})
    return {container.id: container.pid for container in found if container.pid}


async def test_five_run_and_one_that_crashes_runs_again_within_a_second(
    driver: DockerDriver, server: ScriptedServer, options: AgentOptions
) -> None:
    async with running(options, server):
        names = [f"web-{n}-a" for n in range(5)]
        await server.run(*(assigned(name) for name in names))
        for name in names:
            await server.until_phase(name, Phase.RUNNING)
        before = await ids(driver)
        assert len(before) == 5
        victim = await driver.inspect(server.statuses["web-2-a"].container_id)  # type: ignore[arg-type]
        assert victim is not None
        await driver.execute(victim.id, ["kill", "-9", "1"], timeout_s=5)
        status = await server.until_phase("web-2-a", Phase.RUNNING, attempt=2)
        ended = await driver.inspect(victim.id)
    assert ended is not None
    assert ended.finished_s > 0
    assert status.started_s is not None
    gap_s = status.started_s - ended.finished_s
    print(f"running again {gap_s * 1000:.0f} ms after its end")
    assert gap_s < 1.5
    assert len((await ids(driver)).keys() & before.keys()) == 4
