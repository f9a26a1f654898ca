"""An agent with a real Podman: what is told of it, and tests of agents with dockerd, which hold here as well."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from agent.driver import SANDBOX_IMAGE
from agent.drivers.choice import choose
from agent.drivers.docker import DockerDriver
from agent.folder import LocalFolder
from agent.options import AgentOptions
from manifests.containers import PullPolicy
from tests.agents import in_network_namespace
from tests.conformance.driver_lab import run, shell
from tests.integration.test_agent import (  # noqa: F401
    test_a_killed_agent_leaves_its_containers_and_the_next_one_adopts_them,
    test_five_run_and_one_that_crashes_runs_again_at_once,
)
from tests.integration.test_agent_groups import (  # noqa: F401
    test_a_group_shares_its_network_and_each_of_it_restarts_alone,
    test_a_lost_sandbox_starts_all_anew_and_an_agents_end_nothing,
    test_sidecars_and_init_containers_come_first_and_sidecars_end_last,
)
from tests.podman import PodmanService, is_installed, podman

pytestmark = [pytest.mark.docker, pytest.mark.drivers, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def daemon(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PodmanService]:
    if not is_installed():
        pytest.skip("there is no podman on this machine")
    async with podman(tmp_path_factory.mktemp("podman")) as running:
        with in_network_namespace(running.netns):
            yield running


async def test_a_node_with_podman_can_have_the_driver(options: AgentOptions, daemon: PodmanService) -> None:
    options = replace(options, driver="podman", podman_socket=str(daemon.socket))
    choice = await asyncio.to_thread(choose, options, LocalFolder(options.data_dir))
    assert (choice.name, "podman" in choice.available) == ("podman", True)
    made = choice.make(options)
    assert (await made.info()).name == "podman"
    await made.close()


async def test_podman_is_told_apart_and_names_only_runtimes_that_are_there(driver: DockerDriver) -> None:
    info = await driver.info()
    assert info.name == "podman"
    assert "runc" in info.attributes["runtimes"].split(",")
    assert "runj" not in info.attributes["runtimes"].split(",")


async def test_those_in_a_removed_containers_network_go_with_it(driver: DockerDriver) -> None:
    await driver.ensure_image(SANDBOX_IMAGE, PullPolicy.NEVER)
    holder = await run(driver, shell("", command=(), image=SANDBOX_IMAGE, host_network=False))
    member = await run(driver, shell("sleep 100", host_network=False, network_of=holder))
    await driver.remove(holder)
    assert await driver.inspect(member) is None
