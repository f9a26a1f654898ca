"""What an agent with a real dockerd says while it pulls, how often, and that it then runs the version's digest."""

from pathlib import Path

import pytest

from agent.options import AgentOptions
from manifests.allocations import Phase
from tests.agents import in_network_namespace, running_agent
from tests.dockerd import dockerd
from tests.registry import registry
from tests.scripted_server import ScriptedServer, assigned

pytestmark = pytest.mark.docker


async def test_a_long_pull_says_how_far_it_has_come_and_not_too_often(tmp_path: Path) -> None:
    async with dockerd(tmp_path, bip=None, images=False) as daemon, registry(daemon.netns) as images:
        with in_network_namespace(daemon.netns):
            async with ScriptedServer().serve() as server:
                options = AgentOptions(
                    *((server.url,), "n1", tmp_path / "agent"),
                    docker_socket=str(daemon.socket),
                    cpu_m=2000,
                    cgroup_parent=f"{daemon.cgroup_parent}/n1",
                )
                options.data_dir.mkdir()
                images.open_blobs.clear()
                async with running_agent(options):
                    await server.until_hello(1)
                    await server.run(assigned("web-0-a", image=images.image, network="host"))
                    await server.until(
                        lambda: "layers" in _message(server), within_s=30, what="it says how far its pull has come"
                    )
                    assert server.statuses["web-0-a"].phase is Phase.PULLING
                    images.open_blobs.set()
                    status = await server.until_phase("web-0-a", Phase.RUNNING)
                    assert status.message == ""
                    assert set(status.images or {}) == {images.image}


def _message(server: ScriptedServer) -> str:
    status = server.statuses.get("web-0-a")
    return status.message if status is not None else ""
