"""The cri driver with a real containerd: what its runtime alone has, and an agent on it."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from agent.driver import SANDBOX_IMAGE, ContainerState, StartError
from agent.drivers import cri_codec as codec
from agent.drivers.choice import choose
from agent.drivers.cri import CriDriver
from agent.drivers.local_image import BUSYBOX_IMAGE
from agent.folder import LocalFolder
from agent.options import AgentOptions
from agent.ownership import CONTAINER, NODE
from agent.tracked import SANDBOX
from foundation.clock import SystemClock
from manifests.allocations import Phase
from manifests.containers import PullPolicy
from manifests.errors import DriverError, UnavailableError
from tests.agents import in_network_namespace, running_agent
from tests.conformance.driver_lab import SUITE, cri_lab_of, ended, look, run, shell
from tests.containerd import ContainerdProcess, containerd, is_installed
from tests.integration.test_agent import test_five_run_and_one_that_crashes_runs_again_at_once  # noqa: F401
from tests.integration.test_agent_groups import (  # noqa: F401
    box,
    test_a_group_shares_its_network_and_each_of_it_restarts_alone,
    test_a_job_succeeds_without_waiting_for_its_sidecars,
    test_configs_are_files_and_variables_and_go_with_their_allocation,
    test_sidecars_and_init_containers_come_first_and_sidecars_end_last,
)
from tests.lab.waiting import wait_until
from tests.registry import registry
from tests.scripted_server import ScriptedServer, assigned, grouped

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]
HOUR_S = 3600.0


class LateClock(SystemClock):
    def wall_s(self) -> float:
        return super().wall_s() + HOUR_S


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def daemon(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ContainerdProcess]:
    if not is_installed():
        pytest.skip("there is no containerd, or no CNI plugins, on this machine")
    async with containerd(tmp_path_factory.mktemp("containerd")) as running:
        with in_network_namespace(running.netns):
            yield running


def driver_of(daemon: ContainerdProcess) -> CriDriver:
    driver = cri_lab_of(daemon).driver()
    assert isinstance(driver, CriDriver)
    return driver


@pytest_asyncio.fixture(loop_scope="module")
async def driver(daemon: ContainerdProcess) -> AsyncIterator[CriDriver]:
    """A driver for looking. All containers are removed after the test."""
    driver = driver_of(daemon)
    yield driver
    for labels in (SUITE, {NODE: "n1"}):
        for container in await driver.list_containers(labels):
            await driver.remove(container.id)
    await driver.close()


@pytest.fixture
def options(daemon: ContainerdProcess, server: ScriptedServer, tmp_path: Path) -> AgentOptions:
    """What an agent of that server, on that containerd, is started with."""
    folder = tmp_path / "agent"
    folder.mkdir()
    return AgentOptions(
        servers=(server.url,),
        name="n1",
        data_dir=folder,
        driver="cri",
        cri_socket=str(daemon.socket),
        cpu_m=4000,
        memory_bytes=2 * 2**30,
        pids=20_000,
        cgroup_parent=f"{daemon.cgroup_parent}/{tmp_path.name[-20:]}",
    )


async def test_an_agent_runs_a_group_in_one_pod_and_the_next_one_adopts_it(
    driver: CriDriver, server: ScriptedServer, options: AgentOptions
) -> None:
    serve = box("app", "echo hello > /tmp/index.html; exec httpd -f -p 8080 -h /tmp")
    ask = box("ask", "until nc -w 1 127.0.0.1 8080 < /dev/null; do sleep 0.1; done; exec sleep 1000")

    async def now() -> dict[str, tuple[str, int]]:
        found = await driver.list_containers({NODE: "n1"})
        return {c.labels[CONTAINER]: (c.id, c.pid) for c in found if c.state is ContainerState.RUNNING}

    async with running_agent(options):
        await server.until_hello(1)
        await server.run(grouped(serve, ask), assigned("web-1-a"))
        await server.until_phase("web-0-a", Phase.RUNNING)
        await server.until_phase("web-1-a", Phase.RUNNING)
        before = await wait_until(now, 20, "all run", lambda found: len(found) == 4)
        os.kill(before["ask"][1], signal.SIGKILL)
        began_s = time.monotonic()
        await server.until(lambda: server.statuses["web-0-a"].attempt == 2, what="ask runs again")
        print(f"told of its next attempt {(time.monotonic() - began_s) * 1000:.0f} ms after its end")
        between = await wait_until(now, 20, "all run again", lambda found: len(found) == 4)
    assert between == await now()
    async with running_agent(options):
        await server.until_hello(2)
        await server.until_phase("web-0-a", Phase.RUNNING)
        assert await now() == between
    assert {name: between[name] for name in ("app", SANDBOX)} == {name: before[name] for name in ("app", SANDBOX)}
    assert between["ask"] != before["ask"]


async def test_a_node_with_a_runtime_can_have_the_driver(options: AgentOptions, tmp_path: Path) -> None:
    choice = await asyncio.to_thread(choose, options, LocalFolder(options.data_dir))
    assert choice.name == "cri"
    assert "cri" in choice.available
    elsewhere = replace(options, cri_socket=str(tmp_path / "none.sock"))
    assert "cri" not in (await asyncio.to_thread(choose, elsewhere, LocalFolder(options.data_dir))).available


async def test_info_names_the_runtime_its_handlers_and_its_network(driver: CriDriver) -> None:
    info = await driver.info()
    assert info.name == "cri"
    assert info.version.startswith("containerd ")
    assert info.attributes["network"] == "cni"
    assert "runc" in info.attributes["runtimes"].split(",")


async def test_the_end_of_a_container_is_told_at_once_and_then_known(driver: CriDriver) -> None:
    events = driver.events(SUITE)
    container = await run(driver, shell("exec sleep 1000"))
    async with asyncio.timeout(10):
        assert await anext(events) == container  # it has started
        os.kill((await look(driver, container)).pid, signal.SIGKILL)
        began_s = time.monotonic()
        while (await look(driver, container)).state is not ContainerState.EXITED:
            assert await anext(events) == container
    print(f"known {(time.monotonic() - began_s) * 1000:.0f} ms after its end")
    await events.aclose()


async def test_the_end_of_a_sandbox_is_told_at_once_and_takes_no_other_with_it(driver: CriDriver) -> None:
    events = driver.events(SUITE)
    first = asyncio.ensure_future(anext(events))
    holder = await run(driver, shell("", command=(), image=SANDBOX_IMAGE, host_network=False))
    member = await run(driver, shell("exec sleep 1000", host_network=False, network_of=holder))
    async with asyncio.timeout(10):
        assert await first in (holder, member)
        os.kill((await look(driver, holder)).pid, signal.SIGKILL)
        while await anext(events) != holder or (await look(driver, holder)).state is not ContainerState.EXITED:
            pass
    ended = await look(driver, holder)
    assert (ended.exit_code, ended.image) == (137, SANDBOX_IMAGE)
    assert (await look(driver, member)).state is ContainerState.RUNNING
    await events.aclose()
    await driver.remove(holder)
    assert await driver.inspect(member) is None


async def test_logs_rotate_and_are_read_whole_and_go_with_the_container(
    driver: CriDriver, daemon: ContainerdProcess
) -> None:
    script = "seq 1 300000; while [ ! -e /tmp/go ]; do sleep 0.1; done; echo last; sleep 1000"
    container = await run(driver, shell(script, name="rotated"))
    folder = daemon.folder / "logs" / "rotated"

    async def names() -> set[str]:
        await driver.list_containers(SUITE)
        return {path.name for path in folder.iterdir()}

    await wait_until(names, 20, "it is rotated", lambda found: found == {"rotated.log", "rotated.log.1"})
    await driver.execute(container, ["touch", "/tmp/go"], timeout_s=10)

    async def lines() -> list[bytes]:
        log = driver.logs(container, follow=False, tail=None)
        return b"".join([chunk.data async for chunk in log]).splitlines()

    found = await wait_until(lines, 20, "the last line is there", lambda found: found[-1:] == [b"last"])
    assert found == [*(str(number).encode() for number in range(1, 300_001)), b"last"]
    await driver.remove(container)
    assert not folder.exists()


async def test_a_pod_without_its_container_is_found_by_the_next_create_or_swept_away(
    driver: CriDriver, daemon: ContainerdProcess
) -> None:
    spec = shell("exit 3")
    half, is_config, _ = await driver._pods.run(spec)
    assert is_config.metadata.name == spec.name
    container = await run(driver, spec)
    assert (await ended(driver, container)).exit_code == 3
    assert [c.id for c in await driver._pods.containers(half)] == [container]
    forsaken, _, _ = await driver._pods.run(shell("exit 3"))
    later = CriDriver(daemon.socket, log_root=daemon.folder / "logs", clock=LateClock())
    await later.list_containers(SUITE)
    await later.close()
    assert await driver._pods.status(forsaken) is None
    assert await driver._pods.status(half) is not None


async def test_an_image_is_pulled_from_a_registry_once(driver: CriDriver, daemon: ContainerdProcess) -> None:
    async with registry(daemon.netns) as served:
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            for _ in range(4):
                tasks.create_task(driver.ensure_image(served.image, PullPolicy.ALWAYS))
        assert served.layers_asked <= 1
        container = await run(driver, shell("exit 6", image=served.image))
        assert (await ended(driver, container)).exit_code == 6


async def test_without_a_network_the_hosts_works_and_any_other_is_refused_with_words(tmp_path: Path) -> None:
    async with containerd(tmp_path, has_network=False) as daemon:
        driver = driver_of(daemon)
        try:
            assert (await driver.info()).attributes["network"] == "host"
            with pytest.raises(DriverError, match="no container network"):
                await driver.create(shell("exit 0", host_network=False))
            container = await run(driver, shell("exit 4"))
            assert (await ended(driver, container)).exit_code == 4
            assert len(await driver._pods.listed({})) == 1  # what failed is gone
            await driver.remove(container)
        finally:
            await driver.close()


async def test_a_runtime_that_is_not_there_says_where_it_was_sought(tmp_path: Path) -> None:
    driver = CriDriver(tmp_path / "none.sock", log_root=tmp_path)
    try:
        with pytest.raises(UnavailableError, match=r"none\.sock"):
            await driver.ensure_image(BUSYBOX_IMAGE, PullPolicy.NEVER)
    finally:
        await driver.close()


async def test_a_container_whose_own_pod_ended_before_its_start_is_tried_anew(driver: CriDriver) -> None:
    container = await driver.create(shell("exit 0"))
    (pod,) = await driver._pods.listed({codec.POD_NAME: (await look(driver, container)).name})
    await driver._pods.stop(pod.id)
    with pytest.raises(StartError):
        await driver.start(container)


async def test_a_runtime_is_asked_for_by_its_name(driver: CriDriver) -> None:
    container = await run(driver, shell("exit 3", runtime="runc"))
    assert (await ended(driver, container)).exit_code == 3
    with pytest.raises(DriverError, match="nope"):
        await driver.create(shell("true", runtime="nope"))
