"""Shared by tests of this folder: a cluster that they break, and a container manager with a server for its agents."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from agent.drivers.docker import DockerDriver
from agent.options import AgentOptions
from tests.agents import in_network_namespace
from tests.dockerd import DockerdProcess, dockerd
from tests.lab.cluster import Cluster, wherry_cluster
from tests.lab.faults import mend, spread_out
from tests.scripted_server import ScriptedServer

LOG_LINES = 60


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_cluster() -> AsyncIterator[Cluster]:
    """One cluster for all the tests of a module."""
    async with wherry_cluster() as cluster:
        yield cluster


@pytest_asyncio.fixture(loop_scope="module")
async def cluster(shared_cluster: Cluster) -> AsyncIterator[Cluster]:
    """Three servers and three nodes with six replicas of `web` on them, all well, whatever was broken before."""
    await mend(shared_cluster)
    await spread_out(shared_cluster)
    yield shared_cluster
    print(shared_cluster.net.log_tails(LOG_LINES))  # pytest shows it if the test failed


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def daemon(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DockerdProcess]:
    """One dockerd for all the tests of a module, which run in its network namespace."""
    async with dockerd(tmp_path_factory.mktemp("dockerd")) as running:
        with in_network_namespace(running.netns):
            yield running


@pytest_asyncio.fixture(loop_scope="module")
async def driver(daemon: DockerdProcess) -> AsyncIterator[DockerDriver]:
    """A driver for looking. All containers are removed after the test."""
    driver = DockerDriver(daemon.socket)
    yield driver
    await driver.close()
    await daemon.remove_containers()


@pytest_asyncio.fixture(loop_scope="module")
async def server(driver: DockerDriver) -> AsyncIterator[ScriptedServer]:
    """A server for the agent under test, which ends before the containers are removed."""
    async with ScriptedServer().serve() as server:
        yield server


@pytest.fixture
def options(daemon: DockerdProcess, server: ScriptedServer, tmp_path: Path) -> AgentOptions:
    """What an agent of that server, on that dockerd, is started with."""
    folder = tmp_path / "agent"
    folder.mkdir()
    return AgentOptions(
        servers=(server.url,),
        name="n1",
        data_dir=folder,
        docker_socket=str(daemon.socket),
        cpu_m=4000,
        memory_bytes=2 * 2**30,
        pids=20_000,
        cgroup_parent=f"{daemon.cgroup_parent}/{tmp_path.name[-20:]}",
    )
